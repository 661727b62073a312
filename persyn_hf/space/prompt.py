"""One prompt opened: what every teacher scored and answered, and who was chosen."""

import math
from dataclasses import dataclass, field
from typing import Any

from persyn_hf.errors import InputError
from persyn_hf.recipe.roles import Teacher
from persyn_hf.schemas import CRITERIA, criterion_column
from persyn_hf.space.collection import Shelf, teachers_of
from persyn_hf.space.database import Database
from persyn_hf.space.decisions import measured
from persyn_hf.store.cards.markdown import HUB
from persyn_hf.store.stored import Stored


LONGEST = 20_000  # characters of an answer or a prompt that are sent to the browser
MEASURES = ("quality_raw", "quality_reward", "learnability_reward", "reward", "rank")
ANSWER = {  # of a sample -> SQL
    "sample_index": "sample_index",
    "response": f"left(response, {LONGEST})",
    "reasoning": f"left(reasoning, {LONGEST})",
    "length": "length(response)",
    **{name: name for name in ("finish_reason", "num_tokens", "is_correct", "selected", "round", "status", "error")},
}
UNITS = {"log_odds": "logits", "reward": "reward"}  # scale of a router's scores -> its name
KINDS = {"llm": "log_odds", "logistic": "log_odds"}  # of routers; that of the others is the reward


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A teacher on one prompt; `score` None: not scored; every one of `measures` None: not measured."""

    teacher: Teacher
    score: float | None
    measures: dict[str, Any]  # by the names of MEASURES
    answers: list[dict[str, Any]]
    chosen: bool
    criteria: dict[str, float | None] = field(default_factory=dict)  # raw, where several make the quality
    verdicts: list[dict[str, Any]] = field(
        default_factory=list
    )  # what judges replied on the answer that stands for it

    @property
    def is_measured(self) -> bool:
        """Whether its answer to this prompt was scored."""
        return any(value is not None for value in self.measures.values())

    @property
    def shown(self) -> dict[str, Any] | None:
        """The answer that stands for it: the selected one, else the first; None: there is none."""
        return next((answer for answer in self.answers if answer["selected"]), next(iter(self.answers), None))

    @property
    def asked_after(self) -> int:
        """The round in which it was asked after teachers without a right answer; 0: it was not."""
        return max((answer["round"] or 0 for answer in self.answers), default=0)


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A prompt with its candidates in the order of the pool."""

    prompt_id: str
    messages: list[dict[str, str]]
    reference: str | None
    topic: str | None
    split: str
    source: str  # router, oracle or rule
    margin: float | None
    confidence: float | None
    candidates: list[Candidate]
    unit: str  # of the scores
    settings: dict[str, Any] = field(default_factory=dict)  # of the rewards
    choosing: dict[str, Any] = field(default_factory=dict)  # the settings of the assignment

    @property
    def chosen(self) -> list[Candidate]:
        """The candidates that were chosen; several where a prompt goes to several teachers."""
        return [candidate for candidate in self.candidates if candidate.chosen]

    @property
    def best(self) -> list[Candidate]:
        """The candidates of the best measured reward; several are equally good."""
        return [candidate for candidate in self.candidates if candidate.measures["rank"] == 1]

    def tied_with(self, candidate: Candidate) -> list[str]:
        """Return the other teachers of the same rank, which is given to equal rewards."""
        rank = candidate.measures["rank"]
        others = [other for other in self.candidates if other is not candidate and rank is not None]
        return [other.teacher.name for other in others if other.measures["rank"] == rank]


