"""Check a recipe's models by their tokenizers and configs, before any answer is paid for."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from persyn_hf.backends import chat, templates
from persyn_hf.backends import loading as models
from persyn_hf.backends.sft.student_model import check_generation_config
from persyn_hf.errors import InputError
from persyn_hf.recipe.roles import Student, Teacher
from persyn_hf.runner.step import Step
from persyn_hf.stages.generate.settings import engine_options


if TYPE_CHECKING:
    from datasets import Dataset


def check_models(steps: Sequence[Step]) -> None:
    """Refuse a model that one of the steps could not use; see `look_at_models`."""
    for _ in look_at_models(steps):
        pass


def look_at_models(steps: Sequence[Step]) -> Iterator[tuple[str, str]]:
    """Tell of every model that the steps run here what its chat template does, in words.

    Raises:
        InputError: weights are missing, a tokenizer or config cannot be loaded, or there is no template; nothing could
            be learnt with a student's template; the model lacks embeddings for what its template writes, or its
            generation config is invalid; the template closes the thinking block before the answers of `long_cot`
            teachers; a teacher's template does not take its system prompt.
    """
    scored = {step.student.name for step in steps if step.student and _scores(step)}
    for student in students_of(steps):
        assert student.model is not None
        models.check_weights(student.model)
        tokenizer = models.load_tokenizer(student.model, student.revision, student.chat_template)
        rows = models.num_embeddings(student.model, student.revision)
        template = templates.look_at(tokenizer, student.model)
        if student.name in scored:
            templates.check_embeddings(tokenizer, student.model, rows)
        if any(step.stage == "train_student" and step.student == student for step in steps):
            check_generation_config(student.model, student.revision)
        thinker = next((t.name for step in steps for t in step.teachers if t.long_cot), None)
        if template.closed and thinker is not None:
            raise InputError(
                f"the chat template of the student `{student.name}` closes the thinking block before an answer, but "
                f"the teacher `{thinker}` reasons (`long_cot`); {chat.OTHER_TEMPLATE}"
            )
        yield f"student {student.name}", str(template)
    for teacher in _teachers(steps):
        assert teacher.model is not None
        models.check_weights(teacher.model)
        tokenizer = models.load_tokenizer(teacher.model, teacher.revision)
        models.read_config(teacher.model, teacher.revision)
        told = templates.look_at_teacher(tokenizer, teacher.model, system_prompt=teacher.system_prompt is not None)
        yield f"teacher {teacher.name}", told


def check_prompts(students: Sequence[Student], prompts: "Dataset") -> None:
    """Refuse prompts with an order of roles that a student's template refuses (Gemma: a system turn)."""
    rows = prompts.select_columns(["messages"]).with_format("arrow")
    orders = Counter(
        tuple(turn["role"] for turn in messages)
        for batch in rows.iter(batch_size=1000)
        for messages in batch["messages"].to_pylist()
    )
    for student in students:
        if student.model is not None:
            tokenizer = models.load_tokenizer(student.model, student.revision, student.chat_template)
            templates.check_roles(tokenizer, student.model, orders)


def _scores(step: Step) -> bool:
    settings: Any = step.settings
    return step.stage == "score" and settings.learnability != "none"


def students_of(steps: Sequence[Step]) -> list[Student]:
    """The students that one of the steps loads."""
    found = {
        step.student.name: step.student
        for step in steps
        if step.student is not None
        and step.student.model is not None
        and (_scores(step) or step.stage in ("train_student", "evaluate"))
    }
    return list(found.values())


def _teachers(steps: Sequence[Step]) -> list[Teacher]:
    """The teachers that answer here: those behind servers and imported ones have no tokenizer here."""
    found: dict[str, Teacher] = {}
    for step in steps:
        settings: Any = step.settings
        if step.stage == "generate" and settings.engine != "import":
            asked = (t for t in step.teachers if engine_options(settings, t)["kind"] != "server")
            found |= {teacher.name: teacher for teacher in asked}
    return list(found.values())
