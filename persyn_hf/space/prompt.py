"""One prompt opened: what every teacher scored and answered, and who was chosen."""

from dataclasses import dataclass, field
from typing import Any

from persyn_hf.errors import InputError
from persyn_hf.recipe.roles import Teacher
from persyn_hf.space.collection import teachers_of
from persyn_hf.space.database import Database
from persyn_hf.space.decisions import measured
from persyn_hf.store.stored import Stored


LONGEST = 20_000  # characters of an answer or a prompt that are sent to the browser
MEASURES = ("quality_raw", "quality_reward", "learnability_reward", "reward", "rank")
ANSWER = {  # of a sample -> SQL
    "sample_index": "sample_index",
    "response": f"left(response, {LONGEST})",
    "reasoning": f"left(reasoning, {LONGEST})",
    "length": "length(response)",
    **{name: name for name in ("finish_reason", "num_tokens", "is_correct", "selected", "status", "error")},
}


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A teacher on one prompt; `score` None: not scored; every one of `measures` None: not measured."""

    teacher: Teacher
    score: float | None
    measures: dict[str, Any]  # by the names of MEASURES
    answers: list[dict[str, Any]]
    chosen: bool

    @property
    def is_measured(self) -> bool:
        """Whether its answer to this prompt was scored."""
        return any(value is not None for value in self.measures.values())


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
    settings: dict[str, Any] = field(default_factory=dict)  # of the rewards

    @property
    def chosen(self) -> list[Candidate]:
        """The candidates that were chosen; several where a prompt goes to several teachers."""
        return [candidate for candidate in self.candidates if candidate.chosen]


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
    messages, reference, topic = about[0] if about else ([], None, None)
    cells = f"SELECT teacher, {', '.join(MEASURES)} FROM ({measured(database, assignment)}) WHERE prompt_id = ?"
    measures = {row[0]: dict(zip(MEASURES, row[1:], strict=True)) for row in database.rows(cells, [prompt_id])}
    answers = _answers(database, assignment, prompt_id)
    pool = teachers_of(assignment)
    candidates = [
        Candidate(
            teacher=teacher,
            score=scores[place] if place < len(scores) else None,
            measures=measures.get(teacher.name, dict.fromkeys(MEASURES)),
            answers=answers.get(teacher.name, []),
            chosen=teacher.name in teachers,
        )
        for place, teacher in enumerate(pool)
    ]
    rewards = shelf.rewards(assignment)
    return Opened(
        prompt_id=prompt_id,
        messages=[{"role": turn["role"], "content": turn["content"][:LONGEST]} for turn in messages],
        reference=reference,
        topic=topic,
        split=decided[0][5],
        source=decided[0][4],
        margin=decided[0][2],
        confidence=decided[0][3],
        candidates=candidates,
        settings=dict(rewards[0].manifest.settings) if rewards else {},
    )


def _answers(database: Database, assignment: Stored, prompt_id: str) -> dict[str, list[dict[str, Any]]]:
    """Return the samples of one prompt by teacher; of equal ones the sample made for the assignment counts."""
    samples_of: dict[str, dict[int, dict[str, Any]]] = {}
    columns = ", ".join(ANSWER.values())
    for item in database.shelf.responses(assignment):
        for teacher, *values in database.rows(
            f"SELECT teacher, {columns} FROM {database.view(item)} WHERE prompt_id = ? ORDER BY sample_index",
            [prompt_id],
        ):
            samples_of.setdefault(teacher, {}).setdefault(values[0], dict(zip(ANSWER, values, strict=True)))
    return {teacher: [samples[index] for index in sorted(samples)] for teacher, samples in samples_of.items()}
