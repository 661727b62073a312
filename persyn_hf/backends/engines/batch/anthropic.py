"""Speak Anthropic's Message Batches API.

    POST /messages/batches               makes a batch of requests, each with a `custom_id` and its `params`
    GET  /messages/batches               lists batches, newest first: times and counts, nothing of ours
    GET  /messages/batches/ID            says how far it is
    GET  /messages/batches/ID/results    what came out, as JSON lines in any order: every request has one

A batch bears no mark. So the mark of its note begins every `custom_id`, which only the results show: a batch whose id
was lost is one that was made since with as many requests, and once it has ended the first line of its results says
whether it is ours. Until then nothing is sent anew. Fields are those of the package `anthropic`
(`types/messages/message_batch.py` and its neighbours), as of August 2026.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from persyn_hf.backends.answers import Request, failed
from persyn_hf.backends.engines import messages
from persyn_hf.backends.engines.addresses import addresses
from persyn_hf.backends.engines.batch.notes import Note
from persyn_hf.backends.engines.batch.service import PASSING, SKEW_S, Found, Result, State, unfound, whole
from persyn_hf.backends.engines.batch.wire import GoneError, Wire, Wired
from persyn_hf.backends.engines.endpoint import URLS_AT
from persyn_hf.backends.engines.replies import Fault, lost, parse, read_reply
from persyn_hf.errors import EngineError
from persyn_hf.text import first_line


BATCHES = "messages/batches"
LISTED = 100  # batches per page
PAGES = 50
COUNTS = ("processing", "succeeded", "errored", "canceled", "expired")
KEY_DIGITS = 32  # of a request's key behind the mark: a `custom_id` has 64 characters at most


class MessageBatches(Wired):
    """A `Service` in Anthropic's form."""

    def __init__(
        self, model: str, url: str, extra: Mapping[str, Any], *, key: str | None, settle_s: float, **hints: Any
    ) -> None:
        self.model, self._extra, self._key, self._settle_s = model, dict(extra), key, settle_s
        address, _ = addresses(url, messages.MESSAGES, URLS_AT)
        super().__init__(Wire(url, address, "/messages", messages.headers(key), key=key, **hints))
        self._begins: dict[str, str] = {}  # id of a batch that has ended -> first `custom_id` of its results

    def line(self, request: Request, mark: str) -> bytes:
        """Make the entry of a request."""
        body = messages.message_body(self.model, self._extra, request)
        line = {"custom_id": _custom_id(mark, request.key), "params": body}
        return json.dumps(line, ensure_ascii=False).encode() + b"\n"

    def upload(self, lines: Path) -> str | None:
        """Upload nothing: the requests go with the batch itself."""
        return None

    def create(self, note: Note, lines: Path, others: Callable[[], set[str]]) -> Found:
        """Make a batch. It is paid for, so where the reply is lost it is looked for first."""
        size = lines.stat().st_size + len(b'{"requests":[]}') - 1  # a comma for each line's end but the last
        known = Found()

        def sent() -> dict[str, Any]:
            known_size = {"content-length": str(size), "content-type": "application/json"}
            return {"content": _requests(lines), "headers": known_size}

        def is_there() -> bool:
            nonlocal known
            known = self.find(note, others())
            return bool(known)

        found = self._wire.json("POST", BATCHES, sent, unless=is_there, pause_s=self._settle_s)
        return known or Found(batch=self._wire.id_of(found, "batch"))

    def find(self, note: Note, others: set[str]) -> Found:
        """Find the batch of a note among those of as many requests that were made since it was written.

        Raises `GoneError` where one of them has ended, and its results are deleted.
        """
        maybe = 0
        after: dict[str, str] = {}
        for _ in range(PAGES):
            asked = {**self._wire.params, "limit": str(LISTED), **after}
            found = self._wire.json("GET", BATCHES, lambda: {"params": asked})  # noqa: B023 - called at once
            page = found.get("data")
            page = [each for each in page if isinstance(each, Mapping)] if isinstance(page, list) else []
            for each in page:
                if _made(each) < note.since - SKEW_S:
                    return Found(maybe=maybe)
                if each.get("id") in others or sum(_counts(each).values()) != note.number:
                    continue
                is_ours = self._is_ours(each, note)
                if is_ours:
                    return Found(batch=self._wire.id_of(each, "batch"))
                maybe += is_ours is None
            last = {"after_id": str(page[-1].get("id"))} if page else after
            if last == after or found.get("has_more") is False:
                return Found(maybe=maybe)
            after = last
        raise EngineError(unfound(self.name, note, PAGES * LISTED))

    def _is_ours(self, batch: Mapping[str, Any], note: Note) -> bool | None:
        """Tell whether a batch is the one of a note; None: it goes on, so nobody knows yet.

        Raises `GoneError` where its results are deleted: it may have been paid for by us.
        """
        if batch.get("processing_status") != "ended":
            return None
        batch_id = self._wire.id_of(batch, "batch")
        if batch_id not in self._begins:
            line = parse(self._wire.first_line(f"{BATCHES}/{batch_id}/results"))
            self._begins[batch_id] = str(line.get("custom_id")) if isinstance(line, Mapping) else ""
        return self._begins[batch_id].startswith(note.mark)

    def look(self, batch: str) -> State:
        """Say how far a batch is. Raises `GoneError` where it, or what came out of it, is not there."""
        found = self._wire.json("GET", f"{BATCHES}/{batch}", what=f"batch {batch}")
        status, counts = str(found.get("processing_status", "")).lower(), _counts(found)
        total = sum(counts.values())
        done = total - counts["processing"]
        if status != "ended":  # any other word is of a batch that goes on
            return State(is_over=False, done=done, total=total, reason=first_line(status, 20))
        if found.get("archived_at") or not found.get("results_url"):
            raise GoneError(f"{self.name} keeps no results of batch {batch} any more")
        lacking = ", ".join(f"{counts[name]:,} {name}" for name in COUNTS[2:] if counts[name])
        return State(
            is_over=True,
            done=done,
            total=total,
            files=(f"{BATCHES}/{batch}/results",),
            reason=f"the batch ended{f' ({lacking})' if lacking else ''}",
            names_all=True,
        )

    def results(self, state: State, note: Note, folder: Path) -> Iterator[Result]:
        """Yield what was said to every request that has a result."""
        keys = {_custom_id(note.mark, key): key for key in note.keys}
        for path in state.files:
            for line in self._wire.lines(path, folder):
                found = parse(line)
                name = found.get("custom_id") if isinstance(found, Mapping) else None
                if isinstance(name, str) and name in keys:
                    yield _read_result(keys[name], found.get("result"), self._key)


