"""Count the verdicts that a run would have to pay judges for.

Where the answers of a step are stored, its questions are known, and what the journal lacks is certain. Where they are
yet to come, each answer brings a question (each pair two), so their number is known at most: a teacher may fail, and
equal answers are asked about once.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persyn_hf.backends.engines.batch.notes import Notes
from persyn_hf.backends.journal_reading import JournalReader
from persyn_hf.backends.judging.opening import asked_formats, open_judge
from persyn_hf.backends.judging.questions import Question, Shown, make_questions, make_requests, num_pairs
from persyn_hf.backends.judging.rubrics import Rubric, read_rubric
from persyn_hf.backends.judging.settings import Judge, JudgeSettings
from persyn_hf.backends.judging.structured import is_refusal
from persyn_hf.core.cost import money
from persyn_hf.forecast.rehearsal import Rehearsal
from persyn_hf.report.tables import Table
from persyn_hf.runner.payees import panel_of
from persyn_hf.runner.run import Done
from persyn_hf.runner.step import Step
from persyn_hf.stages.generate.settings import num_samples
from persyn_hf.store.local import Store


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """The verdicts that the steps left will ask of one judge."""

    judge: Judge
    journalled: int  # paid for already
    under_way: int  # sent in batches, and paid for already
    certain: int
    at_most: int
    money: float | None  # of `at_most` replies as long as they may be, prompts not counted; None: there is no price


def count_verdicts(
    done: Sequence[Done], store: Store, rehearsal: Rehearsal, sizes: Mapping[str, int] | None
) -> list[Verdicts]:
    """Count the verdicts that the steps left will ask.

    sizes: prompts per split, by which those of data sets that are not here yet are bounded. The result is empty where
    no judge is asked, or neither prompts nor sizes are known.
    """
    steps = {item.step.key: item.step for item in done}
    asking = [item.step for item in done if item.stored is None and panel_of(item.step) is not None]
    settings = panel_of(asking[0]) if asking else None
    prompts = rehearsal.prompts()
    if settings is None or (prompts is None and sizes is None):
        return []
    rubric = read_rubric(settings.rubric, settings.mode, settings.scale)
    by_id: dict[str, Any] = (
        {f"{split} {number}": {"split": split} for split, size in (sizes or {}).items() for number in range(size)}
        if prompts is None
        else {row["prompt_id"]: row for row in prompts}
    )
    questions: list[Question] = []
    coming: dict[str, int] = defaultdict(int)  # prompt -> questions about answers that are yet to come, at most
    at_most = 0  # of the same, to one prompt
    scored = {step.inputs["responses"] for step in asking if step.stage == "score"}
    for key in dict.fromkeys(step.inputs["responses"] if step.stage == "score" else step.key for step in asking):
        responses = rehearsal.rows(key)
        if responses is not None:
            shown = [
                Shown(prompt=by_id[row["prompt_id"]], text=row["response"])
                for row in responses
                if row["selected"] and row["prompt_id"] in by_id
            ]
            questions += make_questions(settings, rubric, shown)
            continue
        each = _per_cell(steps.get(key), asking[0], key in scored)
        at_most = max(at_most, _number(settings.model_copy(update={"opponents": None}), each))
        for prompt_id, cells in _coming(key, asking[0], steps, rehearsal, by_id).items():
            coming[prompt_id] += _number(settings, each[:cells])
    each_sample = sum(min(number, at_most) for number in coming.values()) * settings.samples
    with JournalReader(store.journal) as journal:
        counted = [_known(settings, judge, rubric, questions, asking[0].seed, journal) for judge in settings.judges]
    return [
        Verdicts(
            judge=judge,
            journalled=total - missing - under_way,
            under_way=under_way,
            certain=missing,
            at_most=missing + each_sample,
            money=money(judge.price, 0, (missing + each_sample) * settings.max_tokens, None),
        )
        for judge, (total, missing, under_way) in zip(settings.judges, counted, strict=True)
    ]


def verdicts_table(found: Sequence[Verdicts]) -> Table:
    """Make the table of what a run will pay judges for; it has no rows where none is asked."""
    sent = any(line.under_way for line in found)
    under_way = ["under way"] if sent else []
    priced = any(line.money is not None for line in found)
    rows = [
        [
            line.judge.label,
            *([f"{line.journalled:,}", f"{line.under_way:,}"] if sent else [f"{line.journalled:,}"]),
            *(f"{number:,}" for number in (line.certain, line.at_most)),
            *([] if not priced else ["–" if line.money is None else f"≤ {line.money:,.4g}"]),
        ]
        for line in found
    ]
    return Table(
        name="verdicts",
        title="Verdicts that `persyn run` will pay judges for",
        header=["judge", "in the journal", *under_way, "certain", "at most", *(["money"] if priced else [])],
        rows=rows,
        note="certain: of answers that are stored; at most: of those to come as well, if every teacher answers"
        + ("; money: replies of `max_tokens`, prompts not counted" if priced else ""),
    )


def _number(settings: JudgeSettings, cells: Sequence[int]) -> int:
    """Return the questions that answers to one prompt bring: so many of each teacher, in pairs one of each."""
    return sum(cells) if settings.mode == "pointwise" else 2 * num_pairs(len(cells), settings.opponents)


def _per_cell(generating: Step | None, asking: Step, is_scored: bool) -> list[int]:
    """Return the answers of each teacher that are judged to one prompt, at most, the largest number first.

    One is where the answers are scored; all samples are where the best of several is to be kept.
    """
    settings: Any = None if generating is None else generating.settings
    if settings is None or settings.chosen_by is None:
        return [1] * len(asking.teachers)
    asked = [1 if settings.engine == "import" else num_samples(settings, teacher) for teacher in asking.teachers]
    return sorted((number if number > 1 else int(is_scored) for number in asked), reverse=True)


def _coming(
    key: str, asking: Step, steps: Mapping[str, Step], rehearsal: Rehearsal, prompts: Mapping[str, Any]
) -> Mapping[str, int]:
    """Return the teachers per prompt, at most, that a step of `generate` will have answer."""
    generating = steps.get(key)
    source = "" if generating is None else generating.inputs["assignments"]
    assignments = rehearsal.rows(source)
    number: dict[str, int] = defaultdict(int)
    if assignments is not None:
        for prompt_id in assignments["prompt_id"][:]:
            number[prompt_id] += 1
    else:
        chosen: Any = steps[source].settings if source in steps else None
        splits = ("calibration", "dev", "pool") if chosen is None else chosen.chosen_splits
        each = len(asking.teachers) if chosen is None or chosen.kind == "all" else chosen.per_prompt
        number |= {prompt_id: each for prompt_id, row in prompts.items() if row["split"] in splits}
    further = getattr(generating and generating.settings, "escalate", 0)
    return {prompt_id: min(many + further, len(asking.teachers)) for prompt_id, many in number.items()}


def _known(
    settings: JudgeSettings,
    judge: Judge,
    rubric: Rubric,
    questions: Sequence[Question],
    seed: int,
    journal: JournalReader,
) -> tuple[int, int, int]:
    """Return the number of requests to one judge that questions make, of those to pay for, and of those under way."""
    batches = [note for note in Notes.beside(journal.path) if note.model == judge.model]
    if not questions or (journal.is_empty and not batches):
        number = len({(question.prompt_id, question.text) for question in questions}) * settings.samples
        return number, number, 0
    sent: set[str] = set()
    errors: dict[str, str | None] = {}  # key of a request, in the form that it goes out in -> error of its reply
    missing: set[str] = set()
    slots = [(place, sample) for place in range(len(questions)) for sample in range(settings.samples)]
    forms = asked_formats(settings, judge)
    for asked in forms:
        with open_judge(settings, judge, rubric, asked, Path()) as engine:
            made = [make_requests(settings, seed, engine, question) for question in questions]
            sent |= {key for note in batches if note.service == engine.collects_from for key in note.keys}
        keys = {slot: made[slot[0]][slot[1]].key for slot in slots}
        said = journal.errors(keys.values())
        last = asked == forms[-1]
        if not last and is_refusal(said.get(keys[slots[0]])):  # so no other was sent in this form
            continue
        refused = [] if last else [slot for slot in slots if is_refusal(said.get(keys[slot]))]
        asked_for = {keys[slot] for slot in {*slots} - {*refused}}
        errors |= {key: said.get(key) for key in asked_for}
        missing |= asked_for - said.keys()
        slots = refused
        if not slots:
            break
    if "errors" in settings.rerun:
        missing |= {key for key, error in errors.items() if error is not None}
    return len(errors), len(missing - sent), len(missing & sent)
