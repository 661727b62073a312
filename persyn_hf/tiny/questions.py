"""The grammar of the tiny world: short maths questions of seven skills and two levels, and their splits."""

import random
from dataclasses import dataclass

from persyn_hf.tiny.steps import Step, addition, multiplication, running_extreme, step, subtraction


SKILLS = ("add", "sub", "mul", "list", "eqn", "word", "cost")
SPLIT_SIZES = {"calibration": 400, "dev": 160, "pool": 1200, "validation": 320, "test": 400}
LEVEL_2_SHARE = 0.6
NAMES = ("Mia", "Tom", "Ana", "Ben", "Lily", "Sam", "Zoe", "Max")
ITEMS = ("apples", "books", "coins", "cards", "pens", "eggs", "stamps", "toys")


@dataclass(frozen=True)
class Question:
    """A question with all that a response style needs.

    `steps` is one correct way to the answer; `goal` names what is asked for; `check` is a true statement that
    confirms the answer by another route (None for `list`, where being in the list is the check).
    """

    question: str
    answer: str
    skill: str
    level: int
    steps: tuple[Step, ...]
    goal: str
    check: Step | None


def _add(rng: random.Random, level: int) -> Question:
    """Draw a sum of two numbers."""
    a, b = (rng.randint(10, 49), rng.randint(2, 9)) if level == 1 else (rng.randint(12, 59), rng.randint(12, 49))
    text = rng.choice((f"What is {a} + {b}?", f"Find the sum of {a} and {b}.", f"Add {b} to {a}."))
    return Question(text, str(a + b), "add", level, addition(a, b), "the sum", step(a + b, "-", b))


def _sub(rng: random.Random, level: int) -> Question:
    """Draw a difference of two numbers."""
    a = rng.randint(11, 59) if level == 1 else rng.randint(31, 79)
    b = rng.randint(2, 9) if level == 1 else rng.randint(12, min(49, a - 3))
    text = rng.choice(
        (f"What is {a} - {b}?", f"Take {b} away from {a}. What is left?", f"How much more is {a} than {b}?")
    )
    return Question(text, str(a - b), "sub", level, subtraction(a, b), "the difference", step(a - b, "+", b))


def _mul(rng: random.Random, level: int) -> Question:
    """Draw a product of two numbers."""
    # Five wordings, more than elsewhere: only 64 pairs exist at level 1, and what the splits take is banned
    # from pretraining.
    a, b = (rng.randint(2, 9), rng.randint(2, 9)) if level == 1 else (rng.randint(12, 39), rng.randint(2, 6))
    text = rng.choice(
        (
            f"What is {a} times {b}?",
            f"Find the product of {a} and {b}.",
            f"Compute {a} * {b}.",
            f"Multiply {a} by {b}.",
            f"How much is {a} times {b}?",
        )
    )
    return Question(text, str(a * b), "mul", level, multiplication(a, b), "the product", step(a * b, "/", b))


def _list(rng: random.Random, level: int) -> Question:
    """Draw the question for the largest or smallest number of a list."""
    numbers = rng.sample(range(10, 99), 3 if level == 1 else 5)
    largest = rng.random() < 0.5
    word = rng.choice(("largest", "biggest", "greatest") if largest else ("smallest", "least", "lowest"))
    listed = ", ".join(map(str, numbers))
    text = rng.choice((f"Which number is the {word} of {listed}?", f"Find the {word} number in the list {listed}."))
    answer = str(max(numbers) if largest else min(numbers))
    return Question(text, answer, "list", level, running_extreme(numbers, largest), "one number of the list", None)


def _eqn(rng: random.Random, level: int) -> Question:
    """Draw a linear equation with a whole solution."""
    x = rng.randint(2, 9)
    k, c = (rng.randint(2, 4), rng.randint(1, 9)) if level == 1 else (rng.randint(3, 7), rng.randint(5, 15))
    minus = level == 2 and rng.random() < 0.5 and k * x - c >= 1
    sign, d = ("-", k * x - c) if minus else ("+", k * x + c)
    equation = f"{k}x {sign} {c} = {d}"
    text = rng.choice((f"Solve for x: {equation}", f"If {equation}, what is x?", f"Find x when {equation}."))
    steps = (step(d, "+" if minus else "-", c), step(k * x, "/", k))
    return Question(text, str(x), "eqn", level, steps, "the value of x", step(k, "*", x))


