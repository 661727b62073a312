"""Stage `evaluate`: measure how well a student answers, item by item.

A task is one of lm-evaluation-harness, or questions of one's own, graded by math-verify, or LiveBench, which is asked
and judged by its own scripts.
"""

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
OPTIONAL_INPUTS = {"student": STUDENT}  # absent: the student before training is evaluated
OUTPUT = EVALUATION
NOT_COVERED = frozenset({"batch_size", "timeout_s"}) | VLLM_NOT_COVERED
VERSION = 3  # 3: other rules of grading, and more columns of an item

LIVEBENCH = "livebench"  # name of the one task that LiveBench is

Loaded = MathTask | dict[str, Any]  # questions of one's own, or name -> task of the harness


class Columns(Strict):
    """The names of the columns of a task's items."""

    question: str | list[str] = "question"  # the question; several columns are joined
    answer: str = "answer"  # the reference answer


class Task(Strict):
    """A task: questions of one's own, graded by math-verify, with `path` or `dataset`; else a task of the harness."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    harness: str | None = None  # name of the harness's task, where it is another or its items come from `path`
    metric: str | None = None  # the metric of the harness's task that counts; null: its first
    path: str | None = None  # .jsonl, .json, .csv or .parquet
    dataset: str | None = None  # Hub id, or a local folder
    config: str | None = None
    revision: str | None = None
    split: str = "test"  # split of the dataset; `train+test` joins two
    columns: Columns = Columns()
    reference_after: str | None = None  # keep what follows the last of these marks in the answer: "####" for GSM8K
    limit: int | None = Field(default=None, ge=1, le=10**12)  # first items to ask at most; null: `evaluate.limit`
    # worked examples; null: 0 for own items, else the harness's
    num_fewshot: int | None = Field(default=None, ge=0, le=1000)
    fewshot_path: str | None = None  # file with the same columns, whose first rows are the worked examples
    fewshot_split: str | None = None  # split of the dataset, whose first rows are the worked examples

    @property
    def source(self) -> Source | None:
        """Return where the items come from; None: from where the harness has them."""
        if self.path is None and self.dataset is None:
            return None
        return Source(
            path=self.path, dataset=self.dataset, config=self.config, revision=self.revision, split=self.split
        )

    @property
    def examples(self) -> Source | None:
        """Return where the worked examples come from; None: there are none of the task's own."""
        if self.fewshot_path is not None:
            return Source(path=self.fewshot_path)
        if self.fewshot_split is not None:
            return Source(dataset=self.dataset, config=self.config, revision=self.revision, split=self.fewshot_split)
        return None

    @property
    def is_stock(self) -> bool:
        """Say whether the harness knows the answers and scores them."""
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
    """The questions to ask, and how answers are generated: greedily, through the chat template."""

    # LiveBench; null: not asked. It is left out of stored settings where null, so that fingerprints stay as they were.
    livebench: LiveBenchSettings | None = Field(default=None, exclude_if=lambda value: value is None)
    tasks: tuple[Task, ...] = Field(strict=False)  # may be empty where there is `livebench`
    engine: Literal["transformers", "vllm"] = "transformers"
    max_tokens: int = Field(default=512, ge=1, le=100_000_000)  # tokens of an answer at most
    batch_size: int = Field(default=64, ge=1, le=1_000_000)  # items at once; vllm makes its own batches
    limit: int | None = Field(default=None, ge=1, le=10**12)  # first items of each task to ask at most; null: all
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: as stored on a GPU, float32 elsewhere
    vllm: VllmSettings = VllmSettings()
    timeout_s: float | int = Field(default=5, gt=0, le=604_800)  # seconds to grade one answer

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
    """Read the questions that lie on this machine, so that a wrong column is refused before anything is paid for."""
    for task in settings.tasks:
        if task.path is not None and not task.is_stock:
            load(task, settings)


