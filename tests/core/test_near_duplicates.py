"""Groups of texts that nearly say the same."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from persyn_hf.core.near_duplicates import BANDS, ROWS, group_near_duplicates, signatures, similar_pairs
from persyn_hf.core.wording import encode


WORDS = [f"w{chr(97 + place // 26)}{chr(97 + place % 26)}" for place in range(400)]


def text_of(*numbers: int) -> str:
    return " ".join(WORDS[number] for number in numbers)


def test_texts_of_one_wording_are_one_group() -> None:
    texts = [
        "A dog, and a cat and a bird.",
        "Something else entirely",
        "a dog\nand A CAT and a bird",
        "",
        "a dog",
        "A dog!",
    ]
    assert group_near_duplicates(texts).tolist() == [0, 1, 0, 3, 4, 4]
    assert group_near_duplicates([]).tolist() == []
    assert group_near_duplicates(["", " ?", ""]).tolist() == [0, 1, 2]  # without words there is nothing to compare


def test_the_estimate_is_near_the_jaccard_index() -> None:
    """Runs of 5: of 104 words 100 runs. With another last 20 words, 80 of 120 are common: 0.667."""
    first, second = range(104), [*range(84), *range(200, 220)]
    found = signatures(encode([text_of(*first), text_of(*second), text_of(*range(300, 404 - 4))]))
    assert found.shape == (3, BANDS * ROWS)
    assert abs((found[0] == found[1]).mean() - 80 / 120) < 0.1
    assert (found[0] == found[2]).mean() == 0


def test_a_word_changed_in_a_long_text_is_a_near_duplicate_and_a_quarter_is_not() -> None:
    """Of 100 runs, 5 have the word: 95 of 105. With 26 words others: 74 of 126, 0.59."""
    texts = [text_of(*range(104)), text_of(*range(50), 200, *range(51, 104)), text_of(*range(78), *range(200, 226))]
    assert group_near_duplicates(texts).tolist() == [0, 0, 2]


def test_a_group_is_a_chain() -> None:
    """Neighbours have 90 of 110 runs in common; the ends 70 of 130."""
    texts = [text_of(*range(start, start + 104)) for start in (0, 10, 20, 30)]
    assert group_near_duplicates(texts).tolist() == [0, 0, 0, 0]
    assert group_near_duplicates([texts[0], texts[3]]).tolist() == [0, 1]


def test_many_alike_cost_no_more_than_a_few() -> None:
    """All pairs of 3,000 would be 4.5 million; each text is compared with two others of its bucket at most."""
    found = signatures(encode([text_of(*range(40))] * 3000))
    assert len(similar_pairs(found)) < 2 * 3000
    assert set(group_near_duplicates([text_of(*range(40))] * 3000)) == {0}


def test_of_random_pairs_those_above_the_threshold_are_found() -> None:
    """300 pairs at 0.82 (10 words of 104 others): all are found; 300 at 0.33 (52 others): none."""
    rng = np.random.default_rng(0)
    for changed, share in ((10, 1.0), (52, 0.0)):
        texts = []
        for _ in range(300):
            words = [f"x{number}" for number in rng.integers(0, 10**9, 104 + changed)]
            words = [word.translate(str.maketrans("0123456789", "abcdefghij")) for word in words]
            texts += [" ".join(words[:104]), " ".join(words[changed:])]
        groups = group_near_duplicates(texts)
        assert (groups[::2] == groups[1::2]).mean() == share


@given(st.lists(st.sampled_from(["one two three four five six seven", "eight nine ten", "", "eleven"]), max_size=9))
def test_a_group_is_named_by_its_first_text(texts: list[str]) -> None:
    expected = [texts.index(text) if text else place for place, text in enumerate(texts)]
    assert group_near_duplicates(texts).tolist() == expected
