"""Check a recipe's models by their tokenizers and configs, before any answer is paid for."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from persyn_hf.backends import chat, templates
from persyn_hf.backends import loading as models
from persyn_hf.backends.engines.settings import BY_SERVER
from persyn_hf.backends.judging.settings import Judge
from persyn_hf.backends.sft.student_model import check_generation_config
from persyn_hf.errors import InputError
from persyn_hf.recipe.roles import Student, Teacher
from persyn_hf.runner.payees import judges_of
from persyn_hf.runner.step import Step
from persyn_hf.stages.generate.settings import engine_options


if TYPE_CHECKING:
    from datasets import Dataset


class Look(NamedTuple):
    """A model that steps run here, and how it is looked at."""

    name: str  # student NAME or teacher NAME
    model: str  # Hub id or folder
    look: Callable[[], str]  # says what its template does, or raises `InputError`


def models_of(steps: Sequence[Step]) -> list[Look]:
    """List the models that the steps run here, students first."""
    students = [Look(f"student {s.name}", str(s.model), partial(_student, s, steps)) for s in students_of(steps)]
    counting = [Look(f"teacher {name}", by, partial(_counting, by)) for name, by in _counted(steps).items()]
    teachers = [Look(f"teacher {t.name}", str(t.model), partial(_teacher, t)) for t in teachers_of(steps)]
    judges = [
        Look(judge.payee, judge.model, partial(_teacher, judge))
        for judge, options in judges_of(steps)
        if options["kind"] not in BY_SERVER
    ]
    return [*students, *counting, *teachers, *judges]


def _student(student: Student, steps: Sequence[Step]) -> str:
    """Say what a student's chat template does with answers.

    Raises:
        InputError: weights are missing, its tokenizer or config cannot be loaded, or there is no template; nothing
            could be learnt with it; the model lacks embeddings for what it writes, or its generation config is
            invalid; the template closes the thinking block before the answers of `long_cot` teachers.
    """
    assert student.model is not None
    models.check_weights(student.model)
    tokenizer = models.load_tokenizer(student.model, student.revision, student.chat_template)
    rows = models.num_embeddings(student.model, student.revision)
    template = templates.look_at(tokenizer, student.model)
    own = [step for step in steps if step.student == student]
    if any(_scores(step) for step in own):
        templates.check_embeddings(tokenizer, student.model, rows)
    if any(step.stage == "train_student" for step in own):
        check_generation_config(student.model, student.revision)
    thinker = next((t.name for step in steps for t in step.teachers if t.long_cot), None)
    if template.closed and thinker is not None:
        raise InputError(
            f"the chat template of the student `{student.name}` closes the thinking block before an answer, but "
            f"the teacher `{thinker}` reasons (`long_cot`); {chat.OTHER_TEMPLATE}"
        )
    return str(template)


def _teacher(teacher: Teacher | Judge) -> str:
    """Say what the chat template of a teacher, or of a judge, does.

    Raises:
        InputError: weights are missing, its tokenizer or config cannot be loaded, or its template does not take its
            system prompt.
    """
    assert teacher.model is not None
    models.check_weights(teacher.model)
    tokenizer = models.load_tokenizer(teacher.model, teacher.revision)
    models.read_config(teacher.model, teacher.revision)
    has_system_prompt = getattr(teacher, "system_prompt", None) is not None
    return templates.look_at_teacher(tokenizer, teacher.model, system_prompt=has_system_prompt)


def _counting(tokenizer: str) -> str:
    """Say what a tokenizer counts. Raises `InputError` where it cannot be loaded; it needs no template."""
    models.read_tokenizer(tokenizer, None, f"`{tokenizer}`", "counting tokens")
    return f"its tokens are counted by `{tokenizer}` where its server does not count them"


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
            asked = {name: each for name, each in options.items() if each["kind"] in BY_SERVER}
            of_servers = {name: each["server"].tokenizer for name, each in asked.items()}
            found |= {name: tokenizer for name, tokenizer in of_servers.items() if tokenizer is not None}
    return found


def teachers_of(steps: Sequence[Step]) -> list[Teacher]:
    """The teachers that answer here: those behind servers and imported ones have no tokenizer here."""
    found: dict[str, Teacher] = {}
    for step in steps:
        settings: Any = step.settings
        if step.stage == "generate" and settings.engine != "import":
            asked = (t for t in step.teachers if engine_options(settings, t)["kind"] not in BY_SERVER)
            found |= {teacher.name: teacher for teacher in asked}
    return list(found.values())