def _word(rng: random.Random, level: int) -> Question:
    """Draw a story about things that are given, bought or lost."""
    owner, other = rng.sample(NAMES, 2)
    item = rng.choice(ITEMS)
    if rng.random() < 0.4:
        a, b = (rng.randint(10, 30), rng.randint(2, 9)) if level == 1 else (rng.randint(12, 35), rng.randint(3, 15))
        text = f"{owner} has {a} {item} and {other} has {b} more than {owner}. How many {item} do they have together?"
        steps = (step(a, "+", b), step(a, "+", a + b))
        return Question(text, str(2 * a + b), "word", level, steps, "the final count", step(2 * a + b, "-", a))
    a, b, c = (
        (rng.randint(10, 30), rng.randint(2, 9), rng.randint(2, 9))
        if level == 1
        else (rng.randint(15, 45), rng.randint(11, 29), rng.randint(11, 39))
    )
    c = min(c, a + b - 3)
    text = rng.choice(
        (
            f"{owner} has {a} {item}. {owner} buys {b} more and gives {c} to {other}. "
            f"How many {item} does {owner} have now?",
            f"{owner} had {a} {item}, found {b} more, and then lost {c}. How many {item} are left?",
        )
    )
    left = a + b - c
    steps = (step(a, "+", b), step(a + b, "-", c))
    return Question(text, str(left), "word", level, steps, "the final count", step(left, "+", c))


def _cost(rng: random.Random, level: int) -> Question:
    """Draw a question for the money that is left after a purchase."""
    name, item = rng.choice(NAMES), rng.choice(ITEMS)
    price = rng.randint(2, 9)
    count, paid = (
        (rng.randint(2, 4), rng.choice((40, 50))) if level == 1 else (rng.randint(3, 7), rng.choice((70, 75, 80, 85)))
    )
    text = rng.choice(
        (
            f"One {item[:-1]} costs {price} dollars. {name} buys {count} and pays with {paid} dollars. "
            f"How much change does {name} get?",
            f"{name} has {paid} dollars and buys {count} {item} for {price} dollars each. How many dollars are left?",
        )
    )
    total = price * count
    steps = (step(price, "*", count), step(paid, "-", total))
    return Question(text, str(paid - total), "cost", level, steps, "the money left", step(paid - total, "+", total))


_MAKERS = {"add": _add, "sub": _sub, "mul": _mul, "list": _list, "eqn": _eqn, "word": _word, "cost": _cost}


def draw_question(rng: random.Random, skill: str, level: int) -> Question:
    """Return one random question of a skill at a level (1 easy, 2 hard).

    Raises:
        ValueError: there is no such skill or level.
    """
    if skill not in _MAKERS or level not in (1, 2):
        raise ValueError(
            f"No questions of skill {skill!r} at level {level!r}; skills: {', '.join(SKILLS)}; levels: 1, 2."
        )
    return _MAKERS[skill](rng, level)


def make_splits(seed: int = 0) -> dict[str, list[Question]]:
    """Return the splits of `SPLIT_SIZES`: skills in turn, level 2 with probability .6, no question twice anywhere."""
    rng = random.Random(seed)
    seen: set[str] = set()
    splits: dict[str, list[Question]] = {}
    for split, size in SPLIT_SIZES.items():
        rows = splits[split] = []
        while len(rows) < size:
            question = draw_question(rng, SKILLS[len(rows) % len(SKILLS)], 2 if rng.random() < LEVEL_2_SHARE else 1)
            if question.question not in seen:
                seen.add(question.question)
                rows.append(question)
        rng.shuffle(rows)
    return splits
