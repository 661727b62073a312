"""`persyn preview`: a few prompts to every teacher, with what a run would make of the answers.

The answers are asked through the journal, with the keys that a run will use: the first sample of the first calibration
prompts. So a run that comes after finds them, and they are paid for once.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persyn_hf.backends import chat
from persyn_hf.backends.loading import load_tokenizer
from persyn_hf.core.conversations import full_response, user_text
from persyn_hf.core.cost import money
from persyn_hf.core.endings import is_cut
from persyn_hf.errors import RecipeError
from persyn_hf.forecast.rehearsal import Rehearsal
from persyn_hf.formats import UNKNOWN
from persyn_hf.recipe import names
from persyn_hf.recipe.recipe import Recipe
from persyn_hf.recipe.roles import Student
from persyn_hf.runner.preflight import preflight
from persyn_hf.runner.run import Done, look_up
from persyn_hf.runner.step import Step
from persyn_hf.schemas import ASSIGNMENTS
from persyn_hf.stage import Context, Limits, Progress
from persyn_hf.store.local import Store


if TYPE_CHECKING:
    from datasets import Dataset


VERDICTS = {True: "right", False: "wrong", None: UNKNOWN}


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One answer of a teacher, as it is shown."""

    teacher: str
    verdict: str  # right, wrong, or not judged
    ended: str  # the finish reason, or why there is no answer
    tokens: int | None
    money: float | None
    text: str  # the answer without its thoughts
    reasoning: str | None


@dataclass(frozen=True, kw_only=True)
class Preview:
    """A prompt with every teacher's answer; `rendered` is what each student would be trained on, by its name.

    What is in brackets ⟦ ⟧ there is learnt; the rest is the prompt.
    """

    prompt: str
    reference: str | None
    answers: Sequence[Shown]
    rendered: Mapping[str, str]


def preview(recipe: Recipe, store: Store, number: int, progress: Progress, limits: Limits) -> list[Preview]:
    """Ask every teacher the first `number` calibration prompts, one sample each, and return what came.

    Raises:
        RecipeError: the answers are imported or pinned, or the prompts cannot be read before they are fetched.
        PersynError: as in a run, found by its preflight or while teachers are asked.
    """
    done = look_up(recipe, store)
    step = _matrix(done)
    preflight(recipe, [step], store, limits).refuse()
    with store.lock(), Rehearsal(recipe, done, store) as rehearsal, tempfile.TemporaryDirectory() as folder:
        prompts = rehearsal.prompts()
        if prompts is None:
            raise RecipeError(
                "the prompts lie on the Hub and were not fetched yet; fetch them first: "
                "persyn run RECIPE --set until=prompts"
            )
        chosen = prompts.select([row for row, split in enumerate(prompts["split"][:]) if split == "calibration"])
        chosen = chosen.select(range(min(number, len(chosen))))
        context = Context(
            seed=step.seed,
            work_dir=Path(folder),
            journal=store.journal,
            recipe=recipe.full_name,
            limits=limits,
            teachers=tuple(teacher.model_copy(update={"samples": None}) for teacher in step.teachers),
            progress=progress,
        )
        one = step.settings.model_copy(update={"samples": 1, "max_error_rate": 1.0})
        cells = _everyone(chosen, [teacher.name for teacher in step.teachers])
        rows = step.module.run(one, context, prompts=chosen, assignments=cells).data.to_list()
        return list(_previews(chosen, rows, recipe))


def _matrix(done: Sequence[Done]) -> Step:
    """Return the step that has every teacher answer calibration."""
    step = next((item.step for item in done if item.step.key == names.matrix_responses()), None)
    settings: Any = None if step is None else step.settings
    if step is None or settings.engine == "import":
        raise RecipeError("there is nothing to preview: no teacher is asked, the responses are imported or pinned")
    return step


def _everyone(prompts: "Dataset", teachers: Sequence[str]) -> "Dataset":
    """Assign every prompt to every teacher."""
    nothing: dict[str, Any] = {
        "scores": [],
        "margin": None,
        "confidence": None,
        "source": "rule",
        "split": "calibration",
    }
    cells = [{"prompt_id": p, "teacher": t, **nothing} for p in prompts["prompt_id"][:] for t in teachers]
    return ASSIGNMENTS.dataset(cells)


def _previews(prompts: "Dataset", rows: Sequence[Mapping[str, Any]], recipe: Recipe) -> Iterator[Preview]:
    prices = {teacher.name: teacher.price for teacher in recipe.teachers}
    for prompt in prompts:
        own = [row for row in rows if row["prompt_id"] == prompt["prompt_id"]]
        answers = [
            Shown(
                teacher=row["teacher"],
                verdict=VERDICTS[row["is_correct"]],
                ended=row["error"] or ("cut off" if is_cut(row["finish_reason"]) else row["finish_reason"]),
                tokens=row["num_tokens"],
                money=money(prices[row["teacher"]], row["num_prompt_tokens"], row["num_tokens"], None),
                text=row["response"],
                reasoning=row["reasoning"],
            )
            for row in own
        ]
        first = next((row for row in own if row["status"] == "ok"), None)
        students = [] if first is None else [s for s in recipe.students if s.model is not None]
        rendered = {student.name: _render(student, prompt["messages"], first) for student in students}
        yield Preview(
            prompt=user_text(prompt["messages"]), reference=prompt["reference"], answers=answers, rendered=rendered
        )


def _render(student: Student, messages: chat.Messages, row: Mapping[str, Any] | None) -> str:
    """Write an answer as the student would be trained on it; what is learnt stands in brackets."""
    assert student.model is not None and row is not None
    tokenizer = load_tokenizer(student.model, student.revision, student.chat_template)
    (turn,) = chat.encode_turns(tokenizer, [(messages, full_response(row))], 1 << 20)
    prompt, learnt = (tokenizer.decode(ids) for ids in (turn.ids[: turn.start], turn.ids[turn.start :]))
    return f"{prompt}⟦{learnt}⟧"
