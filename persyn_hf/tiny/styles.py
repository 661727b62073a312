"""Response styles: five ways to word the same correct steps, from a bare answer to a long doubting chain."""

import random
import re

from persyn_hf.tiny.questions import Question
from persyn_hf.tiny.steps import Step


STYLES = ("terse", "eq", "verbal", "markdown", "long")

_SPOKEN = {"+": "plus", "-": "minus", "*": "times", "/": "over", ">": "is more than", "<": "is less than"}
_BOXED = re.compile(r"\\boxed\{(-?\d+)\}")

# The long style draws each remark from several wordings: real long chains vary in wording far more than short
# ones, and that variety is what makes them unlikely under a student that has seen few of them.
_OPENINGS = (
    "Okay, let me think step by step.",
    "Alright, let me work through this.",
    "Hmm, let me see what is asked.",
    "Let me think about this slowly.",
)
_LINKS = ("Next,", "Then,", "After that,", "Now,")
_DOUBTS = (
    "Wait, maybe it is {n}? Hmm, I am not sure.",
    "But wait, could it be {n}? I should look again.",
    "Hold on, is it {n} instead?",
    "Wait, did I slip? It may be {n}.",
)
_REDOES = ("Let me redo it.", "Let me go over it again.", "Once more:", "I will repeat the steps.")
_AGREES = ("Okay, same.", "Good, the same result.", "So nothing changed.", "Right, it agrees.")
_CHECKS = (
    "Let me verify: {check}. Yes, that works.",
    "Quick check: {check}. That fits.",
    "To be sure: {check}. Fine.",
    "Also, {check}, so it holds.",
)
_CLOSINGS = (
    "Therefore, the final answer is",
    "So the final answer is",
    "Thus I am confident that it is",
    "Hence the answer:",
)


def respond(question: Question, style: str, rng: random.Random) -> str:
    """Return a correct response in a style; only `long` draws from `rng`.

    Raises:
        ValueError: there is no such style.
    """
    if style not in _WRITERS:
        raise ValueError(f"Unknown style {style!r}; styles: {', '.join(STYLES)}.")
    return _WRITERS[style](question, rng)


def boxed_answer(response: str) -> str | None:
    """Return the whole number in the last `\\boxed{}`, or None."""
    boxed = _BOXED.findall(response)
    return boxed[-1] if boxed else None


def drill(steps: list[Step]) -> str:
    """Return a drill document: true steps and nothing else, `70 + 15 = 85. 83 > 19.`"""
    return " ".join(f"{step}." for step in steps)


def _terse(question: Question, rng: random.Random) -> str:
    """Return the bare answer in a box."""
    return f"\\boxed{{{question.answer}}}"


def _eq(question: Question, rng: random.Random) -> str:
    """Return the steps as equations, then the answer."""
    return f"{drill(list(question.steps))} The answer is \\boxed{{{question.answer}}}."


def _speak(step: Step) -> str:
    """Return a step in words."""
    claim = f"{step.left} {_SPOKEN[step.op]} {step.right}"
    return claim if step.result is None else f"{claim} makes {step.result}"


def _verbal(question: Question, rng: random.Random) -> str:
    """Return the steps in words, then the answer."""
    told = ", and then ".join(_speak(step) for step in question.steps)
    return f"We want {question.goal}. First, {told}. So the result is \\boxed{{{question.answer}}}."


def _markdown(question: Question, rng: random.Random) -> str:
    """Return the steps as a numbered list, then the answer."""
    lines = [f"{number}. {step}" for number, step in enumerate(question.steps, start=1)]
    return "\n".join(["## Solution", *lines, f"**Answer:** \\boxed{{{question.answer}}}"])


def _long(question: Question, rng: random.Random) -> str:
    """Return a chain that doubts, repeats and verifies before it answers."""
    first, *rest = question.steps
    told = " ".join([f"First, {first}.", *(f"{rng.choice(_LINKS)} {step}." for step in rest)])
    answer = int(question.answer)
    doubted = rng.choice([answer + d for s in (1, 2, 9, 10, 11, 20) for d in (s, -s) if answer + d > 0])
    check = str(question.check) if question.check else f"{answer} is in the list"
    again = ", ".join(map(str, question.steps))
    return (
        f"{rng.choice(_OPENINGS)}\n{told}\n"
        f"{rng.choice(_DOUBTS).format(n=doubted)} {rng.choice(_REDOES)} {again}. {rng.choice(_AGREES)}\n"
        f"{rng.choice(_CHECKS).format(check=check)}\n"
        f"{rng.choice(_CLOSINGS)} \\boxed{{{answer}}}."
    )


_WRITERS = {"terse": _terse, "eq": _eq, "verbal": _verbal, "markdown": _markdown, "long": _long}
