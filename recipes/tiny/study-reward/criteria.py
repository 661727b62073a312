"""Measure what a student finds of every answer, token by token: criteria that stored rewards do not hold.

    local            mean over the steps of an answer of a step's log-probability per token, when the student sees the
                     prompt and the step before it alone (local naturalness, arXiv 2510.03988)
    without first    log-probability per token without the first token of each step (arXiv 2604.06834 finds that long
                     steps dilute it)
    worst step       the least of the steps' log-probabilities per token
    surprising       minus the share of tokens that the student gives less than a tenth

A step is a sentence or a line.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from persyn_hf.backends import chat
from persyn_hf.backends import loading as models


STEP = re.compile(r"(?<=[.?!])\s+|\n+")
NAMES = ("local", "without first", "worst step", "surprising")


def measure(model: str, conversations: Sequence[Any], answers: Sequence[str]) -> np.ndarray:
    """Return the criteria `NAMES` of each answer, (answers, 4); higher is better."""
    tokenizer = models.load_tokenizer(model)
    student = models.load_causal_lm(model, None, "float32", "cpu")
    rows = list(zip(conversations, answers, strict=True))
    found = []
    with torch.inference_mode():
        for turn, answer in zip(chat.encode_turns(tokenizer, rows, 512), answers, strict=True):
            ids = [int(token) for token in turn.ids]
            values = _logprobs(student, ids, turn.start)
            steps = _steps(tokenizer, ids[turn.start :], answer)
            parts = [values[low:high] for low, high in steps]
            near = [
                _logprobs(
                    student,
                    [*ids[: turn.start], *ids[turn.start + before : turn.start + high]],
                    turn.start + low - before,
                ).mean()
                for before, (low, high) in zip([0, *(low for low, _ in steps)], steps, strict=False)
            ]
            rest = np.concatenate([part[1:] for part in parts])
            found.append(
                [
                    np.mean(near),
                    rest.mean() if len(rest) else values.mean(),
                    min(part.mean() for part in parts),
                    -np.mean(values < np.log(0.1)),
                ]
            )
    return np.array(found)


def _logprobs(student: Any, ids: Sequence[int], start: int) -> np.ndarray:
    """Return the log-probability of each token from `start` on, in nats."""
    tokens = torch.tensor(ids)[None]
    logits = student(input_ids=tokens, use_cache=False).logits[0, start - 1 : -1]
    return logits.log_softmax(-1).gather(1, tokens[0, start:, None])[:, 0].double().numpy()


def _steps(tokenizer: Any, tokens: Sequence[int], answer: str) -> list[tuple[int, int]]:
    """Return the places (from, to) of the steps among the answer's tokens; the end of turn is of the last."""
    ends = [match.end() for match in STEP.finditer(answer)] + [len(answer)]
    lengths = [len(tokenizer.decode(tokens[:number])) for number in range(1, len(tokens) + 1)]
    cuts = [int(np.searchsorted(lengths, end)) + 1 for end in ends[:-1]]
    bounds = sorted({0, *(cut for cut in cuts if cut < len(tokens)), len(tokens)})
    return list(zip(bounds, bounds[1:], strict=False))
