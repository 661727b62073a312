"""Stage `evaluate`: how well a student answers, item by item (lm-evaluation-harness, math graded by math-verify;
LiveBench by its own scripts)."""

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from persyn_hf.backends.engines.settings import VLLM_NOT_COVERED, VllmSettings
from persyn_hf.backends.grading.pool import Verifier
from persyn_hf.backends.harness import Answered
from persyn_hf.backends.harness.livebench import ask_livebench
from persyn_hf.backends.harness.livebench_scripts import LiveBench, LiveBenchSettings
from persyn_hf.backends.harness.questions import MathTask, Source, final_answer, read_questions
from persyn_hf.backends.harness.stock import load_stock
from persyn_hf.backends.harness.student import Student, open_transformers, open_vllm
from persyn_hf.backends.harness.summary import summarise
from persyn_hf.backends.loading import Dtype
from persyn_hf.errors import RecipeError, check
from persyn_hf.recipe.strict import Strict
from persyn_hf.schemas import EVALUATION, STUDENT
from persyn_hf.stage import Context, Result


INPUTS: dict[str, Any] = {}
OPTIONAL_INPUTS = {"student": STUDENT}  # absent: the student as it was before training
OUTPUT = EVALUATION
NOT_COVERED = frozenset({"batch_size", "timeout_s"}) | VLLM_NOT_COVERED
VERSION = 3  # rules of grading, and what an item carries

LIVEBENCH = "livebench"  # its one task

Loaded = MathTask | dict[str, Any]  # dict: name -> task of the harness


class Columns(Strict):
    """Which column of a task's items holds what."""

    question: str | list[str] = "question"  # several are joined
    answer: str = "answer"


