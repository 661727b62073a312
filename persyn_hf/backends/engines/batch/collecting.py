"""Send the requests of one call in batches, and collect their answers as the batches end."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from persyn_hf.backends.answers import Answer, Request, Said, answer_to, failed
from persyn_hf.backends.engines.batch.notes import Note, Notes, Sender, new_note
from persyn_hf.backends.engines.batch.service import Found, Result, Service, State, cut
from persyn_hf.backends.engines.batch.wire import BusyError, GoneError
from persyn_hf.backends.engines.settings import BatchSettings
from persyn_hf.errors import EngineError, UnderWay


AT_A_TIME = 500  # answers that are handed over together
NAP_S = 1.0


@dataclass(kw_only=True)
class _Held:
    """Requests that the account had no room for: they are sent anew when a batch has ended, or in smaller ones."""

    requests: Sequence[Request]
    attempt: int
    note: Note | None = None  # of the batch that was not begun


@dataclass
class Collecting:
    """The way of requests through batches: `send`, then `answers`."""

    service: Service
    notes: Notes
    settings: BatchSettings
    sender: Sender
    asked: Mapping[str, Request]
    say: Callable[[str | None], None]
    waiting: list[Note] = field(default_factory=list)
    held: list[_Held] = field(default_factory=list)
    answered: set[str] = field(default_factory=set)

    def send(self) -> None:
        """Take up what earlier runs have sent, and send the rest."""
        self.notes.clear()
        self.waiting = self._taken_up()
        under_way = {key for note in self.waiting for key in note.keys}
        self._send([request for key, request in self.asked.items() if key not in under_way])

    def answers(self) -> Iterator[list[Answer]]:
        """Yield the answers of one batch after another as they end; may raise as `BatchEngine.generate` does."""
        while self.waiting or self.held:
            for note in list(self.waiting):
                known = self._known(note)
                if known is None or known.batch is None:
                    continue
                state = self._look(known)
                if state.is_over:
                    self.waiting.remove(known)
                    yield from self._end(known, state)
                else:
                    progress = f"{state.done} of {state.total} answered ({state.reason})"
                    self.say(f"batch {known.batch} at {self.service.name}: {progress}")
            if self.waiting or self.held:
                if self.sender.waits:
                    self._rest()
                self._send_held()
                if not self.sender.waits:
                    raise self._under_way()
        self.say(None)

    def _end(self, note: Note, state: State) -> Iterator[list[Answer]]:
        """Yield what a batch that is over has answered, and send anew or give up what it has not."""
        wanted = self.asked.keys() & set(note.keys)
        undone: dict[str, Said] = {}
        for said in _chunks(self._results(note, state), wanted - self.answered, undone):
            yield [answer_to(self.asked[key], answer) for key, answer in said]  # journalled when this goes on
            self.answered.update(key for key, _ in said)
        elsewhere = {key for other in self.waiting for key in other.keys}  # of a run killed after it had sent anew
        elsewhere |= {request.key for part in self.held for request in part.requests}
        lacking = [self.asked[key] for key in note.keys if key in wanted - self.answered - elsewhere]
        if state.is_full:
            self.say(f"{self.service.name}: {state.reason}")
            self.held.append(_Held(requests=lacking, attempt=note.attempt, note=note))
            return
        if lacking and not state.files and not state.is_expired:
            self.notes.strike(note, wanted)
            raise EngineError(f"{self.service.name} has not begun a batch ({state.reason}); see `generate.batch`")
        again = []
        if note.attempt < self.settings.attempts:
            again = [request for request in lacking if request.key in undone or not state.names_all]
            self._send(again, note.attempt + 1)
        sent = {request.key for request in again}
        if lost := [request for request in lacking if request.key not in sent]:
            silent = ", and nothing was said to this request" if state.names_all else ""
            nothing = failed(state.reason + silent)
            yield [answer_to(request, undone.get(request.key, nothing)) for request in lost]
        self.notes.strike(note, wanted)

    def _send_held(self) -> None:
        """Send what was held back, in smaller batches where none goes on: each may be more than the account takes."""
        held, self.held = self.held, []
        goes_on = bool(self.waiting)
        for part in held:
            number = len(part.requests)
            self._send(part.requests, part.attempt, number if goes_on else -(-number // 2))
            if part.note is not None:
                self.notes.strike(part.note, self.asked.keys())

    def _send(self, requests: Sequence[Request], attempt: int = 1, most: int | None = None) -> None:
        """Send requests in as many batches as the provider's limits, and `most` of a batch, make of them."""
        largest = min(self.settings.max_requests, most or sys.maxsize)
        left = {request.key: request for request in requests}
        for mark, part in cut(requests, self.service.line, largest, self.settings.max_bytes):
            path = self.notes.folder / f"{mark}.jsonl"
            path.write_bytes(b"".join(line for _, line in part))
            try:
                self.waiting.append(self._sent(mark, [request for request, _ in part], path, attempt))
            except BusyError as busy:
                if not self.waiting:
                    raise
                self.say(str(busy))
                self.held.append(_Held(requests=list(left.values()), attempt=attempt))
                return
            finally:
                path.unlink()
            for request, _ in part:
                del left[request.key]

    def _sent(self, mark: str, requests: Sequence[Request], lines: Path, attempt: int) -> Note:
        """Send one batch and return its note, which is written before. Raises `BusyError` where it was not made."""
        file = self.service.upload(lines)
        place, model = self.service.place, self.service.model
        note = new_note(requests, service=place, model=model, mark=mark, sender=self.sender, attempt=attempt)
        note = self.notes.write(replace(note, file=file))
        try:
            found = self.service.create(note, lines, lambda: self._others(note))
        except BusyError:
            self.notes.remove(note)
            raise
        return note if found.batch is None else self.notes.write(replace(note, batch=found.batch))

    def _taken_up(self) -> list[Note]:
        """Return the notes of batches that earlier runs have sent, which answer some of the requests."""
        here = self.service.place, self.service.model
        return [
            known
            for note in self.notes.holding(self.asked.keys())
            if (note.service, note.model) == here
            for known in [self._known(note)]
            if known is not None
        ]

    def _known(self, note: Note) -> Note | None:
        """Return a note with the id of its batch, as far as that can be known; None: it was never made.

        What was found out is noted, in `waiting` too, and what was never made is sent.
        """
        if note.batch is not None:
            return note
        try:
            found = self._found(note)
        except GoneError as error:
            raise self._gone(note, error) from None
        if found.batch is None and found.maybe:
            self.say(
                f"{self.service.name}: a batch of {note.number} requests may have been made, its id was lost; waiting "
                f"until {found.maybe} like it end{'s' if found.maybe == 1 else ''}, to see whether it is the one"
            )
            return note
        is_waited_for = note in self.waiting
        if found.batch is None:
            self.notes.remove(note)
            if is_waited_for:
                self.waiting.remove(note)
                self._send([self.asked[key] for key in note.keys if key in self.asked], note.attempt)
            return None
        known = self.notes.write(replace(note, batch=found.batch))
        if is_waited_for:
            self.waiting[self.waiting.index(note)] = known
        return known

    def _found(self, note: Note) -> Found:
        """Look for the batch of a note, not before one that was made would show."""
        shown = note.since + min(self.settings.poll_s, 60)
        if (left := shown - time.time()) > 0:
            time.sleep(min(left, self.settings.poll_s))
        return self.service.find(note, self._others(note))

    def _others(self, note: Note) -> set[str]:
        """Return the batches that are known to be those of other notes."""
        return {other.batch for other in self.notes if other.batch is not None and other.mark != note.mark}

    def _look(self, note: Note) -> State:
        assert note.batch is not None  # `_known` has seen to it
        try:
            return self.service.look(note.batch)
        except GoneError as error:
            raise self._gone(note, error) from None

    def _results(self, note: Note, state: State) -> Iterator[Result]:
        try:
            yield from self.service.results(state, note, self.notes.folder)
        except GoneError as error:
            raise self._gone(note, error) from None

    def _gone(self, note: Note, error: GoneError) -> EngineError:
        """Say what to do about a batch that is not there: sent anew at once, it might be paid for twice."""
        return EngineError(
            f"{error}: batch {note.batch or 'whose id was lost'} was made with another key, or what came out of it is "
            f"deleted; run with the key that it was made with, or remove {self.notes.path(note)} to send its "
            f"{len(note.keys)} requests anew"
        )

    def _rest(self) -> None:
        """Wait until the batches are to be looked at again."""
        end = time.monotonic() + self.settings.poll_s
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, NAP_S))

    def _under_way(self) -> UnderWay:
        """Say what a run that does not wait leaves under way."""
        number = sum(len(self.asked.keys() & set(note.keys)) for note in self.waiting)
        held = sum(len(part.requests) for part in self.held)
        later = f", and {held:,} are to be sent when it has room" if held else ""
        batches = f"{len(self.waiting)} batch{'es' if len(self.waiting) != 1 else ''}"
        return UnderWay(f"{self.service.name} has {number:,} requests of `{self.sender.payee}` in {batches}{later}")


def _chunks(results: Iterable[Result], wanted: set[str], undone: dict[str, Said]) -> Iterator[list[tuple[str, Said]]]:
    """Yield the results that are wanted, each key once, some at a time; `undone` gets those that are no answer."""
    left, chunk = set(wanted), list[tuple[str, Said]]()
    for result in results:
        if result.key not in left:
            continue
        if result.undone:
            undone[result.key] = result.said
            continue
        left.remove(result.key)
        chunk.append((result.key, result.said))
        if len(chunk) >= AT_A_TIME:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
