"""The items of a task, and the room that a student has for them."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from persyn_hf.backends.chat import render
from persyn_hf.backends.engines.local_prompts import context_length
from persyn_hf.backends.harness.answers import Sheet
from persyn_hf.backends.harness.questions import MathTask, final_answer, read_questions, read_tests
from persyn_hf.backends.harness.served import positions_of
from persyn_hf.backends.harness.stock import load_stock
from persyn_hf.backends.harness.stock_items import choose_filter, choose_metric
from persyn_hf.backends.loading import load_tokenizer
from persyn_hf.backends.references import of_each
from persyn_hf.errors import check
from persyn_hf.recipe.roles import Student
from persyn_hf.stages.evaluate.settings import Settings, Task


Loaded = MathTask | dict[str, Any]  # questions of one's own, or name -> task of the harness


def load(task: Task, settings: Settings) -> Loaded:
    """Load a task's items, and cut the references out of their answers.

    Raises:
        InputError: the items cannot be read, or the task has no such metric or filter.
        RecipeError: there are fewer worked examples than `num_fewshot`.
    """
    if task.is_stock:
        loaded = load_stock(task.harness or task.name, task.source, task.num_fewshot)
        for name, stock in loaded.items():
            choose_metric(name, stock, task.metric)
            choose_filter(name, stock, task.filter)
        return loaded
    assert task.source is not None
    columns = [task.columns.question] if isinstance(task.columns.question, str) else task.columns.question
    lists, marker = task.reference_lists, task.reference_after
    told: Counter[str] = Counter()
    skipped = (lambda: told.update(("ragged_rows",))) if task.ragged_rows == "skip" else None
    verbatim = task.is_weighed
    if task.is_tested:
        pairs = read_tests(task.source, columns, task.answer_columns, skipped)
    else:
        pairs = read_questions(task.source, columns, task.answer_columns[0], lists, skipped, verbatim=verbatim)
    pairs = pairs[: task.limit or settings.limit]
    references = [pair.answer for pair in pairs]
    if marker is not None:
        # Without the mark the whole answer stands: the grader then says whether it can be judged.
        references = [
            of_each(answer, lambda text: final_answer(text, marker) or text) or answer for answer in references
        ]
    shown = task.examples
    examples = []
    if shown is not None:
        examples = read_questions(shown, columns, task.answer_columns[0], skipped=skipped, verbatim=verbatim)
    told["lists_of_references"] = sum(pair.unclear for pair in pairs)
    number, needed = len(examples), task.num_fewshot or 0
    check(
        number >= needed, f"{task.name}.num_fewshot", needed, f"at most {number}, the worked examples that there are"
    )
    return MathTask(
        name=task.name,
        questions=[pair.question for pair in pairs],
        references=references,
        examples=[(example.question, example.answer) for example in examples],
        num_fewshot=needed,
        told={name: number for name, number in told.items() if number},
    )


def check_student(settings: Settings, student: Student) -> Iterator[str]:
    """Yield a sentence per task of questions of which some do not fit, before anything is trained.

    Tasks of the harness are loaded as well, since a metric that is no share is found only then.

    Raises:
        InputError: a task cannot be loaded, or not one of its questions fits.
    """
    if student.model is None:
        return
    tokenizer = load_tokenizer(student.model, student.revision, student.chat_template)
    if settings.engine == "vllm":
        positions = positions_of(settings.vllm, student.model, student.revision)
    else:
        positions = context_length(student.model, student.revision)
    for task in settings.tasks:
        loaded = load(task, settings)
        if isinstance(loaded, MathTask) and not task.is_weighed:
            sheet = Sheet(tokenizer=tokenizer, ends=(), positions=positions, task=task.name)
            fits = sheet.fits([render(tokenizer, turns) for turns in loaded.conversations], settings.max_tokens)
            if not all(fits):
                yield (
                    f"warning: {fits.count(False):,} of the {len(fits):,} prompts of `{task.name}` do not fit beside "
                    f"`evaluate.max_tokens` ({settings.max_tokens}) in the {positions} positions of `{student.name}` "
                    "and will not be asked"
                )