class Task(Strict):
    """With `path` or `dataset`: questions of one's own, graded by math-verify. Without: a task of the harness."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    harness: str | None = None  # the harness's task, where it has another name or its items come from `path`
    metric: str | None = None  # of the harness's task: the one that counts; null: its first
    path: str | None = None  # .jsonl, .json, .csv or .parquet
    dataset: str | None = None  # Hub id, or a local folder
    config: str | None = None
    revision: str | None = None
    split: str = "test"  # of the dataset; `train+test` joins two
    columns: Columns = Columns()
    reference_after: str | None = None  # keep what follows the last of these marks in the answer: "####" for GSM8K
    limit: int | None = Field(default=None, ge=1)  # items, the first ones; null: that of the stage
    num_fewshot: int | None = Field(default=None, ge=0)  # null: 0 for own items, the harness's default for others
    fewshot_path: str | None = None  # file with the same columns: the worked examples, the first ones
    fewshot_split: str | None = None  # likewise, of the dataset

    @property
    def source(self) -> Source | None:
        """Where the items come from; None: from where the harness has them."""
        if self.path is None and self.dataset is None:
            return None
        return Source(
            path=self.path, dataset=self.dataset, config=self.config, revision=self.revision, split=self.split
        )

    @property
    def examples(self) -> Source | None:
        """Where the worked examples come from."""
        if self.fewshot_path is not None:
            return Source(path=self.fewshot_path)
        if self.fewshot_split is not None:
            return Source(dataset=self.dataset, config=self.config, revision=self.revision, split=self.fewshot_split)
        return None

    @property
    def is_stock(self) -> bool:
        """Whether the harness knows the answers and scores."""
        return self.harness is not None or self.source is None

    @model_validator(mode="after")
    def _consistent(self) -> "Task":
        if self.path is not None and self.dataset is not None:
            raise ValueError(f"`{self.name}` has both `path` and `dataset`; keep one of them")
        if self.is_stock and (self.reference_after or self.examples):
            what = "is a task of the harness, which" if self.harness else "has no `path` or `dataset`: the harness"
            raise ValueError(f"`{self.name}` {what} knows its own answers; take out the keys about them")
        if self.is_stock and self.source is not None and self.num_fewshot:
            raise ValueError(
                f"`{self.name}`: `num_fewshot` must be 0, the harness would draw examples from your items"
            )
        if not self.is_stock and self.metric:
            raise ValueError(f"`{self.name}` is graded by math-verify; `metric` is for tasks of the harness")
        if self.fewshot_split is not None and self.dataset is None:
            raise ValueError(f"`{self.name}`: `fewshot_split` is of a `dataset`; use `fewshot_path`")
        if not self.is_stock and bool(self.num_fewshot) != bool(self.examples):
            raise ValueError(
                f"`{self.name}`: `num_fewshot` and `fewshot_path` or `fewshot_split` go together, found only one"
            )
        return self


class Settings(Strict):
    """What is asked, and how the answers are generated: greedily, through the chat template."""

    # Left out where null, so that other evaluations keep their fingerprints.
    livebench: LiveBenchSettings | None = Field(default=None, exclude_if=lambda value: value is None)
    tasks: tuple[Task, ...] = Field(strict=False)  # may be none where there is `livebench`
    engine: Literal["transformers", "vllm"] = "transformers"
    max_tokens: int = Field(default=512, ge=1)  # of an answer
    batch_size: int = Field(default=64, ge=1)  # items at once; vllm makes its own batches
    limit: int | None = Field(default=None, ge=1)  # items per task
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: as stored on a GPU, float32 elsewhere
    vllm: VllmSettings = VllmSettings()
    timeout_s: float | int = Field(default=5, gt=0)  # of grading one answer

    @field_validator("tasks")
    @classmethod
    def _some(cls, tasks: tuple[Task, ...], info: ValidationInfo) -> tuple[Task, ...]:
        if not tasks and info.data.get("livebench") is None:
            raise ValueError("must name at least one, got []")
        return tasks

    @model_validator(mode="after")
    def _consistent(self) -> "Settings":
        names = [task.name for task in self.tasks] + [LIVEBENCH] * (self.livebench is not None)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two tasks are named `{twice[0]}`; give each a name of its own")
        if self.livebench is not None and self.engine != "vllm":
            raise ValueError("`livebench` asks a server, which `engine: transformers` has not; set `engine: vllm`")
        return self


def check_files(settings: Settings) -> None:
    """Read the questions that lie on this machine, so that a wrong column is told before anything is paid for."""
    for task in settings.tasks:
        if task.path is not None and not task.is_stock:
            load(task, settings)


def run(settings: Settings, context: Context, student: Path | None = None) -> Result:
    """Answer every item of every task; metrics are {task: {accuracy, stderr, low, high, num_items, ...}}."""
    started = time.monotonic()
    loaded = {task.name: load(task, settings) for task in settings.tasks}  # first, as it may be refused
    bench = _livebench(settings, context)
    rows: list[dict[str, Any]] = []
    metrics: dict[str, Any] = {}
    if bench is not None:  # first: killed after it, a run has it done already
        source, dtype = _source(context, student), _dtype(settings)
        log = context.work_dir / "vllm.log"
        items, metrics[LIVEBENCH] = ask_livebench(bench, *source, dtype=dtype, settings=settings.vllm, log=log)
        rows += _rows(LIVEBENCH, items)
    if settings.tasks:
        verifier = Verifier(timeout_s=float(settings.timeout_s))
        with _open(settings, context, student) as model, verifier:
            for task in settings.tasks:
                for name, (answered, summary) in score(task, loaded[task.name], model, settings, verifier).items():
                    rows += _rows(name, dict(zip(map(str, range(len(answered))), answered, strict=True)))
                    metrics[name] = summary
    counts = {"items": len(rows), "unjudged": sum(summary["unjudged"] for summary in metrics.values())}
    cost = {"seconds": time.monotonic() - started, "items": len(rows)}
    return Result(data=OUTPUT.dataset(rows), counts=counts, metrics=metrics, cost=cost)


def load(task: Task, settings: Settings) -> Loaded:
    """The task's items, and the references cut out of their answers."""
    if task.is_stock:
        return load_stock(task.harness or task.name, task.source, task.num_fewshot)
    assert task.source is not None
    columns = [task.columns.question] if isinstance(task.columns.question, str) else task.columns.question
    pairs = read_questions(task.source, columns, task.columns.answer)[: task.limit or settings.limit]
    references = [answer for _, answer in pairs]
    if task.reference_after is not None:
        # Without the mark the whole answer stands: the grader then says whether it can be judged.
        references = [final_answer(answer, task.reference_after) or answer for answer in references]
    examples = [] if task.examples is None else read_questions(task.examples, columns, task.columns.answer)
    found, needed = len(examples), task.num_fewshot or 0
    check(found >= needed, f"{task.name}.num_fewshot", needed, f"at most {found}, the worked examples that there are")
    return MathTask(
        name=task.name,
        questions=[question for question, _ in pairs],
        references=references,
        examples=examples,
        num_fewshot=needed,
    )


