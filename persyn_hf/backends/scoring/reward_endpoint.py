"""Measure quality by a reward model behind vLLM's pooling API (`vllm serve MODEL --runner pooling`).

The server applies its own chat template to the messages, so no tokenizer is needed here, and returns the raw logit.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from persyn_hf.backends import chat
from persyn_hf.backends.answers import Answer, Prepared, Request, Said, Sampling
from persyn_hf.backends.engines.client import Client
from persyn_hf.backends.engines.completions import read_usage
from persyn_hf.backends.engines.endpoint import Endpoint
from persyn_hf.backends.engines.replies import Fault
from persyn_hf.backends.engines.settings import Connection
from persyn_hf.backends.scoring import Measured
from persyn_hf.errors import EngineError


NOTHING_DRAWN = Sampling(temperature=0.0, top_p=1.0, top_k=0, max_tokens=0, seed=0)
MOST_SCORE = 1e300  # a logit beyond is none
CONTEXT = re.compile(r"maximum context length is (\d+) tokens")  # how vLLM refuses what is too long


class RewardEndpoint(Endpoint):
    """One url of a reward model; the text that is `Said` is the score as JSON."""

    path = "/classify"
    wanted = "classification"
    urls_at = "score.reward_model.server.urls"
    model_at = "`score.reward_model.model`"
    check = "that it is vLLM with a reward model, started with `--runner pooling`"

    def body(self, request: Request) -> dict[str, Any]:
        """Make the body: the conversation with its answer."""
        return {
            "model": self.model,
            "messages": [dict(message) for message in request.prompt.messages],
            "use_activation": False,  # the logit, not its sigmoid
            "add_special_tokens": False,  # the template has put them in
            "chat_template_kwargs": {"date_string": f"{chat.DATE:%d %b %Y}"},  # as in `chat.apply`
        }

    def read(self, found: Mapping[str, Any]) -> Said | Fault:
        """Read the score of a success."""
        data = found.get("data")
        row = data[0] if isinstance(data, list) and data else None
        scores = row.get("probs") if isinstance(row, Mapping) else None
        _, num_prompt_tokens = read_usage(found.get("usage"))
        if not isinstance(scores, list) or num_prompt_tokens is None:
            return Fault(
                kind="failed", reason=f"the server's answer is no {self.wanted} (it has no `probs` or no usage)"
            )
        if len(scores) != 1:
            return Fault(
                kind="end",
                reason=f"{self.name} gives {len(scores)} numbers per answer for the model `{self.model}`, one is "
                "needed; serve a reward model there, such as Skywork/Skywork-Reward-V2-Llama-3.1-8B",
            )
        if isinstance(scores[0], bool) or not isinstance(scores[0], int | float) or not abs(scores[0]) < MOST_SCORE:
            return Fault(kind="failed", reason=f"the server's answer is no {self.wanted} (its score is no number)")
        return Said(
            text=json.dumps(scores[0]),
            reasoning=None,
            finish_reason="stop",
            num_tokens=0,
            num_prompt_tokens=num_prompt_tokens,
        )


def judge(
    model: str,
    server: Connection,
    rows: Sequence[chat.Row],
    skip: frozenset[int] = frozenset(),
    *,
    max_length: int,
) -> Measured:
    """Score the rows, except those in `skip`; the raw scores are yielded in order of completion.

    The score of an answer that does not fit within `max_length` tokens is None. Raises `EngineError` for any other
    answer without a score, after the scores that came with it.
    """
    client = Client(model, server.urls, extra={}, endpoint=RewardEndpoint, **server.options())
    try:
        for answers in client.answers(_requests(model, rows, skip)):
            scores: dict[int, list[float | None]] = {}
            fault = None
            for answer in answers:
                try:
                    scores[int(answer.request.prompt_id)] = [_score(answer, max_length)]
                except EngineError as error:
                    fault = error
            yield list(scores), list(scores.values())
            if fault is not None:
                raise fault
    finally:
        client.close()


def _requests(model: str, rows: Sequence[chat.Row], skip: frozenset[int]) -> Iterator[Request]:
    for number, (messages, answer) in enumerate(rows):
        if number not in skip:
            turns = (*messages, {"role": "assistant", "content": answer})
            yield Request(
                prompt_id=str(number),
                model=model,
                engine="classify",
                sample_index=0,
                prompt=Prepared(text="", num_tokens=0, messages=turns),
                sampling=NOTHING_DRAWN,
            )


def _score(answer: Answer, max_length: int) -> float | None:
    """Read the score; None where the answer is too long. Any other error raises `EngineError`, which ends the run."""
    if answer.error is None:
        fits = (answer.num_prompt_tokens or 0) <= max_length
        return float(json.loads(answer.text)) if fits else None
    limit = CONTEXT.search(answer.error)
    if limit is None:
        raise EngineError(
            f"no score from the reward model `{answer.request.model}`: {answer.error}; mend it and run again: what "
            "has been judged is kept"
        )
    if int(limit[1]) < max_length:
        raise EngineError(
            f"the server of the reward model `{answer.request.model}` takes {limit[1]} tokens, less than "
            f"`score.reward_model.max_length`, {max_length}; set it to {limit[1]}, or start the server with a larger "
            "--max-model-len"
        )
    return None
