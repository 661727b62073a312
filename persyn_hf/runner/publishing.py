"""Publish while a recipe runs: every artifact as soon as its step is done, students at the end."""

from persyn_hf.errors import StoreError
from persyn_hf.formats import file_size
from persyn_hf.runner.progress import RunProgress
from persyn_hf.store.hub.login import check_rights, hub_api
from persyn_hf.store.hub.push import Pushed, TagTaken, push
from persyn_hf.store.local import Store
from persyn_hf.store.stored import Stored


class Publisher:
    """Pushes what a run makes. A failed push does not stop the run: it is tried again at the end, then reported."""

    def __init__(self, store: Store, namespace: str, private: bool | None = None) -> None:
        """Check login and the right to write to `namespace`, before any work is done.

        Raises:
            StoreError: nobody is logged in, or without the right to write to the namespace.
        """
        self._store, self._private, self._api = store, private, hub_api()
        self._waiting: dict[str, Stored] = {}  # students, whose card shows evaluations to come, and what failed
        self._reasons: dict[str, StoreError] = {}
        check_rights(self._api, namespace)

    def offer(self, stored: Stored, progress: RunProgress) -> None:
        """Push an artifact now, but a student only in `finish`: its card shows evaluations, which are yet to come."""
        if stored.kind == "student":
            self._waiting[stored.ref] = stored
        else:
            self._try(stored, progress)

    def finish(self, progress: RunProgress) -> None:
        """Push the artifacts that wait: students, and what failed before."""
        waiting, self._waiting = self._waiting, {}
        for stored in waiting.values():
            self._try(stored, progress)

    def check(self) -> None:
        """Raise a `StoreError` that says what to do, where something could not be pushed."""
        if not self._reasons:
            return
        taken = [error for error in self._reasons.values() if isinstance(error, TagTaken)]
        first = [*taken, *self._reasons.values()][0]
        number = f" ({len(self._reasons)} could not be pushed)" if len(self._reasons) > 1 else ""
        again = f"persyn artifacts push {' '.join(self._waiting)} --store {self._store.root}"
        which = "push the others" if taken else "push"
        then = f"; {which} with: {again}{' --private' if self._private else ''}" if self._waiting else ""
        raise StoreError(f"the run is finished and stored, but {first}{number}{then}")

    def _try(self, stored: Stored, progress: RunProgress) -> None:
        """Push an artifact; where that fails, keep the reason and, unless its tag is taken, have it wait."""
        progress.start("push", 0)
        try:
            for item in stored.manifest.inputs.values():
                if isinstance(self._reasons.get(item.ref), TagTaken):  # on the Hub its inputs would be another's
                    raise TagTaken(f"{stored.ref} was made from {item.ref}, which could not be pushed under its tag")
            progress.note(one_line(push(self._store, stored, private=self._private, api=self._api)))
            self._reasons.pop(stored.ref, None)
        except StoreError as error:
            self._reasons[stored.ref] = error
            if not isinstance(error, TagTaken):
                self._waiting[stored.ref] = stored
            progress.note(f"warning: not pushed: {error}")


def one_line(pushed: Pushed, verb: str = "pushed") -> str:
    """Say in one line what a push did, or (`verb` "would push") would do."""
    if pushed.sent == "nothing":
        return f"{pushed.ref} is on the Hub: {pushed.url}"
    what = {"tag": "the tag", "card": "the card", "all": f"{len(pushed.added)} files, {file_size(pushed.num_bytes)}"}
    gone = f", {len(pushed.deleted)} old ones deleted" if pushed.deleted and not pushed.main else ""
    stays = f"; `main` stays at the newer {pushed.main}" if pushed.main else ""
    return f"{verb} {pushed.ref} ({what[pushed.sent]}{gone}{stays}): {pushed.url}"
