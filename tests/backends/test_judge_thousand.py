"""A thousand replies as judges write them, put together of parts: what is stated is read, and nothing else ever is."""

import random
from itertools import product

from persyn_hf.backends.judging.verdicts import read_verdict, score_form
from persyn_hf.backends.thoughts import split_thoughts


BEFORE = (
    "",
    "The answer has 3 steps, and 2 of them are right.",
    "Step 1: 40 + 30 = 70. Step 2: 7 + 8 = 15. The result is 85.",
    "Let me evaluate.\n\n1. Accuracy: good\n2. Clarity: 7 sentences are too many\n",
    "On a scale from 1 to 10, where 10 is perfect, this is how I see it.",
    "Die Antwort ist richtig, aber sie nennt nur 2 von 5 Gründen.",
    "答案正确，有3个步骤，但没有解释第2步。",
    "<think>Perhaps 4? No, the 9 of the reference is met.</think>The reference is met.",
    "## Evaluation\n- **Helpfulness**: it answers all 4 questions\n- **Length**: 250 words",
    'The user asked for "exactly 5 items" and got 5.',
)
STATED = (
    '{{"reason": "It says 42.", "score": {0}}}',
    '```json\n{{"reason": "Two of 3 are right.", "score": {0}}}\n```',
    "[[{0}]]",
    "Rating: [[{0}]]",
    "Score: {0}",
    "**Score:** {0}/10",
    "**Rating**: {0}",
    "Final score: {0} out of 10",
    "<score>{0}</score>",
    "[RESULT] {0}",
)
NOT_STATED = (
    "I would give it a {0}.",
    "It deserves {0} points, perhaps more.",
    "Somewhere between {0} and {1}.",
    "Bewertung: {0}",
    "评分：{0}",
    "Score: high",
    "Score: {2}",
    "Score: {0}\nScore: {1}",
    "[[{0}]] or [[{1}]]",
    "Score: {0}/5",
)


def thousand() -> list[tuple[str, int | None]]:
    """Replies with the score that they state; None: none, two, or one of another scale."""
    chance = random.Random(0)
    forms = [(form, True) for form in STATED] + [(form, False) for form in NOT_STATED]
    pairs = list(product(BEFORE, forms))
    replies = []
    for number in range(1000):
        before, (form, stated) = pairs[number % len(pairs)]
        score, other = chance.sample(range(1, 11), 2)
        said = form.format(score, other, chance.randint(11, 100))
        replies.append((f"{before}\n\n{said}" if before else said, score if stated else None))
    return replies


def test_what_a_thousand_replies_state_is_read_and_nothing_is_guessed() -> None:
    form = score_form(1, 10)
    found = [(read_verdict(split_thoughts(reply)[0], form, is_cut=False), score) for reply, score in thousand()]
    guessed = [verdict for verdict, score in found if verdict.value is not None and verdict.value != score]
    read = sum(verdict.value is not None for verdict, score in found if score is not None)
    assert guessed == []
    assert sum(score is not None for _, score in found) == 500
    assert read == 500
