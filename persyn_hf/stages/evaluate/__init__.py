"""Stage `evaluate`: measure how well a student answers, item by item.

A task is one of lm-evaluation-harness, or questions of one's own, graded by math-verify or by tests of code, or
LiveBench, which is asked and judged by its own scripts.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from persyn_hf.backends.engines.settings import VLLM_NOT_COVERED, VllmSettings
from persyn_hf.backends.engines.slurm_servers import fill_replica
from persyn_hf.backends.grading.opening import check_grader
from persyn_hf.backends.grading.pool import Verifier
from persyn_hf.backends.grading.settings import CommandSettings
from persyn_hf.backends.grading.tested import CodeGrader
from persyn_hf.backends.grading.verdicts import Row, Ungraded, Verdict
from persyn_hf.backends.harness import Answered
from persyn_hf.backends.harness.answers import Sheet
from persyn_hf.backends.harness.ifeval import check_ifeval, is_ifeval
from persyn_hf.backends.harness.launched import open_launched
from persyn_hf.backends.harness.likelihood import weigh
from persyn_hf.backends.harness.livebench import ask_livebench
from persyn_hf.backends.harness.livebench_scripts import LiveBench
from persyn_hf.backends.harness.local import open_local
from persyn_hf.backends.harness.questions import MathTask
from persyn_hf.backends.harness.served import open_served
from persyn_hf.backends.harness.stock import check_name
from persyn_hf.backends.harness.student import Student, open_student
from persyn_hf.backends.harness.summary import summarise
from persyn_hf.backends.harness.work import Engine, Kept
from persyn_hf.backends.launch import seen_by_all
from persyn_hf.backends.launching.plan import Plan, plan_of
from persyn_hf.backends.loading import Dtype
from persyn_hf.errors import RecipeError
from persyn_hf.schemas import EVALUATION, STUDENT
from persyn_hf.stage import Context, Result
from persyn_hf.stages.evaluate.items import Loaded, check_student, load
from persyn_hf.stages.evaluate.settings import LIVEBENCH, Settings, Task


__all__ = ["INPUTS", "NOT_COVERED", "OPTIONAL_INPUTS", "OUTPUT", "VERSION", "Settings", "check_files", "check_student"]

INPUTS: dict[str, Any] = {}
OPTIONAL_INPUTS = {"student": STUDENT}  # absent: the student before training is evaluated
OUTPUT = EVALUATION
NOT_COVERED = frozenset({"batch_size", "executor", "timeout_s", "sandbox.url"}) | VLLM_NOT_COVERED
Source = tuple[str, str | None, str | None]  # model, revision and chat template
VERSION = 5  # 4: generation is ours, prompts are whole, thoughts are not judged; 5: other rules of grading


def check_files(settings: Settings) -> None:
    """Read the questions that lie on this machine, so that a wrong column is refused before anything is paid for.

    Refused, too: a task that the harness does not know, and a machine that cannot judge IFEval, or run code in a
    sandbox.
    """
    if settings.executor is not None and settings.engine == "vllm":
        _filled(settings)
    for task in settings.tasks:
        if task.is_stock:
            check_name(task.harness or task.name)
        if task.is_stock and is_ifeval(task.harness or task.name):
            check_ifeval()
        if task.path is not None and not task.is_stock:
            load(task, settings)
        if task.is_tested:
            check_grader("tests", timeout_s=settings.timeout_s, command=CommandSettings(), sandbox=settings.sandbox)


def run(settings: Settings, context: Context, student: Path | None = None) -> Result:
    """Answer every item of every task; metrics are {task: {accuracy, stderr, low, high, num_items, ...}}.

    student: folder of the trained student; None: the student before training.
    """
    started = time.monotonic()
    plan = plan_of(settings, "evaluate")
    loaded = {task.name: load(task, settings) for task in settings.tasks}  # first, as it may be refused
    bench = _livebench(settings, context)
    rows: list[dict[str, Any]] = []
    metrics: dict[str, Any] = {}
    source, dtype = _source(context, student, plan), _dtype(settings, plan)
    kept = Kept(context.work_dir, [*source, dtype, settings.engine], context.progress)
    if bench is not None:  # first: killed after it, a run has it done already
        log = context.work_dir / "vllm.log"
        items, metrics[LIVEBENCH] = ask_livebench(bench, *source, dtype=dtype, settings=settings.vllm, log=log)
        rows += _rows(LIVEBENCH, items)
    for task in settings.tasks:  # before the others, for which a server of vLLM may take the whole GPU
        if task.is_weighed:
            loaded_task, folder = loaded[task.name], context.work_dir / "weighing"
            assert isinstance(loaded_task, MathTask)
            answered, figures = weigh(loaded_task, *source, dtype=dtype, kept=kept, plan=plan, folder=folder)
            rows += _rows(task.name, _numbered(answered))
            metrics[task.name] = summarise(answered) | figures
    asked = [task for task in settings.tasks if not task.is_weighed]
    if asked:
        verifier = Verifier(timeout_s=float(settings.timeout_s))
        with open_student(_opening(settings, context.work_dir, plan, source, dtype), kept) as model, verifier:
            for task in asked:
                for name, (answered, summary) in score(task, loaded[task.name], model, settings, verifier).items():
                    rows += _rows(name, _numbered(answered))
                    metrics[name] = summary
    counts = {"items": len(rows)}
    counts |= {key: sum(line.get(key, 0) for line in metrics.values()) for key in ("unjudged", "cut", "too_long")}
    cost = {"seconds": time.monotonic() - started, "items": len(rows)}
    return Result(data=OUTPUT.dataset(rows), counts=counts, metrics=metrics, cost=cost)


def score(
    task: Task, loaded: Loaded, model: Student, settings: Settings, verifier: Verifier
) -> dict[str, tuple[list[Answered], dict[str, Any]]]:
    """Have `model` answer a task, and score its answers. The model may be a recording of answers.

    Returns name -> the answered items and the task's line of the metrics. There is one name, the task's, unless it is
    a group of several tasks of the harness.
    """
    if isinstance(loaded, MathTask):
        answered, figures = model.answer(loaded, settings.max_tokens)
        if task.is_tested:
            with closing(CodeGrader(settings.sandbox, float(settings.timeout_s))) as tests:
                graded = _grade(answered, tests.grade)
        else:
            graded = _grade(answered, partial(_by_math, verifier))
        return {task.name: _line(graded, {**figures, **loaded.told}, model)}
    limit = task.limit or settings.limit
    lines = {}
    for name, stock in loaded.items():
        answered, figures = model.answer_stock(name, stock, limit, settings.max_tokens, task.metric, task.filter)
        lines[task.name if len(loaded) == 1 else name] = _line(answered, figures, model)
    return lines


def _line(
    answered: list[Answered], figures: Mapping[str, Any], model: Student
) -> tuple[list[Answered], dict[str, Any]]:
    """Return the items with their line of the metrics: the summary, the mean tokens, and the model's own `figures`."""
    lengths = model.num_tokens([(item.reasoning or "") + item.prediction for item in answered])
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


