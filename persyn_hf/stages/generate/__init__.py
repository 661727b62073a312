"""Stage `generate`: assigned (prompt, teacher) cells in, sampled and verified responses out (PerSyn, appendix A.1).

Calibration and pool are answered by the same stage with different assignments. Every answer is written to the journal
raw, before it is parsed. The rows that come out are read from the journal, so they do not depend on where a run was
killed.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from persyn_hf.backends.dataset_rows import NameIndex, Rows, column_parts, in_parts
from persyn_hf.backends.engines import ask as journalled
from persyn_hf.backends.engines.imported import read_responses, to_samples
from persyn_hf.backends.engines.imported_kept import ABSENT, EMPTY
from persyn_hf.backends.engines.samples import ODD, Sample, Totals, select, to_row
from persyn_hf.backends.engines.settings import ENGINE_NOT_COVERED
from persyn_hf.backends.grading.journalled import Grader
from persyn_hf.backends.grading.opening import check_grader, open_grader
from persyn_hf.backends.grading.settings import COMMAND_NOT_COVERED, CommandSettings, SandboxSettings
from persyn_hf.backends.journal import Journal
from persyn_hf.backends.judging.rubrics import read_rubric
from persyn_hf.backends.judging.settings import JUDGE_NOT_COVERED
from persyn_hf.core.arrays import IntArray
from persyn_hf.schemas import ASSIGNMENTS, PROMPTS, RESPONSES
from persyn_hf.stage import Context, Result
from persyn_hf.stages.generate.asking import Asking
from persyn_hf.stages.generate.cells import assigned_cells, escalate
from persyn_hf.stages.generate.choosing import Chosen, Samples, judge_samples
from persyn_hf.stages.generate.costs import costs
from persyn_hf.stages.generate.graded import grade
from persyn_hf.stages.generate.settings import Settings, check, num_samples


if TYPE_CHECKING:
    from datasets import Dataset


__all__ = [
    "INPUTS",
    "LATER",
    "NOT_COVERED",
    "OPTIONAL_INPUTS",
    "OUTPUT",
    "VERSION",
    "Settings",
    "check",
    "check_files",
    "num_samples",
    "run",
]

INPUTS = {"prompts": PROMPTS, "assignments": ASSIGNMENTS}
OPTIONAL_INPUTS = {"calibration": RESPONSES}  # every teacher's answers to the calibration prompts, to compare costs
OUTPUT = RESPONSES
# `batch_tokens` is covered: it fixes what is sampled.
NOT_COVERED = (
    frozenset({"device", "max_error_rate", "verify_timeout_s", "executor"})
    | {f"{section}.{key}" for section in ("command", "chosen_by.command") for key in COMMAND_NOT_COVERED}
    | {f"chosen_by.{section}.{key}" for section in ("judge", "judge.panel") for key in JUDGE_NOT_COVERED}
    | {"sandbox.url"}
    | ENGINE_NOT_COVERED
)
VERSION = 4  # 4: rules of grading; 3: which sample is selected, tokens that nobody has counted, tags of thoughts
LATER: dict[str, Any] = {
    "think_tags": [],
    "server.api": "openai",
    "server.tokenizer": None,
    "ragged_rows": "refuse",
    "command": CommandSettings().model_dump(mode="json"),
    "sandbox": SandboxSettings().model_dump(mode="json"),
    "choose_by": "correct",
    "chosen_by": None,
}


def check_files(settings: Settings) -> None:
    """Refuse a grader that cannot work on this machine, before an answer is paid for."""
    if settings.verify != "none":
        check_grader(
            settings.verify, timeout_s=settings.verify_timeout_s, command=settings.command, sandbox=settings.sandbox
        )
    by = settings.chosen_by
    if by is not None and by.command.run:
        check_grader("command", timeout_s=0, command=by.command, sandbox=settings.sandbox)
    if by is not None and by.judge is not None:
        read_rubric(by.judge.rubric, by.judge.mode, by.judge.scale)


def run(
    settings: Settings,
    context: Context,
    *,
    prompts: "Dataset",
    assignments: "Dataset",
    calibration: "Dataset | None" = None,
) -> Result:
    """Ask the teachers, verify, and select one sample of each cell.

    calibration: every teacher's responses to the calibration prompts, by which costs are compared. Rows come out by
    teacher (in the order of the pool), then prompt, then sample_index.

    Raises:
        BudgetReached: the run's limits allow no more answers.
        UnderWay: batches are under way, and the run is not to wait for them.
        EngineError: a teacher cannot be run, or too many of its answers failed.
        InputError, RecipeError: assignments, prompts and pool do not fit together.
    """
    index = NameIndex.of(prompts)
    cells = assigned_cells(index, assignments, context.teachers)
    check(settings, tuple(teacher for teacher in context.teachers if len(cells[teacher.name])))
    with (
        Journal(context.journal or context.work_dir / "journal.sqlite", recipe=context.recipe) as journal,
        _open_grader(settings, journal) as grader,
    ):
        if settings.engine == "import":
            errors: Counter[str] = Counter()
            chosen = _choose(
                settings, context, journal, _imported(settings, context, grader, prompts, index, cells, errors)
            )
            data, totals = _cut(context, chosen.samples)
            missing = {name: errors[reason] for name, reason in (("absent", ABSENT), ("empty", EMPTY))}
            ragged = {"ragged_rows": errors["ragged_rows"]} if errors["ragged_rows"] else {}
            counts = _counts(totals) | missing | ragged | (grader.failures if grader else {}) | chosen.counts
            return Result(data=data, counts=counts, metrics=_metrics(totals), cost=chosen.cost)
        asking = Asking(settings, context, journal, grader, prompts, index)
        asked_of = [teacher for teacher in context.teachers if len(cells[teacher.name])]
        for teacher in asked_of:
            asking.expect(teacher, len(cells[teacher.name]))
            asking.check_key(teacher, cells[teacher.name])
        asking.ask_all({teacher.name: cells[teacher.name] for teacher in asked_of}, round=0)
        if settings.escalate:
            escalate(settings, context, asking, index, assignments)
        pool = [teacher.name for teacher in context.teachers]
        chosen = _choose(settings, context, journal, asking.samples(pool))
        data, totals = _cut(context, chosen.samples)
    counts = _counts(totals) | ({"escalated": asking.num_escalated} if settings.escalate else {})
    counts |= (grader.failures if grader else {}) | chosen.counts
    splits = sum((Counter(part) for part in column_parts(prompts, "split")), Counter[str]())
    cost = costs(settings, context.teachers, asking.asked, totals, splits, calibration)
    return Result(data=data, counts=counts, metrics=_metrics(totals), cost=cost | chosen.cost)


def _choose(settings: Settings, context: Context, journal: Journal, chunks: Iterable[Samples]) -> Chosen:
    """Have samples judged where the settings say so; else they come as they are, some at a time."""
    if settings.chosen_by is None:
        return Chosen(samples=chunks)
    return judge_samples(settings.chosen_by, context, journal, chunks)


def _open_grader(settings: Settings, journal: Journal) -> AbstractContextManager[Grader | None]:
    """Open the grader of the settings in front of the journal; `verify: none` has none."""
    if settings.verify == "none":
        return nullcontext()
    judging = open_grader(
        settings.verify, timeout_s=settings.verify_timeout_s, command=settings.command, sandbox=settings.sandbox
    )
    return Grader(journal, judging)


def _imported(
    settings: Settings,
    context: Context,
    grader: Grader | None,
    prompts: "Dataset",
    index: NameIndex,
    cells: Mapping[str, IntArray],
    errors: Counter[str],
) -> Iterator[tuple[str, list[Sample]]]:
    """Read the samples of each teacher from the user's table instead of the journal, and grade them, some at a time.

    What is missing is counted in `errors` by its reason, and rows that `ragged_rows: skip` leaves out as that.
    """
    path = context.work_dir / "imported.arrow"
    imported = read_responses(
        settings, context.teachers, prompts, index, cells, path, lambda: errors.update(("ragged_rows",))
    )
    asked = Rows(prompts)
    for teacher, rows in cells.items():
        if len(rows):
            its_own, number = imported.missing(teacher, rows)
            journalled.check_errors(its_own, number, journalled.of_teacher(teacher), settings.max_error_rate)
            errors.update(its_own)
            for some in in_parts(rows):
                samples = to_samples(imported.of(teacher, some), asked.at(some), settings.think_tags)
                yield teacher, grade(grader, samples) if grader else samples


def _cut(context: Context, chunks: Iterable[tuple[str, list[Sample]]]) -> tuple["Dataset", dict[str, Totals]]:
    """Select, sum up and write the rows, some cells at a time: the answers need not fit into memory.

    Returns the responses, and the totals of each teacher.
    """
    from datasets import Dataset

    totals: dict[str, Totals] = {}
    path = context.work_dir / "responses.arrow"
    with OUTPUT.writer(path) as writer:
        for teacher, graded in chunks:
            samples = select(graded, f"{context.seed}/{teacher}")
            totals.setdefault(teacher, Totals()).add(samples)
            for sample in samples:
                writer.write(to_row(teacher, sample))
    return Dataset.from_file(str(path)), totals


def _counts(totals: Mapping[str, Totals]) -> dict[str, int]:
    """Sum the counts of all teachers; what is odd is named where there is any."""
    sums = sum((total.counts for total in totals.values()), Counter[str]())
    names = ("requested", "answered", "errors", "truncated", "correct", "unjudged")
    return {name: sums[name] for name in names} | {name: sums[name] for name in ODD if sums[name]}


def _metrics(totals: Mapping[str, Totals]) -> dict[str, Any]:
    """Return each teacher's line of the metrics."""
    return {"teachers": {teacher: total.metrics() for teacher, total in totals.items()}}
