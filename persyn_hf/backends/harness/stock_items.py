"""What a task of the harness makes of its items: one metric, one filter, a score from 0 to 1."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from persyn_hf.backends.harness import Answered
from persyn_hf.backends.harness.answers import Said
from persyn_hf.errors import InputError
from persyn_hf.recipe.strict import nearest


OWN_NAMES = {"truthfulqa_mc1": "mc1", "truthfulqa_mc2": "mc2"}  # where the harness calls a task's only metric `acc`
# By name what the harness counts in another unit, though an item's value may happen to lie between 0 and 1.
NO_SHARE = re.compile(
    r"bleu|rouge|chrf|meteor|bert|perplexity|ppl|bits|likelihood|mcc|(^|_)(ter|wer|cer|diff|bias)(_|$)"
)
SHARE = re.compile(r"_acc$")  # bleu_acc of TruthfulQA: whether BLEU prefers the true answers
OVER_ALL = "lm_eval.api.metrics"  # where the harness's own ways to sum up are defined
MEANS = ("mean", "nanmean")


def choose_metric(name: str, task: Any, metric: str | None) -> str:
    """Choose the metric of the task `name` that counts, its first for None.

    Raises:
        InputError: there is no such metric, or it is no share from 0 to 1 of each item.
    """
    known = list(task.aggregation())
    if metric is not None and metric not in known:
        raise InputError(f"the task has no metric `{metric}`{nearest(metric, known)}; see `evaluate.tasks`")
    shares = [one for one in known if _is_share(task, one)]
    found = metric or next(iter(known), None)
    if found not in shares:
        others = f"choose its `metric`: {', '.join(shares)}" if shares else "it has no other; leave the task out"
        raise InputError(f"`{found}` of the task `{name}` is no share of 0 to 1 that each item has; {others}")
    return str(found)


def choose_filter(name: str, task: Any, wanted: str | None) -> str:
    """Choose the task's filter by which answers are judged, its first for None."""
    known = [one.name for one in task._filters]
    if wanted is not None and wanted not in known:
        raise InputError(f"the task `{name}` has no filter `{wanted}`{nearest(wanted, known)}; see `evaluate.tasks`")
    return str(wanted or known[0])


def metric_name(task: str, metric: str) -> str:
    """Return the name that a task's metric is known by."""
    return OWN_NAMES.get(task, metric)


def stock_item(sample: Mapping[str, Any], metric: str, said: Said | None, *, asked: bool = True) -> Answered:
    """Make an item with one metric as its score. `said` is what the student wrote, None where it weighed choices.

    In multiple choice, the likeliest choice is the prediction.
    """
    if not asked:
        prediction, extracted = "", None
    elif said is not None:
        prediction, extracted = said.answer, _other(sample["filtered_resps"][0], said.answer)
    else:
        likelihoods = [response[0] for response in sample["filtered_resps"]]
        best = max(range(len(likelihoods)), key=likelihoods.__getitem__)
        prediction, extracted = str(sample["arguments"][best][1]).strip(), None
    doc, target = sample["doc"], sample["target"]
    prompt = next((str(doc[key]) for key in ("question", "prompt", "query", "problem") if key in doc), json.dumps(doc))
    return Answered(
        prompt=prompt,
        reference=None if target is None else str(target),
        prediction=prediction,
        extracted=extracted,
        reasoning=None if said is None else said.reasoning,
        finish_reason=finish_reason(said, asked),
        score=score_of(sample, metric) if asked else None,
        parts=parts_of(sample[metric]) if asked else [],
    )


def finish_reason(said: Said | None, asked: bool) -> str | None:
    """Return stop, length or too_long; None: nothing was generated."""
    if not asked:
        return "too_long"
    return None if said is None else "length" if said.cut else "stop"


def score_of(sample: Mapping[str, Any], metric: str) -> float | None:
    """Return an item's score, the mean of its parts; None where the metric has no value.

    Raises:
        InputError: it is no number from 0 to 1.
    """
    value = sample[metric]
    parts = parts_of(value)
    share = sum(parts) / len(parts) if parts else value
    if share is None or (isinstance(share, float) and not math.isfinite(share)):
        return None  # mc2 of underflowing likelihoods
    if not isinstance(share, int | float) or not 0 <= share <= 1:
        raise InputError(
            f"the task's metric `{metric}` gives an item {str(share)[:50]!r}, no share of 0 to 1; choose another "
            "`metric` in `evaluate.tasks`, or leave the task out"
        )
    return float(share)


def parts_of(value: Any) -> list[bool]:
    """Return the verdicts of a metric that judges several things at once, else none."""
    return value if isinstance(value, list) and all(isinstance(part, bool) for part in value) else []


def _is_share(task: Any, metric: str) -> bool:
    """Say whether the task counts a mean over its items, as far as that can be told before an answer."""
    way = task.aggregation()[metric]
    over_all = getattr(way, "__module__", None) == OVER_ALL and way.__name__ not in MEANS
    named = bool(NO_SHARE.search(metric.lower())) and not SHARE.search(metric)
    return task.higher_is_better().get(metric) is not False and not over_all and not named


def _other(found: Any, answer: str) -> str | None:
    text = found if isinstance(found, str) else json.dumps(found, ensure_ascii=False, default=str)
    return None if text == answer else text
