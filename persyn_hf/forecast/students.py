"""Expect what the students of a recipe will take: forward passes for their rewards, and fine-tuning."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from persyn_hf.backends.sft import LORA_ABOVE
from persyn_hf.core.cost import generation_flops
from persyn_hf.forecast.outlook import (
    A100_FLOPS,
    ANSWER_TOKENS,
    Outlook,
    allocation,
    known_allocation,
    num_calibration,
)
from persyn_hf.formats import UNKNOWN, amount, duration, flops
from persyn_hf.recipe import names
from persyn_hf.recipe.roles import Student, Teacher
from persyn_hf.report.tables import Table
from persyn_hf.stages.score.settings import BY_MODEL


TRAINING = 0.3  # share of an A100's peak that training and forward passes reach; docs/paper.md has the grounds
PROMPT_TOKENS = 100  # tokens of the prompt of a row of which nothing is known
FULL, LORA = 3, 2  # cost of a training step in forward passes; frozen weights need no gradient of their own


class Line(NamedTuple):
    """One kind of work for one student."""

    student: Student
    step: str
    tokens: float
    passes: int  # cost in forward passes, each of 2 FLOPs per parameter and token

    @property
    def flops(self) -> float | None:
        """Return the FLOPs of the work; None where the student's size is not known."""
        return self.student.params_b and self.passes * generation_flops(self.student.params_b, self.tokens)


def students_table(outlook: Outlook, sizes: Mapping[str, int]) -> Table:
    """Make the table of the students' work: a row per student for scoring, and one per strategy for all its seeds.

    The table has no rows where there is no such work.
    """
    lines = [line for student in outlook.recipe.students for line in _lines(outlook, sizes, student)]
    is_measured = all(_measured(outlook, teacher) for teacher in outlook.recipe.teachers) and not _even(outlook, lines)
    sign = "" if is_measured else "~ "
    numbers = [line.flops for line in lines]
    total = None if None in numbers else sum(number or 0 for number in numbers)
    rows = [[line.student.name, line.step, *_cells(sign, line.tokens, line.flops)] for line in lines]
    rows.append(["total", "", *_cells(sign, sum(line.tokens for line in lines), total)])
    return Table(
        name="students",
        title="Expected of the students: scoring and fine-tuning",
        header=["student", "step", "tokens", "compute", "GPU time"],
        rows=rows if lines else [],
        note=_basis(outlook, lines),
    )


def _cells(sign: str, tokens: float, number: float | None) -> list[str]:
    """Return tokens, FLOPs and the time that an A100 of assumed speed needs for them, as text."""
    if number is None:
        return [sign + amount(tokens), UNKNOWN, UNKNOWN]
    return [sign + amount(tokens), sign + flops(number), f"~ {duration(number / (A100_FLOPS * TRAINING))}"]


def _lines(outlook: Outlook, sizes: Mapping[str, int], student: Student) -> Iterator[Line]:
    """Yield the work for one student: scoring, then fine-tuning by each strategy."""
    scored = _scored(outlook, sizes, student)
    if scored:
        yield Line(student, "score", scored, 1)
    keys, settings = {key for key, _, _ in outlook.steps}, outlook.settings.get("train_student")
    for strategy in outlook.recipe.strategies:
        seeds = outlook.recipe.sft_seeds
        trainings = sum(names.trained_student(student, strategy, suffix) in keys for suffix in seeds)
        if settings is not None and trainings:
            rows = _mean_tokens(outlook, allocation(outlook, student, strategy))
            tokens = _most_examples(outlook, sizes) * rows * settings.epochs * trainings
            passes = LORA if _is_lora(settings.method, student) else FULL
            yield Line(student, f"SFT {strategy.name}", tokens, passes)


def _most_examples(outlook: Outlook, sizes: Mapping[str, int]) -> int:
    """Return how many examples a student is trained on, if every prompt has as many answers as it may have."""
    each = outlook.settings["mix"].answers_per_prompt
    return sizes["calibration"] * int(each.calibration) + sizes["pool"] * int(each.pool)


def _is_lora(method: str, student: Student) -> bool:
    """Say whether `train_student` will use LoRA, by the size that the recipe says."""
    return method == "lora" or (method == "auto" and (student.params_b or 0) * 1e9 > LORA_ABOVE)


