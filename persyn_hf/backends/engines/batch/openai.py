"""Speak to a service's batch API in OpenAI's form: a file of requests goes up, a batch is made of it, files come down.

    POST /files                  the requests, as JSON lines with the purpose `batch`
    POST /batches                makes a batch of the file; `metadata` carries our mark, by which it is found again
    GET  /batches                lists batches, newest first
    GET  /batches/ID             says how far it is, and at last which files hold what came out
    GET  /files/ID/content       answers and errors, as JSON lines

OpenAI, Azure, Groq and others speak it; Mistral (/batch/jobs) and Together (another purpose, `{"job": ...}`) do not.
What a line or a status means is read here alone.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from persyn_hf.backends.answers import Request, failed
from persyn_hf.backends.engines.addresses import addresses
from persyn_hf.backends.engines.batch.notes import Note
from persyn_hf.backends.engines.batch.service import PASSING, SKEW_S, Found, Result, State, unfound, whole
from persyn_hf.backends.engines.batch.wire import Wire, Wired
from persyn_hf.backends.engines.completions import read_chat
from persyn_hf.backends.engines.endpoint import CHAT, URLS_AT, chat_body
from persyn_hf.backends.engines.replies import Fault, lost, parse, read_reply, words
from persyn_hf.errors import EngineError
from persyn_hf.text import first_line


MARK = "persyn"  # the key of `metadata` that holds our mark
LISTED = 100  # batches per page
PAGES = 50  # of batches that are looked through for a mark
# Any other word is of a batch that goes on: one that is given up too early is paid for again.
OVER = frozenset({"completed", "failed", "expired", "cancelled", "canceled"})
# A line of an error file with one of these codes was not answered; OpenAI writes one of each request that expires.
UNDONE = frozenset({"batch_expired", "batch_cancelled", "request_timeout"})
FULL = "token_limit_exceeded"  # OpenAI: the enqueued tokens of a model and an organisation


class OpenAIBatches(Wired):
    """A `Service` in OpenAI's form."""

    def __init__(
        self,
        model: str,
        url: str,
        extra: Mapping[str, Any],
        *,
        key: str | None,
        window: str,
        settle_s: float,
        **hints: Any,
    ) -> None:
        self.model, self._extra, self._key = model, dict(extra), key
        self._window, self._settle_s = window, settle_s
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        address, _ = addresses(url, CHAT, URLS_AT)
        super().__init__(Wire(url, address, CHAT.removeprefix("/v1"), headers, key=key, **hints))

    def line(self, request: Request, mark: str) -> bytes:
        """Make the line of a request."""
        body = {name: value for name, value in chat_body(self.model, self._extra, request).items() if name != "stream"}
        line = {"custom_id": request.key, "method": "POST", "url": "/v1/chat/completions", "body": body}
        return json.dumps(line, ensure_ascii=False).encode() + b"\n"

    def upload(self, lines: Path) -> str | None:
        """Upload a file of requests and return its id. Uploading costs nothing, so it may be done again."""
        with lines.open("rb") as file:

            def sent() -> dict[str, Any]:
                file.seek(0)
                return {"data": {"purpose": "batch"}, "files": {"file": (lines.name, file)}}

            return self._wire.id_of(self._wire.json("POST", "files", sent), "file")

    def create(self, note: Note, lines: Path, others: Callable[[], set[str]]) -> Found:
        """Make a batch of an uploaded file. It is paid for, so one that is there is taken up.

        Where the reply is lost on its way, the batch may be there: it is looked for before another one is made.
        """
        body = {
            "input_file_id": note.file,
            "endpoint": "/v1/chat/completions",
            "completion_window": self._window,
            "metadata": {MARK: note.mark},
        }
        known = Found()

        def is_there() -> bool:
            nonlocal known
            known = self.find(note, others())
            return bool(known)

        found = self._wire.json("POST", "batches", lambda: {"json": body}, unless=is_there, pause_s=self._settle_s)
        return known or Found(batch=self._wire.id_of(found, "batch"))

    def find(self, note: Note, others: set[str]) -> Found:
        """Find the batch that bears the mark of a note, or was made of its file."""
        after: dict[str, str] = {}
        for _ in range(PAGES):
            # `params` takes the place of a query in the address (Azure's api-version), so that goes with them.
            asked = {**self._wire.params, "limit": str(LISTED), **after}
            found = self._wire.json("GET", "batches", lambda: {"params": asked})  # noqa: B023 - called at once
            page = found.get("data")
            page = [each for each in page if isinstance(each, Mapping)] if isinstance(page, list) else []
            for each in page:
                about = each.get("metadata")
                is_marked = isinstance(about, Mapping) and about.get(MARK) == note.mark
                if is_marked or (note.file is not None and each.get("input_file_id") == note.file):
                    return Found(batch=self._wire.id_of(each, "batch"))
            last = {"after": str(page[-1].get("id"))} if page else after
            # Groq does not say whether there are more.
            if last == after or found.get("has_more") is False or _is_older(page[-1], note.since - SKEW_S):
                return Found()
            after = last
        raise EngineError(unfound(self.name, note, PAGES * LISTED))

    def look(self, batch: str) -> State:
        """Say how far a batch is."""
        found = self._wire.json("GET", f"batches/{batch}", what=f"batch {batch}")
        status = str(found.get("status", "")).lower()
        counts = found.get("request_counts")
        counts = counts if isinstance(counts, Mapping) else {}
        done, missed, total = (whole(counts.get(name)) for name in ("completed", "failed", "total"))
        files = [found.get(name) for name in ("output_file_id", "error_file_id")]
        is_late = status == "completed" and done + missed > 0 and not any(files)  # its files are still to be named
        if "error" not in found and (status not in OVER or is_late):
            return State(is_over=False, done=done + missed, total=total, reason=first_line(status, 20))
        errors = found.get("errors")
        listed = errors.get("data") if isinstance(errors, Mapping) else None
        first = listed[0] if isinstance(listed, list) and listed else errors
        said = words(first) if first else ""
        return State(
            is_over=True,
            done=done + missed,
            total=total,
            files=tuple(f"files/{file}/content" for file in files if file),
            reason=f"the batch {first_line(status, 20) or 'ended'}{f': {said}' if said else ''}",
            is_expired=status == "expired",
            is_full=isinstance(first, Mapping) and first.get("code") == FULL,
        )

    def results(self, state: State, note: Note, folder: Path) -> Iterator[Result]:
        """Yield what was said to every request that has a result."""
        for path in state.files:
            for line in self._wire.lines(path, folder):
                found = _read_line(line, self._key)
                if found is not None:
                    yield found


def _is_older(batch: Mapping[str, Any], than: float) -> bool:
    made = batch.get("created_at")
    return isinstance(made, int | float) and not isinstance(made, bool) and 0 < made < than


def _read_line(line: bytes, key: str | None) -> Result | None:
    """Read a line of a file of results; None where it names no request."""
    found = parse(line)
    if not isinstance(found, Mapping) or not isinstance(found.get("custom_id"), str):
        return None
    name, response, error = found["custom_id"], found.get("response"), found.get("error")
    if not isinstance(response, Mapping):
        undone = isinstance(error, Mapping) and error.get("code") in UNDONE
        said = failed(words(error) if error else "the batch gave no answer")
        return Result(key=name, said=said, undone=undone)
    status = response.get("status_code")
    status = status if isinstance(status, int) else 200
    body = json.dumps(response.get("body")).encode()
    read = read_reply(status, {}, body, read_chat, wanted="chat completion", key=key)
    if not isinstance(read, Fault):
        return Result(key=name, said=read)
    return Result(key=name, said=lost(read), undone=status >= 400 and read.kind in PASSING)
