"""Which prompts hold an item of a test set: what is found, and what is not."""

import random
import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persyn_hf.core.overlaps import find_overlaps
from persyn_hf.core.wording import words_of


JANET = (
    "Janet's ducks lay 16 eggs per day. She eats three for breakfast every morning and bakes 4,933 muffins for her "
    "friends every day with four. How much does she make at the farmers' market, at $2 per fresh duck egg?"
)
ROBE = "A robe takes 2 bolts of blue fiber and half that much white fiber. How many bolts in total does it take?"
OTHERS = [
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. How many "
    "clips did Natalia sell altogether in April and May?",
    "Weng earns $12 an hour for babysitting. Yesterday, she just did 50 minutes of it. How much did she earn?",
    "Write a letter to a friend about a day at the farmers' market, in 300 words or more, without any commas.",
    "What is the capital of France?",
]


def pairs(prompts: list[str], *sets: list[str], share: float = 0.5) -> list[tuple[int, int, float]]:
    found = [one for _, overlaps in find_overlaps(prompts, sets, share) for one in overlaps]
    return [(one.prompt, one.item, round(one.share, 2)) for one in found]


@pytest.mark.parametrize(
    "hidden",
    [
        JANET,
        JANET.upper(),
        JANET.replace(" ", "\n"),
        JANET.replace("4,933", "4 933").replace("$2", "$ 2"),
        JANET.replace("4,933", "4933").replace("'", "\u2019"),
        JANET.replace(".", "!").replace(",", " -- ").replace("?", ""),
        unicodedata.normalize("NFKD", JANET).replace(" ", "\u00a0"),
        f"Question: {JANET}\nAnswer:",
        f"Solve this, and think first.\n\n{JANET}",
        f"{JANET}\nPlease reason step by step, and put your final answer within \\boxed{{}}.",
        JANET.replace("breakfast", "dinner"),
        JANET.replace("Janet", "Mary").replace("16 eggs", "20 eggs"),
        JANET[: len(JANET) * 2 // 3],
    ],
)
def test_an_item_is_found_in_every_dress(hidden: str) -> None:
    prompts = [OTHERS[0], hidden, *OTHERS[1:]]
    assert [found[:2] for found in pairs(prompts, [ROBE, JANET])] == [(1, 1)]


def test_unrelated_prompts_are_not_found() -> None:
    assert pairs(OTHERS, [JANET, ROBE]) == []
    assert pairs([], [JANET]) == pairs([JANET], []) == pairs([JANET], [[]][0], []) == []


def test_the_share_counts_the_words_of_the_item() -> None:
    """20 words; the first 15 of them are 8 runs, which cover 15 words."""
    item = " ".join(f"w{chr(97 + place)}" for place in range(20))
    part = " ".join(item.split()[:15])
    assert pairs([f"{part} and on it goes"], [item]) == [(0, 0, 0.75)]
    assert pairs([part], [item], share=0.76) == []
    assert pairs([" ".join(item.split()[:12])], [item]) == []  # 12 words: 60 %, and fewer than 13
    assert pairs([" ".join(item.split()[:13])], [item]) == [(0, 0, 0.65)]


def test_of_a_short_item_all_words_are_needed() -> None:
    """10 words: a phrase of 8, which is 80 %, is no copy."""
    item = "how many apples does she have left in total now"
    assert pairs(["so how many apples does she have left in total"], [item]) == []
    assert pairs([f"tell me: {item}, please"], [item]) == [(0, 0, 1.0)]


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("What is 2+2?", True),
        ("what is 2 + 2", True),
        ("Question: What is 2+2?\nAnswer:", True),
        ("What is 2+2? And what is it for?", False),
        ("What is 2+25?", False),
        ("What is 2-2?", False),
        ("Say what is 2+2?", False),
    ],
)
def test_an_item_of_few_words_is_found_as_a_whole_only(prompt: str, found: bool) -> None:
    assert pairs([prompt, *OTHERS], ["What is 2+2?"]) == ([(0, 0, 1.0)] if found else [])


