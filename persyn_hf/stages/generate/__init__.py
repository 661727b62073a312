"""Stage `generate`: assigned (prompt, teacher) cells in, sampled and verified responses out (PerSyn, appendix A.1).

Calibration and pool are answered by the same stage with different assignments. Every answer is written to the journal
raw, before it is parsed. The rows that come out are read from the journal, so they do not depend on where a run was
killed.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from persyn_hf.backends.engines import ask as journalled
from persyn_hf.backends.engines.imported import ABSENT, EMPTY, read_responses, to_samples
from persyn_hf.backends.engines.samples import ODD, Sample, Totals, select, to_row
from persyn_hf.backends.engines.settings import ENGINE_NOT_COVERED
from persyn_hf.backends.grading.journalled import Grader
from persyn_hf.backends.grading.opening import check_grader, open_grader
from persyn_hf.backends.grading.settings import COMMAND_NOT_COVERED, CommandSettings, SandboxSettings
from persyn_hf.backends.journal import Journal
from persyn_hf.backends.judging.rubrics import read_rubric
from persyn_hf.backends.judging.settings import JUDGE_NOT_COVERED
from persyn_hf.core.assignment import best_first
from persyn_hf.errors import InputError, RecipeError
from persyn_hf.recipe.roles import Teacher
from persyn_hf.schemas import ASSIGNMENTS, PROMPTS, RESPONSES
from persyn_hf.stage import Context, Result
from persyn_hf.stages.generate.asking import AT_A_TIME, Asking
from persyn_hf.stages.generate.choosing import Chosen, Samples, judge_samples
from persyn_hf.stages.generate.costs import costs
from persyn_hf.stages.generate.graded import grade
from persyn_hf.stages.generate.requests import Prompt
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
    cells = _cells(prompts, assignments, context.teachers)
    check(settings, tuple(teacher for teacher in context.teachers if cells[teacher.name]))
    with (
        Journal(context.journal or context.work_dir / "journal.sqlite", recipe=context.recipe) as journal,
        _open_grader(settings, journal) as grader,
    ):
        if settings.engine == "import":
            errors: Counter[str] = Counter()
            chosen = _choose(settings, context, journal, _imported(settings, context, grader, cells, errors))
            data, totals = _cut(context, chosen.samples)
            missing = {name: errors[reason] for name, reason in (("absent", ABSENT), ("empty", EMPTY))}
            ragged = {"ragged_rows": errors["ragged_rows"]} if errors["ragged_rows"] else {}
            counts = _counts(totals) | missing | ragged | (grader.failures if grader else {}) | chosen.counts
            return Result(data=data, counts=counts, metrics=_metrics(totals), cost=chosen.cost)
        asking = Asking(settings, context, journal, grader)
        asked_of = [teacher for teacher in context.teachers if cells[teacher.name]]
        for teacher in asked_of:
            asking.expect(teacher, len(cells[teacher.name]))
            asking.check_key(teacher, cells[teacher.name])
        asking.ask_all({teacher.name: cells[teacher.name] for teacher in asked_of}, round=0)
        _escalate(settings, context, asking, prompts, assignments)
        pool = [teacher.name for teacher in context.teachers]
        chosen = _choose(settings, context, journal, asking.samples(pool, prompts["prompt_id"][:]))
        data, totals = _cut(context, chosen.samples)
    counts = _counts(totals) | ({"escalated": asking.num_escalated} if settings.escalate else {})
    counts |= (grader.failures if grader else {}) | chosen.counts
    cost = costs(settings, context.teachers, asking.asked, totals, prompts["split"][:], calibration)
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


def _cells(prompts: "Dataset", assignments: "Dataset", teachers: Sequence[Teacher]) -> dict[str, list[Prompt]]:
    """Return the prompts assigned to each teacher, in prompt order; a name that is not known is refused."""
    pool = [teacher.name for teacher in teachers]
    prompt_ids = set(prompts["prompt_id"])
    assigned: dict[str, set[str]] = {}
    for prompt, name in zip(assignments["prompt_id"], assignments["teacher"], strict=True):
        if name not in pool:
            raise InputError(f"the assignments name the teacher `{name}`, the pool holds {', '.join(pool)}; add it")
        if prompt not in prompt_ids:
            raise InputError(f"the assignments name the prompt {prompt}, which is not among the prompts; assign anew")
        assigned.setdefault(prompt, set()).add(name)
    cells: dict[str, list[Prompt]] = {name: [] for name in pool}
    for rows in prompts.with_format("arrow").iter(AT_A_TIME):  # row by row, `datasets` takes twice as long
        for row in rows.to_pylist():
            for name in assigned.get(row["prompt_id"], ()):
                cells[name].append(row)
    return cells


def _escalate(
    settings: Settings, context: Context, asking: Asking, prompts: "Dataset", assignments: "Dataset"
) -> None:
    """Ask the next teacher by router score where no answer to a routed prompt is right, in `escalate` rounds at most.

    Example: `escalate: 2`, a prompt assigned to B, router scores A 0.2, B 0.9, C 0.5. Where B's answers are wrong,
    round 1 asks C; where C's are, too, round 2 asks A. Where B's answers could not be judged, nobody else is asked.
    """
    pool = [teacher.name for teacher in context.teachers]
    ranked = {}
    for row in assignments if settings.escalate else ():
        if row["source"] == "router":
            if len(row["scores"]) != len(pool):
                raise RecipeError(
                    f"`escalate` goes by router scores, and the assignment of prompt {row['prompt_id']} has "
                    f"{len(row['scores'])} for {len(pool)} teachers; use the assignments of a router"
                )
            sure, needed = row["confidence"], settings.escalate_below
            if needed is not None and sure is not None and sure >= needed:
                continue
            ranked[row["prompt_id"]] = best_first([row["scores"]], [pool.index(row["teacher"])])[0]
    for round in range(1, settings.escalate + 1):
        failed = asking.failed(list(ranked))
        again: dict[str, list[Prompt]] = {}
        for row in prompts if failed else ():
            if row["prompt_id"] in failed:
                names = [pool[index] for index in ranked[row["prompt_id"]]]
                untried = [name for name in names if not asking.was_asked(name, row["prompt_id"])]
                if untried:
                    again.setdefault(untried[0], []).append(row)
        asking.ask_all(again, round)


def _imported(
    settings: Settings,
    context: Context,
    grader: Grader | None,
    cells: Mapping[str, list[Prompt]],
    errors: Counter[str],
) -> Iterator[tuple[str, list[Sample]]]:
    """Read the samples of each teacher from the user's table instead of the journal, and grade them.

    What is missing is counted in `errors` by its reason, and rows that `ragged_rows: skip` leaves out as that.
    """
    imported = read_responses(settings, context.teachers, cells, lambda: errors.update(("ragged_rows",)))
    for teacher, rows in cells.items():
        if rows:
            samples = to_samples(imported, teacher, rows, settings.think_tags)
            its_own = Counter(sample.entry.error for sample in samples if sample.entry.error is not None)
            journalled.check_errors(its_own, len(samples), journalled.of_teacher(teacher), settings.max_error_rate)
            errors.update(its_own)
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
