"""A small server that speaks Anthropic's Messages and Message Batches, as strictly, with the faults of its parent."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

from batch_server import BatchServer, Line, Reply


CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def message(text: str, stop_reason: str = "end_turn", **more: Any) -> dict[str, Any]:
    usage = {"input_tokens": 4, "cache_read_input_tokens": 2, "cache_creation_input_tokens": 1, "output_tokens": 3}
    content = [{"type": "text", "text": text}] if text else []
    fields = {"content": content, "stop_reason": stop_reason, "stop_sequence": None, "usage": usage, **more}
    return {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", **fields}


def succeeded(line: Line, times: int) -> Line | None:
    text = line["params"]["messages"][-1]["content"]
    return result(line, "succeeded", message=message(f"you said {text}"))


def result(line: Line, kind: str, **more: Any) -> Line:
    return {"custom_id": line["custom_id"], "result": {"type": kind, **more}}


def erred(line: Line, kind: str, words: str) -> Line:
    error = {"type": "error", "request_id": None, "error": {"type": kind, "message": words}}
    return result(line, "errored", error=error)


@dataclass
class Made:
    """A batch; looks: how often its state was asked for."""

    requests: list[Line]
    at: str
    looks: int = 0
    results: bytes | None = None
    kinds: list[str] = field(default_factory=list)


@dataclass
class MessageBatchServer(BatchServer):
    """outcome: None leaves a request without a result, which the real one never does. twice: each result comes twice.

    looks: times that a batch is shown before it has ended. page: batches of one page of the list, at most.
    """

    outcome: Any = succeeded
    twice: bool = False
    page: int = 1000
    made: dict[str, Made] = field(default_factory=dict)

    def post(self, path: str, headers: Mapping[str, str], body: bytes) -> dict[str, Any] | Reply:
        if headers.get("anthropic-version") != "2023-06-01":
            return Reply(400)
        given = json.loads(body)
        if path == "/v1/messages":
            self.at_once += 1
            return message(f"you said {given['messages'][-1]['content']}") if _is_valid(given) else Reply(400)
        names = [line["custom_id"] for line in given["requests"]]
        valid = all(CUSTOM_ID.fullmatch(name) for name in names) and len(set(names)) == len(names)
        if not valid or not all(_is_valid(line["params"]) for line in given["requests"]):
            return Reply(400)
        name = f"msgbatch_{len(self.made) + 1}"
        self.made[name] = Made(given["requests"], datetime.now(UTC).isoformat().replace("+00:00", "Z"))
        self.sent.update(line["params"]["messages"][-1]["content"] for line in given["requests"])
        return self.show(name)

    def get(self, path: str, query: str, headers: Mapping[str, str]) -> bytes | dict[str, Any] | Reply:
        parts = path.split("/")[4:]
        if path == "/v1/models":
            return {"data": [{"id": "m"}]}
        if not parts:
            return self.listed(query)
        if parts[0] not in self.made:
            return Reply(404)
        if parts[1:] == ["results"]:
            found = self.made[parts[0]].results
            return Reply(404) if found is None else found
        return self.show(parts[0])

    def listed(self, query: str) -> dict[str, Any]:
        asked = {name: values[0] for name, values in parse_qs(query).items()}
        names = list(reversed(self.made))
        start = names.index(asked["after_id"]) + 1 if "after_id" in asked else 0
        page = names[start : start + min(int(asked.get("limit", 20)), self.page)]
        more = start + len(page) < len(names)
        ends = {"first_id": page[0], "last_id": page[-1]} if page else {"first_id": None, "last_id": None}
        return {"data": [self.show(name) for name in page], "has_more": more, **ends}

    def show(self, name: str) -> dict[str, Any]:
        batch = self.made[name]
        ended = batch.looks > self.looks
        batch.looks += 1
        if ended and batch.results is None:
            found = [self.outcome(line, self.times(line)) for line in reversed(batch.requests)]
            rows = [row for row in found if row is not None for _ in range(1 + self.twice)]
            batch.kinds = ["succeeded" if row is None else row["result"]["type"] for row in found]
            batch.results = "\n".join(map(json.dumps, rows)).encode()
        kinds = ("succeeded", "errored", "canceled", "expired")
        counts = {kind: batch.kinds.count(kind) for kind in kinds}
        counts["processing"] = 0 if ended else len(batch.requests)
        return {
            "id": name,
            "type": "message_batch",
            "processing_status": "ended" if ended else "in_progress",
            "request_counts": counts,
            "created_at": batch.at,
            "expires_at": batch.at,
            "ended_at": batch.at if ended else None,
            "archived_at": None,
            "cancel_initiated_at": None,
            "results_url": f"{self.url}/messages/batches/{name}/results" if ended else None,
        }

    def times(self, line: Line) -> int:
        return self.sent[line["params"]["messages"][-1]["content"]]


def _is_valid(params: dict[str, Any]) -> bool:
    """Refuse what the real one refuses: unknown fields, system turns, a temperature beside a top_p."""
    known = {"model", "messages", "max_tokens", "system", "temperature", "top_p", "top_k", "thinking", "stream"}
    roles = {message["role"] for message in params["messages"]}
    return params.keys() <= known and "max_tokens" in params and roles <= {"user", "assistant"}