def run(settings: Settings, context: Context, student: Path | None = None) -> Result:
    """Answer every item of every task; metrics are {task: {accuracy, stderr, low, high, num_items, ...}}.

    student: folder of the trained student; None: the student before training.
    """
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
    """Load a task's items, and cut the references out of their answers.

    Raises:
        InputError: the items cannot be read.
        RecipeError: there are fewer worked examples than `num_fewshot`.
    """
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
    number, needed = len(examples), task.num_fewshot or 0
    check(
        number >= needed, f"{task.name}.num_fewshot", needed, f"at most {number}, the worked examples that there are"
    )
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
    """Have `model` answer a task, and score its answers. The model may be a recording of answers.

    Returns name -> the answered items and the task's line of the metrics. There is one name, the task's, unless it is
    a group of several tasks of the harness.
    """
    if isinstance(loaded, MathTask):
        answered, figures = model.answer(loaded, settings.max_tokens)
        return {task.name: _line(_grade(answered, verifier), figures, model)}
    limit = task.limit or settings.limit
    lines = {}
    for name, stock in loaded.items():
        answered, figures = model.answer_stock(name, stock, limit, settings.max_tokens, task.metric)
        lines[task.name if len(loaded) == 1 else name] = _line(answered, figures, model)
    return lines


def _line(
    answered: list[Answered], figures: Mapping[str, Any], model: Student
) -> tuple[list[Answered], dict[str, Any]]:
    """Return the items with their line of the metrics: the summary, the mean tokens, and the model's own `figures`."""
    lengths = model.num_tokens([item.prediction for item in answered])
    mean_tokens = sum(lengths) / len(lengths) if lengths else None
    return answered, summarise(answered) | {"mean_tokens": mean_tokens, **figures}


def _livebench(settings: Settings, context: Context) -> LiveBench | None:
    """Prepare LiveBench, where the settings ask for it."""
    if settings.livebench is None:
        return None
    folder = context.work_dir.resolve() / LIVEBENCH
    bench = LiveBench(settings=settings.livebench, folder=folder, limit=settings.limit, progress=context.progress)
    bench.prepare()
    return bench


def _open(settings: Settings, context: Context, student: Path | None) -> AbstractContextManager[Student]:
    """Open the model that is evaluated, by the engine of the settings."""
    source, dtype = _source(context, student), _dtype(settings)
    if settings.engine == "vllm":
        log = context.work_dir / "vllm.log"
        return open_vllm(*source, dtype=dtype, settings=settings.vllm, log=log, progress=context.progress)
    return open_transformers(*source, dtype=dtype, batch_size=settings.batch_size, progress=context.progress)


def _source(context: Context, student: Path | None) -> tuple[str, str | None, str | None]:
    """Return model, revision and chat template of what is evaluated."""
    base = context.student
    if student is not None:
        return str(student), None, None  # trained students bring their template
    if base is not None and base.model is not None:
        return base.model, base.revision, base.chat_template
    raise RecipeError("`evaluate` needs a trained student or one with a `model`, found none; see `students`")


def _dtype(settings: Settings) -> Dtype:
    """Return the dtype of the settings; `auto` is float32 without a GPU."""
    import torch

    return settings.dtype if settings.dtype != "auto" or torch.cuda.is_available() else "float32"


def _grade(answered: Sequence[Answered], verifier: Verifier) -> list[Answered]:
    """Return the items with the scores that math-verify gives them; None: it could not judge."""
    verdicts = verifier.grade([(item.reference or "", item.prediction) for item in answered])
    return [
        replace(item, score=None if verdict is None else float(verdict))
        for item, verdict in zip(answered, verdicts, strict=True)
    ]


def _rows(task: str, items: Mapping[str, Answered]) -> list[dict[str, Any]]:
    """Return rows of the `EVALUATION` contract.

    `is_correct` is null for all items where an item without parts has a score other than 0 and 1.
    """
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
