"""Colours of teachers stand out from light and dark pages, and no two teachers look the same as far as can be."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persyn_hf.recipe.roles import Teacher
from persyn_hf.report.colours import (
    ALIKE,
    DARKEST,
    LIGHTEST,
    OF_LONG_COT,
    PATTERNS,
    difference,
    luminance,
    teacher_fills,
)


ROUNDED = 0.004  # 1/255 of a channel, at most
PAGES = ("#ffffff", "#f5f6f8", "#15171c", "#1e2128")  # of the Space, light and dark, raised too


def contrast(one: str, other: str) -> float:
    """As WCAG 2.2 defines it."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_luminance_and_contrast_are_those_of_the_standard() -> None:
    assert luminance("#ffffff") == pytest.approx(1) and luminance("#000000") == 0
    assert luminance("#808080") == pytest.approx(0.2158605, abs=1e-6)
    assert contrast("#ffffff", "#000000") == pytest.approx(21)


def test_red_and_green_are_alike_to_those_who_confuse_them() -> None:
    assert difference("#a05000", "#707000") < ALIKE < difference("#ffffff", "#000000")
    assert difference("#123456", "#123456") == 0


pools = st.lists(
    st.tuples(st.sampled_from("abcdefghij"), st.sampled_from([None, 0.5, 1.0, 7.0, 72.0]), st.booleans()),
    min_size=1,
    max_size=30,
)


@settings(max_examples=40)
@given(pools)
def test_every_teacher_stands_out_from_every_page(members: list[tuple[str, float | None, bool]]) -> None:
    for fill in teacher_fills(pool(members)).values():
        assert DARKEST - ROUNDED <= luminance(fill.colour) <= LIGHTEST + ROUNDED
        assert min(contrast(fill.colour, page) for page in PAGES) >= 3.0


@settings(max_examples=40)
@given(pools)
def test_who_looks_alike_has_another_pattern_as_far_as_there_are_some(
    members: list[tuple[str, float | None, bool]],
) -> None:
    teachers = pool(members)
    fills = teacher_fills(teachers)
    assert list(fills) == [teacher.name for teacher in teachers]
    for place, teacher in enumerate(teachers):
        mine = fills[teacher.name]
        alike = [fills[o.name] for o in teachers[:place] if difference(fills[o.name].colour, mine.colour) < ALIKE]
        patterns = OF_LONG_COT if teacher.long_cot else PATTERNS
        taken = {other.pattern for other in alike}
        assert mine.pattern in patterns and (mine.pattern not in taken or set(patterns) <= taken)


def test_nineteen_teachers_of_six_families_are_told_apart() -> None:
    families = {"qwen": 6, "llama": 4, "gemma": 3, "mistral": 3, "phi": 2, "olmo": 1}
    teachers = pool([(name, 0.5 * 2**n, n == 3) for name, number in families.items() for n in range(number)])
    fills = teacher_fills(teachers)
    for one, other in combinations(fills.values(), 2):
        assert one.pattern != other.pattern or difference(one.colour, other.colour) >= ALIKE


def pool(members: list[tuple[str, float | None, bool]]) -> list[Teacher]:
    return [
        Teacher.model_construct(name=f"{family}-{place}", family=family, params_b=size, long_cot=long)
        for place, (family, size, long) in enumerate(members)
    ]