def test_what_many_items_share_is_no_sign_of_one() -> None:
    """Six items with one instruction of 13 words: a prompt with it holds none of them, a prompt with an item does."""
    rule = "Your entire response should be in English and in all lowercase letters only."
    tasks = [
        "Write a poem about the old harbour of a town that no ship visits any more",
        "Explain to a child why the moon seems to follow the car on a long drive",
        "List five reasons why a small shop should keep its books in a plain text file",
        "Describe a quiet morning in a mountain village after the first heavy snow of the year",
        "Tell a joke about two programmers who share one keyboard and never agree on tabs",
        "Draft an invitation to the tenth birthday of a dog that likes children and cake",
    ]
    items = [f"{task}. {rule}" for task in tasks]
    prompts = [f"Name a river. {rule}", f"{tasks[3]}. {rule}", tasks[5]]
    assert pairs(prompts, items) == [(1, 3, 1.0), (2, 5, 1.0)]
    assert pairs(prompts, items[:4]) == [(1, 3, 1.0)]  # four items are too few to tell; half of the words decides


def test_what_many_prompts_share_is_no_sign_either() -> None:
    """A prompt's own template stands in an item, too, and around items of few words."""
    template = "Solve the following mathematical problem step by step and give the final answer alone:"
    prompts = [f"{template} {number} times {number + 1}" for number in range(20)]
    items = [f"{template} a b c d e f g h", "3 times 4", "30 times 31"]
    assert pairs(prompts, items) == [(3, 1, 1.0)]
    assert pairs(prompts[:9], items[:1]) == [
        (place, 0, 0.64) for place in range(9)
    ]  # 14 of 22 words; too few prompts to tell


def test_an_item_that_two_sets_have_is_found_in_both() -> None:
    assert pairs([JANET], [JANET], [ROBE, JANET]) == [(0, 0, 1.0), (0, 2, 1.0)]


def test_prompts_of_several_chunks() -> None:
    prompts = [f"prompt number {place} of many others that differ in it" for place in range(3000)]
    prompts[1023], prompts[1024], prompts[2999] = JANET, f"{JANET} {ROBE}", ROBE
    assert pairs(prompts, [JANET, ROBE]) == [(1023, 0, 1.0), (1024, 0, 1.0), (1024, 1, 1.0), (2999, 1, 1.0)]


WORDS = st.text(
    st.characters(categories=["Ll"], max_codepoint=0x17F, exclude_characters="ıſŉĸ"), min_size=1, max_size=9
)
NUMBERS = st.integers(0, 10**7).map("{:,}".format)
DRESS = st.sampled_from(["upper", "title", "nfkd", "lines", "thousands", "spaces", "punctuation", "quotes"])


def dressed(words: list[str], changes: list[str], draw: random.Random) -> str:
    sep = {"lines": "\n", "spaces": " \t\u00a0 ", "punctuation": draw.choice([", ", "; ", "... ", " (", ") "])}
    text = next((sep[change] for change in changes if change in sep), " ").join(words)
    for change in changes:
        match change:
            case "upper":
                text = text.upper()
            case "title":
                text = text.title()
            case "nfkd":
                text = unicodedata.normalize("NFKD", text)
            case "quotes":
                text = f"\u201c{text}\u201d"
            case "thousands":
                text = re.sub(r"(?<=\d),(?=\d)", draw.choice(["", "\u202f", " "]), text)
    return text


@settings(deadline=None)
@given(
    st.lists(st.one_of(WORDS, NUMBERS), min_size=8, max_size=40),
    st.lists(DRESS, unique=True),
    st.sampled_from(["", "Question: ", "Q 7:\n", "Please help me with my homework. "]),
    st.sampled_from(["", "\n\nAnswer:", "\nThink step by step.", " Thank you!"]),
    st.randoms(use_true_random=False),
)
def test_any_item_of_eight_words_is_found(
    words: list[str], changes: list[str], before: str, after: str, draw: random.Random
) -> None:
    """Numbers with their words between, so that two of them never read as one."""
    item = " x ".join(words)
    hidden = f"{before}{dressed(item.split(), changes, draw)} .{after}"
    assert len(words_of(item)) >= 8
    assert pairs([OTHERS[0], hidden], [item, JANET]) == [(1, 0, 1.0)]
