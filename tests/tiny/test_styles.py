"""Every style states true equations only and ends with the right answer."""

import random
import re

import pytest

from persyn_hf.tiny.questions import SKILLS, Question, draw_question
from persyn_hf.tiny.steps import step
from persyn_hf.tiny.styles import STYLES, boxed_answer, respond


SPOKEN = {"plus": "+", "minus": "-", "times": "*", "over": "/", "is more than": ">", "is less than": "<"}
CLAIM = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")
COMPARISON = re.compile(r"(\d+) ([<>]) (\d+)")
TRUE_RESULT = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b}


def questions(count: int) -> list[Question]:
    rng = random.Random(5)
    return [draw_question(rng, SKILLS[index % len(SKILLS)], rng.randint(1, 2)) for index in range(count)]


def written(response: str) -> str:
    """The response with spoken arithmetic as signs: `40 plus 30 makes 70` -> `40 + 30 = 70`."""
    for word, sign in SPOKEN.items():
        response = response.replace(f" {word} ", f" {sign} ")
    return response.replace(" makes ", " = ")


@pytest.mark.parametrize("style", STYLES)
def test_responses_are_right_and_state_truths_only(style):
    rng = random.Random(6)
    for one in questions(500):
        response = respond(one, style, rng)
        assert boxed_answer(response) == one.answer
        assert response.rstrip(".").endswith(f"\\boxed{{{one.answer}}}")
        plain = written(response)
        claims, comparisons = CLAIM.findall(plain), COMPARISON.findall(plain)
        assert all(TRUE_RESULT[op](int(a), int(b)) == int(c) for a, op, b, c in claims)
        assert all((int(a) < int(b)) == (op == "<") for a, op, b in comparisons)
        assert len(claims) == plain.count("=")
        assert style == "terse" or len(claims) + len(comparisons) >= len(one.steps)


def test_examples_of_each_style():
    one = Question(
        "What is 47 + 38?",
        "85",
        "add",
        2,
        (step(40, "+", 30), step(7, "+", 8), step(70, "+", 15)),
        "the sum",
        step(85, "-", 38),
    )
    rng = random.Random(0)
    assert respond(one, "terse", rng) == r"\boxed{85}"
    assert respond(one, "eq", rng) == r"40 + 30 = 70. 7 + 8 = 15. 70 + 15 = 85. The answer is \boxed{85}."
    assert respond(one, "verbal", rng) == (
        "We want the sum. First, 40 plus 30 makes 70, and then 7 plus 8 makes 15, "
        r"and then 70 plus 15 makes 85. So the result is \boxed{85}."
    )
    assert respond(one, "markdown", rng) == (
        "## Solution\n1. 40 + 30 = 70\n2. 7 + 8 = 15\n3. 70 + 15 = 85\n"
        r"**Answer:** \boxed{85}"
    )
    assert "85 - 38 = 47" in respond(one, "long", rng)


def test_long_style_repeats_with_the_same_seed_and_varies_with_another():
    one = questions(1)[0]
    assert respond(one, "long", random.Random(1)) == respond(one, "long", random.Random(1))
    assert len({respond(one, "long", random.Random(seed)) for seed in range(20)}) > 15


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"\boxed{7}", "7"),
        (r"\boxed{7} no, \boxed{-8}.", "-8"),
        ("7", None),
        (r"\boxed{Okay,}", None),
        (r"\boxed{7", None),
    ],
)
def test_boxed_answer(response, answer):
    assert boxed_answer(response) == answer


def test_unknown_style_is_refused():
    with pytest.raises(ValueError, match="styles: terse, eq"):
        respond(questions(1)[0], "haiku", random.Random(0))
