"""The batch engine: a teacher behind a provider's batch API, for half the price and within a day.

A batch is paid for once it is made, and its answers come hours later, to whichever run asks then. So what is sent is
noted before it is sent, in a file per batch: its mark and its requests. An example:

    run 1    notes mark m1 and 500 requests, uploads, makes a batch of mark m1, notes its id b1; is killed
    run 2    reads the note, looks at b1 every minute, gets 480 answers; 20 have expired and are sent anew
    killed between making and noting the id: run 2 finds b1 among the provider's batches by its mark or its file
    killed before the batch was made: run 2 finds none, and sends the requests

Answers are those of the `server` engine, with the same keys in the journal: either finds what the other has asked.
"""

import json
import os
import sys
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from persyn_hf.backends.answers import Answer, Batch, Request, Said, answer_to, failed, refuse
from persyn_hf.backends.engines.batch_service import BatchService, GoneError, Result, State, lines_of
from persyn_hf.backends.engines.server import ServerEngine
from persyn_hf.backends.engines.settings import BatchSettings, ServerSettings
from persyn_hf.errors import EngineError, RecipeError


AT_A_TIME = 500  # answers that are handed over together
NAP_S = 1.0
FORGOTTEN_S = 35 * 86400.0  # providers keep results for 30 days


@dataclass(frozen=True, kw_only=True)
class Note:
    """The record of a batch that was sent, or is about to be: its answers to `keys` are still to be collected."""

    service: str
    model: str
    mark: str
    keys: tuple[str, ...]
    file: str | None = None  # of its requests, at the provider
    batch: str | None = None  # null: it is not known whether it was made
    attempt: int = 1


