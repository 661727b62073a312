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
        InputError: a tokenizer cannot be loaded, or has no template (one that only counts needs none); nothing could
            be learnt with a student's template; the model lacks embeddings for what its template writes, or its
            generation config is invalid; the template closes the thinking block before the answers of `long_cot`
            teachers.
    """
    scored = {step.student.name for step in steps if step.student and _scores(step)}
    for student in students_of(steps):
        assert student.model is not None
        tokenizer = models.load_tokenizer(student.model, student.revision, student.chat_template)
        template = templates.look_at(tokenizer, student.model)
        if student.name in scored:
            templates.check_embeddings(
                tokenizer, student.model, models.num_embeddings(student.model, student.revision)
            )
        if any(step.stage == "train_student" and step.student == student for step in steps):
            check_generation_config(student.model, student.revision)
        thinker = next((t.name for step in steps for t in step.teachers if t.long_cot), None)
        if template.closed and thinker is not None:
            raise InputError(
                f"the chat template of the student `{student.name}` closes the thinking block before an answer, but "
                f"the teacher `{thinker}` reasons (`long_cot`); {chat.OTHER_TEMPLATE}"
            )
        yield f"student {student.name}", str(template)
    for name, counts in _counted(steps).items():
        models.read_tokenizer(counts, None, f"`{counts}`", "counting tokens")
        yield f"teacher {name}", f"its tokens are counted by `{counts}` where its server does not count them"
    for teacher in _teachers(steps):
        assert teacher.model is not None
        tokenizer = models.load_tokenizer(teacher.model, teacher.revision)
        ends = sorted(chat.ends_of_answers(tokenizer))
        yield f"teacher {teacher.name}", f"ends an answer with {' or '.join(tokenizer.convert_ids_to_tokens(ends))}"


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


def _counted(steps: Sequence[Step]) -> dict[str, str]:
    """The teachers behind servers for which the recipe names a tokenizer, with its name."""
    found: dict[str, str] = {}
    for step in steps:
        settings: Any = step.settings
        if step.stage == "generate" and settings.engine != "import":
            options = {teacher.name: engine_options(settings, teacher) for teacher in step.teachers}
            of_servers = {name: each["server"].tokenizer for name, each in options.items() if each["kind"] == "server"}
            found |= {name: tokenizer for name, tokenizer in of_servers.items() if tokenizer is not None}
    return found


def _teachers(steps: Sequence[Step]) -> list[Teacher]:
    """The teachers that answer here: those behind servers and imported ones have no tokenizer here."""
    found: dict[str, Teacher] = {}
    for step in steps:
        settings: Any = step.settings
        if step.stage == "generate" and settings.engine != "import":
            asked = (t for t in step.teachers if engine_options(settings, t)["kind"] != "server")
            found |= {teacher.name: teacher for teacher in asked}
    return list(found.values())