def score(
    task: Task, loaded: Loaded, model: Student, settings: Settings, verifier: Verifier
) -> dict[str, tuple[list[Answered], dict[str, Any]]]:
    """Have `model`, which may be but recorded answers, answer a task: items, and the task's line of the metrics.

    More than one line where a group of the harness's tasks was asked for.
    """
    if isinstance(loaded, MathTask):
        answered, more = model.answer(loaded, settings.max_tokens)
        return {task.name: _line(_grade(answered, verifier), more, model)}
    limit = task.limit or settings.limit
    lines = {}
    for name, stock in loaded.items():
        answered, more = model.answer_stock(name, stock, limit, settings.max_tokens, task.metric)
        lines[task.name if len(loaded) == 1 else name] = _line(answered, more, model)
    return lines


def _line(answered: list[Answered], more: Mapping[str, Any], model: Student) -> tuple[list[Answered], dict[str, Any]]:
    lengths = model.num_tokens([item.prediction for item in answered])
    mean_tokens = sum(lengths) / len(lengths) if lengths else None
    return answered, summarise(answered) | {"mean_tokens": mean_tokens, **more}


def _livebench(settings: Settings, context: Context) -> LiveBench | None:
    if settings.livebench is None:
        return None
    folder = context.work_dir.resolve() / LIVEBENCH
    bench = LiveBench(settings=settings.livebench, folder=folder, limit=settings.limit, progress=context.progress)
    bench.prepare()
    return bench


def _open(settings: Settings, context: Context, student: Path | None) -> AbstractContextManager[Student]:
    source, dtype = _source(context, student), _dtype(settings)
    if settings.engine == "vllm":
        log = context.work_dir / "vllm.log"
        return open_vllm(*source, dtype=dtype, settings=settings.vllm, log=log, progress=context.progress)
    return open_transformers(*source, dtype=dtype, batch_size=settings.batch_size, progress=context.progress)


def _source(context: Context, student: Path | None) -> tuple[str, str | None, str | None]:
    """Model, revision and chat template of what is evaluated."""
    base = context.student
    if student is not None:
        return str(student), None, None  # trained students bring their template
    if base is not None and base.model is not None:
        return base.model, base.revision, base.chat_template
    raise RecipeError("`evaluate` needs a trained student or one with a `model`, found none; see `students`")


def _dtype(settings: Settings) -> Dtype:
    import torch

    return settings.dtype if settings.dtype != "auto" or torch.cuda.is_available() else "float32"


def _grade(answered: Sequence[Answered], verifier: Verifier) -> list[Answered]:
    verdicts = verifier.grade([(item.reference or "", item.prediction) for item in answered])
    return [
        replace(item, score=None if verdict is None else float(verdict))
        for item, verdict in zip(answered, verdicts, strict=True)
    ]


def _rows(task: str, items: Mapping[str, Answered]) -> list[dict[str, Any]]:
    yes_or_no = all(item.parts or item.score in (None, 0.0, 1.0) for item in items.values())
    return [
        {
            "task": task,
            "item": name,
            "prompt": item.prompt,
            "reference": item.reference,
            "prediction": item.prediction,
            "is_correct": item.score == 1.0 if yes_or_no and item.score is not None else None,
            "score": item.score,
            "parts": [float(part) for part in item.parts],
        }
        for name, item in items.items()
    ]
