"""Weigh reference answers: how likely a student finds an answer that nobody can grade, such as one that a judge liked.

It is measured as `score` measures learnability, under the student's own chat template and with the end of turn.
"""

import math
import sys
import weakref
from pathlib import Path
from typing import Any

from persyn_hf.backends.chat import Row
from persyn_hf.backends.harness import Answered
from persyn_hf.backends.harness.questions import MathTask
from persyn_hf.backends.harness.work import Done, Kept
from persyn_hf.backends.launching.plan import Plan
from persyn_hf.backends.loading import Dtype, release
from persyn_hf.backends.scoring import score_rows
from persyn_hf.backends.scoring.launched import score_launched
from persyn_hf.backends.scoring.likelihood import MEASURES, LikelihoodScorer


INVERSE_PERPLEXITY = "inverse_perplexity"  # as a metric of a task


def weigh(
    task: MathTask,
    model: str,
    revision: str | None,
    template: str | None,
    *,
    dtype: Dtype,
    kept: Kept,
    plan: Plan | None = None,
    folder: Path,
) -> tuple[list[Answered], dict[str, Any]]:
    """Weigh the reference of every question; return the items, in order, and the task's figures.

    An item's score is the geometric mean of the probabilities of its reference's tokens, which is 1 / perplexity.
    Where question and reference do not fit into the student's positions the item is `too_long`, and has no score.
    plan: of the processes that weigh, which work in `folder`; None: this one.
    """
    options: dict[str, Any] = {
        "model": model,
        "revision": revision,
        "max_length": sys.maxsize,
        "chat_template": template,
        "dtype": dtype,
    }
    rows: list[Row] = list(zip(task.conversations, task.references, strict=True))

    def ask(known: frozenset[int], done: Done) -> None:
        if plan is not None:
            for measured in score_launched(plan, folder, rows, [], kind="likelihood", options=options, skip=known):
                done(*measured)
            return
        scorer = LikelihoodScorer(**options)
        for measured in score_rows(scorer, rows, skip=known):
            done(*measured)
        loaded = weakref.ref(scorer.model)
        del scorer
        release(loaded)  # the next task may be asked by a server that takes the whole GPU

    values = kept.complete(f"weighing {task.name}", rows, len(rows), ask)
    items = []
    for question, reference, of_row in zip(task.questions, task.references, values, strict=True):
        found = dict(zip(MEASURES, of_row, strict=True))
        score = None if found["truncated"] else math.exp(found["sum_logprob"] / found["num_tokens"])
        long = "too_long" if score is None else None
        items.append(Answered(prompt=question, reference=reference, prediction="", score=score, finish_reason=long))
    too_long = sum(item.finish_reason is not None for item in items)
    return items, {"metric": INVERSE_PERPLEXITY, "too_long": too_long}
