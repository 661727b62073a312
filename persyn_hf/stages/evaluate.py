"""Stage `evaluate`: how well a student answers, item by item (lm-evaluation-harness, math graded by math-verify)."""

import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from persyn_hf.backends import chat, harness, models, sft
from persyn_hf.errors import RecipeError, check
from persyn_hf.recipe import Strict
from persyn_hf.schemas import EVALUATION, STUDENT
from persyn_hf.stage import Context, Result


INPUTS: dict[str, Any] = {}
OPTIONAL_INPUTS = {"student": STUDENT}  # absent: the student as it was before training
OUTPUT = EVALUATION
VERSION = 2  # rules of grading


class Columns(Strict):
    """Which column of a task's file holds what."""

    question: str = "question"
    answer: str = "answer"


class Task(Strict):
    """With `path`: questions of one's own, graded by math-verify. Without: a task that the harness ships."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    path: str | None = None  # JSONL
    columns: Columns = Columns()
    reference_after: str | None = None  # keep what follows the last of these marks in the answer: "####" for GSM8K
    limit: int | None = Field(default=None, ge=1)  # items, the first ones; null: that of the stage
    num_fewshot: int | None = Field(default=None, ge=0)  # null: 0 for one's own, the harness's default for others
    fewshot_path: str | None = None  # JSONL with the same columns: the worked examples

    @model_validator(mode="after")
    def _consistent(self) -> "Task":
        if self.path is None and (self.reference_after or self.fewshot_path):
            raise ValueError(f"`{self.name}` has no `path`: a task of the harness knows its own answers")
        if self.path is not None and bool(self.num_fewshot) != bool(self.fewshot_path):
            raise ValueError(f"`{self.name}`: `num_fewshot` and `fewshot_path` go together, found only one of them")
        return self


class Settings(Strict):
    """What is asked, and how the answers are generated: greedily, through the chat template."""

    tasks: tuple[Task, ...] = Field(strict=False, min_length=1)
    max_tokens: int = Field(default=512, ge=1)  # of an answer
    batch_size: int = Field(default=64, ge=1)  # items at once
    limit: int | None = Field(default=None, ge=1)  # items per task
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: as stored on a GPU, float32 elsewhere
    timeout_s: float | int = Field(default=5, gt=0)  # of grading one answer

    @model_validator(mode="after")
    def _names(self) -> "Settings":
        names = [task.name for task in self.tasks]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two tasks are named `{twice[0]}`; give each a name of its own")
        return self


def run(settings: Settings, context: Context, student: Path | None = None) -> Result:
    """Answer every item of every task; metrics are {task: {accuracy, stderr, low, high, num_items, ...}}."""
    started = time.monotonic()
    local = {task.name: _read(task, settings) for task in settings.tasks if task.path is not None}
    model = _load(settings, context, student)
    rows: list[dict[str, Any]] = []
    metrics: dict[str, Any] = {}
    for task in settings.tasks:
        if task.name in local:
            answered, generated = model.answer(local[task.name], settings.max_tokens)
            verdicts = _grade(answered, settings)
            metrics[task.name] = _summary(verdicts, model.num_tokens([a.prediction for a in answered])) | generated
            rows += _rows(task.name, answered, verdicts)
            continue
        limit = task.limit or settings.limit
        for name, (answered, values) in model.stock(task.name, task.num_fewshot, limit, settings.max_tokens).items():
            scores = [item.score for item in answered]
            metrics[name] = _summary(scores, model.num_tokens([a.prediction for a in answered])) | {"harness": values}
            rows += _rows(name, answered, [bool(s) if s in (0, 1) else None for s in scores])
    counts = {"items": len(rows), "unjudged": sum(summary["unjudged"] for summary in metrics.values())}
    cost = {"seconds": time.monotonic() - started, "items": len(rows)}
    return Result(data=OUTPUT.dataset(rows), counts=counts, metrics=metrics, cost=cost)


def _read(task: Task, settings: Settings) -> harness.MathTask:
    """The task's questions, limited, and the references cut out of their answers."""
    columns = task.columns
    pairs = harness.read_questions(str(task.path), columns.question, columns.answer)[: task.limit or settings.limit]
    references = [answer for _, answer in pairs]
    if task.reference_after is not None:
        # Without the mark the whole answer stands: the grader then says whether it can be judged.
        references = [harness.final_answer(answer, task.reference_after) or answer for answer in references]
    examples = []
    if task.fewshot_path is not None:
        examples = harness.read_questions(task.fewshot_path, columns.question, columns.answer)
        found, needed = len(examples), task.num_fewshot or 0
        check(found >= needed, f"{task.name}.num_fewshot", needed, f"at most {found}, the examples in fewshot_path")
    return harness.MathTask(
        name=task.name,
        questions=[question for question, _ in pairs],
        references=references,
        examples=examples,
        num_fewshot=task.num_fewshot or 0,
    )


def _load(settings: Settings, context: Context, student: Path | None) -> harness.Student:
    import torch

    base = context.student
    if student is not None:
        name, revision, template = str(student), None, None  # trained students bring their template
    elif base is not None and base.model is not None:
        name, revision, template = base.model, base.revision, base.chat_template
    else:
        raise RecipeError("`evaluate` needs a trained student or one with a `model`, found none; see `students`")
    dtype = settings.dtype if settings.dtype != "auto" or torch.cuda.is_available() else "float32"
    tokenizer = models.load_tokenizer(name, revision, template)
    model = models.load_causal_lm(name, revision, dtype, "auto")
    sft.align(model, tokenizer, chat.end_of_turn(tokenizer, name))
    return harness.Student(model, tokenizer, settings.batch_size, context.progress)


def _grade(answered: Sequence[harness.Answered], settings: Settings) -> list[bool | None]:
    from persyn_hf.backends.verifier import Verifier

    workers = max(1, min(8, (os.cpu_count() or 1), len(answered) // 100))
    with Verifier(workers=workers, timeout_s=float(settings.timeout_s)) as verifier:
        return list(verifier.grade([(item.reference or "", item.prediction) for item in answered]))


def _summary(scores: Sequence[float | bool | None], lengths: Sequence[int]) -> dict[str, Any]:
    """Accuracy over the judged items with its standard error and 95 % interval; `mean_tokens` of the answers."""
    judged = [float(score) for score in scores if score is not None]
    accuracy = sum(judged) / len(judged) if judged else None
    low, high = harness.wilson(sum(judged), len(judged))
    return {
        "accuracy": accuracy,
        "stderr": math.sqrt(accuracy * (1 - accuracy) / len(judged)) if accuracy is not None else None,
        "low": low,
        "high": high,
        "num_items": len(scores),
        "unjudged": len(scores) - len(judged),
        "mean_tokens": sum(lengths) / len(lengths) if lengths else None,
    }


def _rows(task: str, answered: Sequence[harness.Answered], verdicts: Sequence[bool | None]) -> list[dict[str, Any]]:
    return [
        {
            "task": task,
            "item": str(index),
            "prompt": item.prompt,
            "reference": item.reference,
            "prediction": item.prediction,
            "is_correct": verdict,
        }
        for index, (item, verdict) in enumerate(zip(answered, verdicts, strict=True))
    ]