def _read_result(name: str, result: Any, key: str | None) -> Result:
    """Read what became of a request. Requests that erred, expired or were cancelled are not billed."""
    result = result if isinstance(result, Mapping) else {}
    kind = result.get("type")
    if kind in ("expired", "canceled"):
        return Result(key=name, said=failed(f"the request was {kind}"), undone=True)
    body = result.get("message") if kind == "succeeded" else result.get("error")
    read = read_reply(200, {}, json.dumps(body).encode(), messages.read_message, wanted="message", key=key)
    if not isinstance(read, Fault):
        return Result(key=name, said=read)
    return Result(key=name, said=lost(read), undone=kind == "errored" and read.kind in PASSING)


def _custom_id(mark: str, key: str) -> str:
    return mark + key[:KEY_DIGITS]


def _requests(lines: Path) -> Iterator[bytes]:
    """Yield the body of a batch, a request at a time: it may have hundreds of megabytes."""
    with lines.open("rb") as file:
        before = b'{"requests":['
        for line in file:
            yield before + line.removesuffix(b"\n")
            before = b","
    yield b"]}"


def _counts(batch: Mapping[str, Any]) -> dict[str, int]:
    counts = batch.get("request_counts")
    return {name: whole(counts.get(name)) if isinstance(counts, Mapping) else 0 for name in COUNTS}


def _made(batch: Mapping[str, Any]) -> float:
    """Return when a batch was made; one that does not say may be new."""
    try:
        return datetime.fromisoformat(str(batch.get("created_at"))).timestamp()
    except ValueError:
        return float("inf")
