"""Two answers side by side: what is marked is what the other one lacks."""

import re
import time
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persyn_hf.space.differences import marked


def marks(text: str) -> list[str]:
    return re.findall("<mark>(.*?)</mark>", text, re.DOTALL)


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ("a b c", "a d c", (["b"], ["d"])),
        ("the sum is 12", "the sum is 13", (["12"], ["13"])),
        ("same", "same", ([], [])),
        ("one two", "one  two", ([], [])),  # white space alone is not marked
        ("", "new words", ([], ["new words"])),
        ("x = <b>1</b>", "x = <b>2</b>", (["1"], ["2"])),
    ],
)
def test_what_the_other_lacks_is_marked(left: str, right: str, expected: tuple[list[str], list[str]]) -> None:
    shown = marked(left, right)
    assert (marks(shown[0]), marks(shown[1]), shown[2]) == (*expected, True)


@given(st.text(max_size=60), st.text(max_size=60))
def test_without_its_marks_each_text_is_as_it_was(left: str, right: str) -> None:
    *shown, is_whole = marked(left, right)
    assert [unescape(re.sub("</?mark>", "", text)) for text in shown] == [left, right] and is_whole
    assert not any("<" in re.sub("</?mark>", "", text) for text in shown)


def test_long_texts_are_compared_for_a_bounded_time() -> None:
    left = " ".join(f"u{number} n" for number in range(2100))
    right = " ".join(f"u{number} m" for number in range(2100))
    assert 15_000 < len(left) < 20_000
    begun = time.monotonic()
    one, other, is_whole = marked(left, right)
    assert time.monotonic() - begun < 5  # 0.2 s alone, 2 s without a bound, and quadratic
    assert not is_whole and "<mark>" in one and "<mark>" in other
    assert marked(left, left)[2]
