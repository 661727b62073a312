"""The wording of a text: what changes it, and what does not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persyn_hf.core.wording import encode, encode_in_chunks, grams_of, wholes_of, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Q: It's 1,000 + 5.", "it s 1000 + 5"),
        ("**Question 12:**\n\nWhat is 2+2?\n\n### Answer:", "what is 2 + 2"),
        ("What is 2-2? 2 \u2212 2, 2\u20132", "what is 2 - 2 2 - 2 2 - 2"),
        ("1 000 000 people, 1\u202f000 000, 1'000'000", "1000000 people 1000000 1000000"),
        ("3.5 and 35; 12. 5", "3.5 and 35 12 5"),
        ("10 20 and 5 12", "10 20 and 5 12"),
        ("ＦＵＬＬ ｗｉｄｔｈ １２", "full width 12"),
        ("Caf\u00e9 cafe\u0301 STRASSE straße", "cafe cafe strasse strasse"),
        ("zero\u200bwidth soft\u00adhyphen", "zerowidth softhyphen"),
        ("well-known x-y $x^2$ \\frac{1}{2}", "well known x y x 2 frac 1 2"),
        ("一共有多少 apples", "一 共 有 多 少 apples"),
        ("¿?!… \n", ""),
        ("The task: count", "the task count"),
        ("Question:", ""),
    ],
)
def test_words(text: str, words: str) -> None:
    assert " ".join(words_of(text)) == words


def test_a_sum_is_no_difference() -> None:
    sums, differences, others = wholes_of(encode(["What is 5 + 3?", "What is 5 - 3?", "what is 5+3"]))
    assert sums == others != differences


@given(st.text(), st.lists(st.sampled_from([" ", "\n", "\t", "\u00a0", "  \r\n", "\u3000"]), min_size=1))
def test_the_kind_and_number_of_spaces_never_count(text: str, spaces: list[str]) -> None:
    parts = text.split()
    other = "".join(part + spaces[place % len(spaces)] for place, part in enumerate(parts))
    assert words_of(other) == words_of(" ".join(parts))


@given(st.text(), st.text())
def test_codes_are_of_the_words(one: str, other: str) -> None:
    """Equal words have equal codes, and the texts before and after do not matter."""
    words = encode([one, other, one])
    assert len(words.codes) == 2 * len(words_of(one)) + len(words_of(other))
    first, second, third = wholes_of(words)
    assert first == third
    assert (first == second) == (words_of(one) == words_of(other))
    assert (first == 0) == (not words_of(one))


def test_runs_stay_within_a_text() -> None:
    words = encode(["a b c", "", "b c a b c", "a b"])
    grams, places = grams_of(words, 3)
    assert places.tolist() == [0, 3, 4, 5]
    assert grams[0] == grams[3]
    assert len(set(grams.tolist())) == 3
    assert grams_of(encode(["a b"]), 3)[0].tolist() == []


def test_left_out_words_are_no_part_of_the_whole() -> None:
    words = encode(["solve now two plus two", "two plus two", "two plus"])
    kept = np.array([False, False, True, True, True, True, True, True, True, True])
    first, second, third = wholes_of(words, kept)
    assert first == second != third


def test_chunks_hold_all_texts_once() -> None:
    texts = [f"text {place}" for place in range(2500)] + ["long " * 2**19, "after"]
    chunks = list(encode_in_chunks(texts))
    assert [start for start, _ in chunks] == [0, 1024, 2048, 2501]
    assert np.concatenate([words.codes for _, words in chunks]).tolist() == encode(texts).codes.tolist()
    assert list(encode_in_chunks([])) == []
