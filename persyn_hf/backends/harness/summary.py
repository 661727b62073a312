"""Compute the score of a task and its 95 % interval."""

import math
from collections.abc import Sequence
from typing import Any

from persyn_hf.backends.harness import Answered


def summarise(answered: Sequence[Answered]) -> dict[str, Any]:
    """Compute a task's line of metrics: `accuracy`, its standard error and 95 % interval, and the numbers of items.

    The accuracy is the mean score of the judged items, where an item counts as often as it has parts. So for IFEval it
    is the instruction-level accuracy: instructions followed, of all instructions of all prompts. The standard error
    treats items as independent, but not the parts of one item.
    """
    judged = [(item.score, len(item.parts) or 1) for item in answered if item.score is not None]
    return _line(judged) | {"num_items": len(answered), "unjudged": len(answered) - len(judged)}


def summarise_scores(scores: Sequence[float | None]) -> dict[str, Any]:
    """Return the mean of the scores that there are, with its standard error and interval."""
    return _line([(score, 1) for score in scores if score is not None])


def _line(judged: Sequence[tuple[float, int]]) -> dict[str, Any]:
    total = sum(weight for _, weight in judged)
    accuracy = sum(score * weight for score, weight in judged) / total if judged else None
    stderr = None if accuracy is None else math.sqrt(sum((w * (s - accuracy)) ** 2 for s, w in judged)) / total
    low, high = interval(accuracy, stderr, len(judged))
    return {"accuracy": accuracy, "stderr": stderr, "low": low, "high": high}


def interval(share: float | None, stderr: float | None, items: int) -> tuple[float, float]:
    """Compute the 95 % interval of a share with its standard error; (0, 1) where there is none.

    It is Wilson's, with the number of items with which a yes-or-no share would have this standard error.
    """
    if share is None or stderr is None:
        return 0.0, 1.0
    effective = share * (1 - share) / stderr**2 if stderr > 0 else items
    return wilson(share * effective, effective)


def wilson(correct: float, total: float, z: float = 1.959964) -> tuple[float, float]:
    """Compute the 95 % interval of a share by E. B. Wilson (1927).

    Unlike the normal interval it stays in [0, 1] and holds at 0 and 1.
    """
    if total == 0:
        return 0.0, 1.0
    share, shrink = correct / total, 1 + z * z / total
    middle = (share + z * z / (2 * total)) / shrink
    half = z / shrink * math.sqrt(max(0.0, share * (1 - share) / total + z * z / (4 * total * total)))
    return max(0.0, middle - half), min(1.0, middle + half)
