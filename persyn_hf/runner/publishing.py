"""Publishing while a recipe runs: every artifact as soon as its step is done."""

from persyn_hf.errors import StoreError
from persyn_hf.runner.progress import RunProgress
from persyn_hf.store.hub.access import check_rights, hub_api
from persyn_hf.store.hub.push import Pushed, push
from persyn_hf.store.local import Store
from persyn_hf.store.stored import Stored


class Publisher:
    """Pushes what a run makes. What fails does not stop the run: it is tried again at its end, then told."""

    def __init__(self, store: Store, namespace: str, private: bool | None = None) -> None:
        """Check login and rights, before any work is done.

        Raises:
            StoreError: nobody is logged in, or without the right to write to the namespace.
        """
        self._store, self._private, self._api = store, private, hub_api()
        self._waiting: dict[str, Stored] = {}  # students, whose card shows evaluations to come, and what failed
        self._reasons: dict[str, str] = {}
        check_rights(self._api, namespace)

    def offer(self, stored: Stored, progress: RunProgress) -> None:
        """Push an artifact now, a student when `finish` is called."""
        if stored.kind == "student":
            self._waiting[stored.ref] = stored
        else:
            self._try(stored, progress)

    def finish(self, progress: RunProgress) -> None:
        """Push what waits."""
        waiting, self._waiting, self._reasons = self._waiting, {}, {}
        for stored in waiting.values():
            self._try(stored, progress)

    def check(self) -> None:
        """Raise a `StoreError` with the command to be used where something could not be pushed."""
        if self._reasons:
            first = next(iter(self._reasons.values()))
            more = f" ({len(self._reasons)} could not be pushed)" if len(self._reasons) > 1 else ""
            raise StoreError(
                f"the run is finished and stored, but {first}{more}; push with: persyn artifacts push "
                f"{' '.join(self._reasons)} --store {self._store.root}{' --private' if self._private else ''}"
            )

    def _try(self, stored: Stored, progress: RunProgress) -> None:
        progress.start("push", 0)
        try:
            progress.note(one_line(push(self._store, stored, private=self._private, api=self._api)))
        except StoreError as error:
            self._waiting[stored.ref], self._reasons[stored.ref] = stored, str(error)
            progress.note(f"warning: not pushed: {error}")


def one_line(pushed: Pushed, verb: str = "pushed") -> str:
    """What a push did, or would do."""
    if pushed.sent == "nothing":
        return f"{pushed.ref} is on the Hub: {pushed.url}"
    what = {"tag": "the tag", "card": "the card", "all": f"{len(pushed.added)} files, {_size(pushed.num_bytes)}"}
    gone = f", {len(pushed.deleted)} old ones deleted" if pushed.deleted else ""
    return f"{verb} {pushed.ref} ({what[pushed.sent]}{gone}): {pushed.url}"


def _size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.1f} GB"