def _opening(
    settings: Settings, folder: Path, plan: Plan | None, source: Source, dtype: Dtype
) -> AbstractContextManager[tuple[Engine, Sheet]]:
    """Open the student that is evaluated by the engine of the settings: here, or in the processes of the plan."""
    vllm = settings.vllm if settings.engine == "vllm" else None
    if plan is not None:
        if vllm is not None:
            vllm, plan = _filled(settings), replace(plan, per_machine=1)  # one server on each
        options: dict[str, Any] = {"batch_size": settings.batch_size, "vllm": vllm, "folder": folder / "answering"}
        return open_launched(plan, *source, dtype=dtype, **options)
    if vllm is not None:
        return open_served(*source, dtype=dtype, settings=vllm, log=folder / "vllm.log")
    return open_local(*source, dtype=dtype, batch_size=settings.batch_size)


def _filled(settings: Settings) -> VllmSettings:
    """Return settings by which a server uses all GPUs of a replica; raises `RecipeError` where it cannot."""
    assert settings.executor is not None
    return fill_replica(settings.vllm, settings.executor, "the student", "evaluate.executor")


def _source(context: Context, student: Path | None, plan: Plan | None) -> Source:
    """Return model, revision and chat template of what is evaluated."""
    base = context.student
    if student is not None:
        return str(seen_by_all(plan, student, context.work_dir)), None, None  # trained students bring their template
    if base is not None and base.model is not None:
        return base.model, base.revision, base.chat_template
    raise RecipeError("`evaluate` needs a trained student or one with a `model`, found none; see `students`")


def _dtype(settings: Settings, plan: Plan | None) -> Dtype:
    """Return the dtype of the settings; `auto` is float32 without a GPU."""
    import torch

    on_gpu = torch.cuda.is_available() if plan is None else not plan.cpu
    return settings.dtype if settings.dtype != "auto" or on_gpu else "float32"


def _grade(
    answered: Sequence[Answered], grade: Callable[[Sequence[Row]], Sequence[Verdict | Ungraded]]
) -> list[Answered]:
    """Return the items with the scores that a grader gives; None: it could not judge, or was not to."""
    asked = [item for item in answered if item.finish_reason != "too_long"]
    rows = [
        Row(item.reference, item.prediction, messages=({"role": "user", "content": item.prompt},)) for item in asked
    ]
    verdicts = iter(grade(rows))
    graded = []
    for item in answered:
        verdict = next(verdicts) if item.finish_reason != "too_long" else None
        score = None if verdict is None or isinstance(verdict, Ungraded) else float(verdict)
        graded.append(replace(item, score=score))
    return graded


def _by_math(verifier: Verifier, rows: Sequence[Row]) -> Sequence[Verdict]:
    return verifier.grade([(row.reference or "", row.answer) for row in rows])


def _numbered(answered: Sequence[Answered]) -> dict[str, Answered]:
    """Name the items of a task by their numbers."""
    return {str(number): item for number, item in enumerate(answered)}


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
            "reasoning": item.reasoning,
            "extracted": item.extracted,
            "finish_reason": item.finish_reason,
            "is_correct": item.score == 1.0 if yes_or_no and item.score is not None else None,
            "score": item.score,
            "parts": [float(part) for part in item.parts],
            "score_by_filter": item.by_filter or None,
        }
        for name, item in items.items()
    ]