class BatchEngine(ServerEngine):
    """One teacher behind one url with a batch API."""

    def __init__(
        self,
        model: str,
        settings: ServerSettings,
        batch: BatchSettings,
        *,
        revision: str | None = None,
        system_prompt: str | None = None,
        state_dir: Path,
    ) -> None:
        super().__init__(model, settings, revision=revision, system_prompt=system_prompt)
        if len(settings.urls) > 1:
            raise RecipeError(
                f"the teacher model `{model}` has {len(settings.urls)} urls, and a batch goes to one; leave one of "
                "`server.urls`"
            )
        self._batch = batch
        self._folder = state_dir.parent / "batches"

    def generate(self, batches: Iterable[Batch]) -> Iterator[list[Answer]]:
        """Send what is not under way, and yield the answers of one batch after another as they end."""
        requests = {request.key: request for batch in batches for request in batch}
        refused = [request for request in requests.values() if request.prompt.refusal]
        if refused:
            yield [refuse(request) for request in refused]
        asked = {key: request for key, request in requests.items() if not request.prompt.refusal}
        if not asked:
            return
        options = self._settings.options()
        service = BatchService(
            self._name,
            self._settings.urls[0],
            self._settings.extra,
            key=options["api_key"],
            key_hint=options["key_hint"],
            patience_s=self._settings.patience_s,
        )
        service.waits = self._waits
        try:
            yield from self._collect(service, asked)
        finally:
            service.close()

    def _collect(self, service: BatchService, asked: Mapping[str, Request]) -> Iterator[list[Answer]]:
        self._folder.mkdir(parents=True, exist_ok=True)
        waiting = self._left(service, asked)
        under_way = {key for note in waiting for key in note.keys}
        new = [request for key, request in asked.items() if key not in under_way]
        waiting += self._send(service, new)
        answered: set[str] = set()
        while waiting:
            full: list[tuple[Note, set[str], list[Request]]] = []
            for note in list(waiting):
                state = self._look(service, note)
                if not state.is_over:
                    progress = f"{state.done} of {state.total} answered ({state.reason})"
                    self._waits(f"batch {note.batch} at {service.name}: {progress}")
                    continue
                waiting.remove(note)
                wanted = asked.keys() & set(note.keys)
                undone: dict[str, Said] = {}
                for said in _chunks(self._results(service, note, state), wanted - answered, undone):
                    yield [answer_to(asked[key], answer) for key, answer in said]  # journalled when this goes on
                    answered.update(key for key, _ in said)
                others = [*waiting, *(other for other, _, _ in full)]
                elsewhere = {key for other in others for key in other.keys}  # of a run killed after it had sent anew
                lacking = [asked[key] for key in note.keys if key in wanted - answered - elsewhere]
                if state.is_full:
                    self._waits(f"{service.name}: {state.reason}")
                    full.append((note, wanted, lacking))
                    continue
                if lacking and not state.files and not state.is_expired:
                    self._forget(note, wanted)
                    raise EngineError(f"{service.name} has not begun a batch ({state.reason}); see `generate.batch`")
                elif lacking and note.attempt < self._batch.attempts:
                    waiting += self._send(service, lacking, note.attempt + 1)
                elif lacking:
                    lost = failed(state.reason)
                    yield [answer_to(request, undone.get(request.key, lost)) for request in lacking]
                self._forget(note, wanted)
            if waiting or full:
                self._nap()
            goes_on = bool(waiting)  # else the batches themselves may be more than the account may have under way
            for note, wanted, lacking in full:
                most = len(lacking) if goes_on else -(-len(lacking) // 2)
                waiting += self._send(service, lacking, note.attempt, most)
                self._forget(note, wanted)
        self._waits(None)

    def _send(
        self, service: BatchService, requests: Sequence[Request], attempt: int = 1, most: int | None = None
    ) -> list[Note]:
        """Send requests in as many batches as the provider's limits, and `most` of a batch, make of them.

        Returns their notes.
        """
        notes = []
        lines = ((request, service.line(request)) for request in requests)
        for part in lines_of(lines, min(self._batch.max_requests, most or sys.maxsize), self._batch.max_bytes):
            mark = uuid.uuid4().hex
            keys = tuple(request.key for request, _ in part)
            path = self._folder / f"{mark}.jsonl"
            path.write_bytes(b"".join(line for _, line in part))
            try:
                file = service.upload(path)
            finally:
                path.unlink()
            note = Note(service=service.place, model=service.model, mark=mark, keys=keys, file=file, attempt=attempt)
            self._write(note)
            notes.append(replace(note, batch=service.create(file, mark, self._batch.window)))
            self._write(notes[-1])
        return notes

    def _left(self, service: BatchService, asked: Mapping[str, Request]) -> list[Note]:
        """Return the notes of batches that earlier runs have sent, which answer some of the requests."""
        found = []
        for note in self._notes():
            if (note.service, note.model) != (service.place, service.model) or asked.keys().isdisjoint(note.keys):
                continue
            if note.batch is not None:
                found.append(note)
                continue
            batch = service.find(note.mark, note.file)
            if batch is None:  # it was never made
                self._path(note).unlink(missing_ok=True)
                continue
            found.append(replace(note, batch=batch))
            self._write(found[-1])
        return found

    def _look(self, service: BatchService, note: Note) -> State:
        assert note.batch is not None  # `_left` and `_send` have seen to it
        try:
            return service.look(note.batch)
        except GoneError as error:
            raise self._gone(note, error) from None

    def _results(self, service: BatchService, note: Note, state: State) -> Iterator[Result]:
        try:
            yield from service.results(state, self._folder)
        except GoneError as error:
            raise self._gone(note, error) from None

    def _gone(self, note: Note, error: GoneError) -> EngineError:
        """Say what to do about a batch that is not there: sent anew at once, it might be paid for twice."""
        return EngineError(
            f"{error}: batch {note.batch} was made with another key, or what came out of it is deleted; run with the "
            f"key that it was made with, or remove {self._path(note)} to send its {len(note.keys)} requests anew"
        )

    def _notes(self) -> Iterator[Note]:
        for path in sorted(self._folder.glob("*.json")):
            try:
                if time.time() - path.stat().st_mtime > FORGOTTEN_S:
                    path.unlink()
                    continue
                said = json.loads(path.read_text(encoding="utf-8"))
                yield Note(**{**said, "keys": tuple(said["keys"])})
            except (OSError, ValueError, TypeError, KeyError):
                continue  # half written: its batch was not made before it was whole

    def _forget(self, note: Note, collected: set[str]) -> None:
        """Strike what was collected off a note; other steps may ask for the rest."""
        left = tuple(key for key in note.keys if key not in collected)
        if left:
            self._write(replace(note, keys=left))
        else:
            self._path(note).unlink(missing_ok=True)

    def _write(self, note: Note) -> None:
        """Write a note so that it is there whole, also after a crash of the machine."""
        path = self._path(note)
        part = path.with_suffix(".part")
        with part.open("w", encoding="utf-8") as file:
            json.dump(asdict(note), file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)

    def _path(self, note: Note) -> Path:
        return self._folder / f"{note.mark}.json"

    def _nap(self) -> None:
        """Wait until the batches are to be looked at again."""
        end = time.monotonic() + self._batch.poll_s
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, NAP_S))


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