def _scored(outlook: Outlook, sizes: Mapping[str, int], student: Student) -> float:
    """Return the tokens of all rows whose likelihood is measured: one row per prompt and teacher that answers it."""
    settings, keys = outlook.settings.get("score"), {key for key, _, _ in outlook.steps}
    if settings is None or settings.learnability == "none" or student.model is None:
        return 0.0
    tokens = 0.0
    for teacher in outlook.recipe.teachers:
        prompts = num_calibration(outlook, sizes, teacher.name) + sizes["dev"]
        prompts = prompts if names.matrix_rewards(student) in keys else 0
        prompts += sizes["pool"] if names.matrix_rewards(student, names.POOL) in keys else 0
        tokens += prompts * _row_tokens(outlook, teacher)
    for strategy in outlook.recipe.strategies:
        if names.chosen_rewards(student, strategy) in keys:
            mean = _mean_tokens(outlook, allocation(outlook, student, strategy))
            tokens += sizes["pool"] * strategy.per_prompt * mean
    return tokens


def _mean_tokens(outlook: Outlook, shares: Mapping[str, float]) -> float:
    """Return the mean tokens of a row whose teacher is drawn by `shares`, which need not sum to 1."""
    tokens = {teacher.name: _row_tokens(outlook, teacher) for teacher in outlook.recipe.teachers}
    return sum(tokens[name] * share for name, share in shares.items()) / sum(shares.values())


def _row_tokens(outlook: Outlook, teacher: Teacher) -> float:
    """Return the tokens of a row, prompt and answer, as measured, else as assumed.

    An assumed answer that is generated is no longer than its teacher's `max_tokens`.
    """
    answer = ANSWER_TOKENS[teacher.long_cot]
    answer = min(outlook.settings["generate"].of(teacher).max_tokens, answer) if outlook.cells else answer
    return _measured(outlook, teacher) or PROMPT_TOKENS + answer


def _measured(outlook: Outlook, teacher: Teacher) -> float | None:
    """Return the mean tokens of prompt and answer over a teacher's stored answers; None: there are none.

    The prompts of imported answers are assumed to have `PROMPT_TOKENS`.
    """
    cell = outlook.cells.get(teacher.name)
    if cell is not None and cell.prompt_tokens is not None and cell.completion_tokens is not None:
        return (cell.prompt_tokens + cell.completion_tokens) / cell.requests
    responses = outlook.manifests.get(names.matrix_responses())
    mean = (responses.metrics if responses else {}).get("teachers", {}).get(teacher.name, {}).get("mean_tokens")
    return None if mean is None else PROMPT_TOKENS + float(mean)


def _basis(outlook: Outlook, lines: Sequence[Line]) -> str:
    """Say what the numbers rest on, and what is not in them."""
    short, long = ANSWER_TOKENS.values()
    capped = ", at most `generate.max_tokens`" if outlook.cells else ""
    lora = ", 4 with LoRA" if any(line.passes == LORA for line in lines) else ""
    parts = [
        f"2 FLOPs per parameter and token to score, 6 to fine-tune{lora}",
        f"~: assumed, an A100 at {TRAINING:.0%} of its peak and, where no answer is stored, {PROMPT_TOKENS} tokens of "
        f"prompt with {short} of answer, {long:,} of Long-CoT{capped}",
    ]
    if even := _even(outlook, lines):
        parts.append(f"an even split over the teachers for {', '.join(even)}")
    unsized = list(dict.fromkeys(line.student.name for line in lines if line.flops is None))
    if unsized:
        parts.append(f"–: set the `params_b` of {', '.join(unsized)} in `students`")
    return "; ".join([*parts, *_left_out(outlook)])


def _even(outlook: Outlook, lines: Sequence[Line]) -> list[str]:
    """List the strategies whose rows are assumed to be split evenly over the teachers."""
    trained = {(line.student.name, line.step) for line in lines}
    pairs = ((student, strategy) for student in outlook.recipe.students for strategy in outlook.recipe.strategies)
    return list(
        dict.fromkeys(
            strategy.name
            for student, strategy in pairs
            if (student.name, f"SFT {strategy.name}") in trained and not known_allocation(outlook, student, strategy)
        )
    )


def _left_out(outlook: Outlook) -> list[str]:
    """Name the work that is not counted, because no recipe says how large its models are."""
    settings, strategies = outlook.settings, outlook.recipe.strategies
    work = {
        "the llm router's training": "train_router" in settings
        and "llm" in {strategy.router or settings["train_router"].kind for strategy in strategies},
        **{name: "score" in settings and kind in settings["score"].weights for kind, name in BY_MODEL.items()},
        "evaluation": "evaluate" in settings,
    }
    named = [name for name, there in work.items() if there]
    return [f"not in it: {', '.join(named)}"] if named else []
