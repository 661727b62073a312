"""Requests and answers for the tests of the journal."""

from dataclasses import replace
from typing import Any

from persyn_hf.backends.answers import Answer, Prepared, Request, Sampling


SAMPLING = Sampling(temperature=0.6, top_p=1.0, top_k=0, max_tokens=16, seed=1)


def request(prompt: str = "p", index: int = 0, **changes: Any) -> Request:
    return Request(
        prompt_id=prompt,
        model="m@1",
        engine="e",
        sample_index=index,
        prompt=Prepared(text=f"<{prompt}>", num_tokens=3),
        sampling=replace(SAMPLING, **changes),
    )


def answer(to: Request, text: str = "ok", error: str | None = None, **changes: Any) -> Answer:
    reason = "error" if error else "stop"
    said = Answer(request=to, text=text, finish_reason=reason, num_tokens=2, seconds=0.5, error=error)
    return replace(said, **changes)