def open_prompt(database: Database, assignment: Stored, prompt_id: str) -> Opened:
    """Return everything that the artifacts hold of one prompt; long texts are cut, and `length` is what they had.

    Raises:
        InputError: the assignment does not hold it.
    """
    shelf = database.shelf
    select = "SELECT teacher, scores, margin, confidence, source, split"
    decided = database.rows(f"{select} FROM {database.view(assignment)} WHERE prompt_id = ?", [prompt_id])
    if not decided:
        raise InputError(f"{assignment.ref} holds no prompt `{prompt_id}`; search for it in the list of prompts")
    teachers, scores = [row[0] for row in decided], decided[0][1] or []
    prompts = shelf.input(assignment, "prompts")
    about = (
        database.rows(
            f"SELECT messages, reference, topic FROM {database.view(prompts)} WHERE prompt_id = ?", [prompt_id]
        )
        if prompts
        else []
    )
    messages, reference, topic = about[0] if about else ((), None, None)
    cells = f"SELECT teacher, {', '.join(MEASURES)} FROM ({measured(database, assignment)}) WHERE prompt_id = ?"
    measures = {row[0]: dict(zip(MEASURES, row[1:], strict=True)) for row in database.rows(cells, [prompt_id])}
    answers, said = _answers(database, assignment, prompt_id), _said(database, assignment, prompt_id)
    pool = teachers_of(assignment)
    candidates = [
        Candidate(
            teacher=teacher,
            score=_number(scores[place]) if place < len(scores) else None,
            measures=measures.get(teacher.name, dict.fromkeys(MEASURES)),
            answers=answers.get(teacher.name, []),
            chosen=teacher.name in teachers,
            **said.get(teacher.name, {}),
        )
        for place, teacher in enumerate(pool)
    ]
    rewards = shelf.rewards(assignment)
    return Opened(
        prompt_id=prompt_id,
        messages=[{"role": turn["role"], "content": (turn["content"] or "")[:LONGEST]} for turn in messages or ()],
        reference=reference,
        topic=topic,
        split=decided[0][5],
        source=decided[0][4],
        margin=_number(decided[0][2]),
        confidence=_number(decided[0][3]),
        candidates=candidates,
        unit=unit(shelf, assignment) if decided[0][4] == "router" else "reward",
        settings=dict(rewards[0].manifest.settings) if rewards else {},
        choosing=dict(assignment.manifest.settings),
    )


def unit(shelf: Shelf, assignment: Stored) -> str:
    """Return the unit of the scores of an assignment's router."""
    router = shelf.input(assignment, "router")
    if router is None:
        return "units of the router's score"
    kind, training = str(router.manifest.settings.get("kind")), router.manifest.metrics.get("training")
    scale = training.get("scale") if isinstance(training, dict) else None
    return UNITS.get(str(scale or KINDS.get(kind, "reward")), "units of the router's score")


def on_hub(database: Database, assignment: Stored, prompt_id: str) -> list[tuple[str, str]]:
    """Return the artifacts that hold a prompt and came from the Hub, as (reference, the address of its row there).

    The Hub's viewer pages by 100 rows, and shows the newest version of a dataset.
    """
    found = []
    for item in (database.shelf.input(assignment, "prompts"), assignment):
        if item is None or item.ref not in database.shelf.fetched:
            continue
        places = database.rows(
            f"""
            SELECT split, row FROM (
                SELECT prompt_id, split, row_number() OVER (PARTITION BY split ORDER BY number) - 1 AS row
                FROM (SELECT prompt_id, split, row_number() OVER () AS number FROM {database.view(item)})
            ) WHERE prompt_id = ? ORDER BY row LIMIT 1
            """,
            [prompt_id],
        )
        for split, row in places:
            found.append((item.ref, f"{HUB}datasets/{item.repo}/viewer/default/{split}?p={row // 100}&row={row}"))
    return found


def _number(value: float | None) -> float | None:
    """Return a number, None where it is null or none."""
    return None if value is None or math.isnan(value) else value


def _said(database: Database, assignment: Stored, prompt_id: str) -> dict[str, dict[str, Any]]:
    """Return, by teacher, what each criterion and the judges say of one prompt; the first rewards that know it count.

    Most rewards have none of these columns.
    """
    for item in database.shelf.rewards(assignment):
        view = database.view(item)
        there = {row[0] for row in database.rows(f"DESCRIBE {view}")}
        criteria = [name for name in CRITERIA if criterion_column(name) in there]
        columns = ["teacher", *map(criterion_column, criteria), *(["verdicts"] if "verdicts" in there else [])]
        rows = database.rows(f"SELECT {', '.join(columns)} FROM {view} WHERE prompt_id = ?", [prompt_id])
        if rows:
            return {
                teacher: {
                    "criteria": {name: _number(value) for name, value in zip(criteria, values, strict=False)},
                    "verdicts": (values[-1] or []) if "verdicts" in there else [],
                }
                for teacher, *values in rows
            }
    return {}


def _answers(database: Database, assignment: Stored, prompt_id: str) -> dict[str, list[dict[str, Any]]]:
    """Return the samples of one prompt by teacher; of equal ones the sample made for the assignment counts."""
    samples_of: dict[str, dict[int, dict[str, Any]]] = {}
    for item in database.shelf.responses(assignment):
        is_own = database.shelf.answers(item, assignment)  # whom another assignment asked later says nothing here
        columns = ", ".join((ANSWER | {"round": "round" if is_own else "0"}).values())
        for teacher, *values in database.rows(
            f"SELECT teacher, {columns} FROM {database.view(item)} WHERE prompt_id = ? ORDER BY sample_index",
            [prompt_id],
        ):
            samples_of.setdefault(teacher, {}).setdefault(values[0], dict(zip(ANSWER, values, strict=True)))
    return {teacher: [samples[index] for index in sorted(samples)] for teacher, samples in samples_of.items()}
