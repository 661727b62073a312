"""Several criteria of quality weighed into one: by hand, and what must hold whatever the numbers."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persyn_hf.core.criteria import mix_criteria
from persyn_hf.core.rewards import recombine
from persyn_hf.errors import InputError


HOWS = ("minmax", "zscore", "rank")
TEACHERS = ("a", "b", "c")


def table(prompts: int = 1, **criteria: list[float | None]) -> dict[str, Any]:
    """Rows by prompt, then teacher."""
    return {
        "prompt_id": [f"p{number}" for number in range(prompts) for _ in TEACHERS],
        "teacher": [*TEACHERS] * prompts,
        **{f"quality_{name}": values for name, values in criteria.items()},
    }


def mixed(columns: dict[str, Any], how: Any = "minmax", **weights: float) -> list[float | None]:
    return mix(columns, weights, how)


def mix(columns: dict[str, Any], weights: dict[str, float], how: Any = "minmax", **more: Any) -> list[float | None]:
    said = {name.removeprefix("quality_"): values for name, values in columns.items() if name.startswith("quality_")}
    return mix_criteria(columns, said, weights, how, **more)


def test_by_hand() -> None:
    columns = table(correct=[1, 1, 0], judge=[4, 10, 7])
    assert mixed(columns, correct=0.7, judge=0.3) == pytest.approx([0.7, 1, 0.15])
    assert mixed(columns, correct=7, judge=3) == pytest.approx([0.7, 1, 0.15]), "only ratios count"
    assert mixed(columns, "rank", correct=0.7, judge=0.3) == pytest.approx([0.7 * 0.75, 0.7 * 0.75 + 0.3, 0.15])
    z = np.sqrt(2) / 2, np.sqrt(1.5)
    assert mixed(columns, "zscore", correct=0.5, judge=0.5) == pytest.approx(
        [0.5 * z[0] - 0.5 * z[1], 0.5 * z[0] + 0.5 * z[1], -0.5 * 2 * z[0]]
    )
    assert mixed(columns, "none", correct=0.5, judge=0.5) == pytest.approx([2.5, 5.5, 3.5])


def test_where_all_are_right_the_judge_decides_whatever_its_weight() -> None:
    columns = table(correct=[1, 1, 1], judge=[7, 8, 6])
    columns["quality_raw"] = mixed(columns, correct=0.99, judge=0.01)
    columns["mean_logprob"] = [0.0, 0.0, 0.0]
    assert recombine(columns, alpha=0)["quality_reward"] == pytest.approx([0.5, 1, 0])


def test_a_criterion_that_says_nothing_of_a_prompt_does_not_count_there() -> None:
    columns = table(2, correct=[None, None, None, 1, 0, 0], judge=[2, 3, 4, 5, 5, 9])
    assert mixed(columns, correct=0.7, judge=0.3) == pytest.approx([0, 0.5, 1, 0.7, 0, 0.3])


def test_an_answer_that_one_criterion_could_not_judge_has_no_quality_and_is_not_low() -> None:
    columns = table(correct=[1, 0, 0], judge=[None, 3, 4])
    assert mixed(columns, correct=0.7, judge=0.3) == [None, 0, pytest.approx(0.3)]
    assert mixed(table(correct=[None] * 3, judge=[None] * 3), correct=1, judge=1) == [None] * 3
    assert mixed(table(correct=[1, None, None], judge=[None, 1, 2]), correct=1, judge=1) == [None] * 3


def test_criteria_that_cancel_tie() -> None:
    columns = table(correct=[0.1, 0.2, 0.3], judge=[0.3, 0.2, 0.1])
    for how in HOWS:
        assert len(set(mixed(columns, how, correct=1, judge=1))) == 1, "rounding is no difference"


def test_what_was_not_asked_is_predicted_where_cells_are_missing_by_design() -> None:
    columns = table(3, correct=[0, 1, None, 0, 1, None, 0, None, 1], judge=[1, 2, None, 1, 2, None, 1, None, 2])
    found = mix(columns, {"correct": 1, "judge": 1}, in_part=True)
    assert [value is None for value in found] == [value is None for value in columns["quality_judge"]]


def test_what_is_no_number() -> None:
    with pytest.raises(InputError, match="the rewards hold nan as `judge` of prompt p0 and teacher `b`"):
        mixed(table(correct=[1, 1, 0], judge=[1, float("nan"), 2]), correct=1, judge=1)


cells = st.none() | st.integers(-1000, 1000).map(lambda number: number / 10)
weights_of = st.integers(1, 100).map(lambda number: number / 10)


@st.composite
def mixes(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, float]]:
    prompts = draw(st.integers(1, 4))
    names = draw(st.lists(st.sampled_from(["correct", "judge", "column", "command"]), min_size=2, unique=True))
    size = prompts * len(TEACHERS)
    columns = {name: draw(st.lists(cells, min_size=size, max_size=size)) for name in names}
    return table(prompts, **columns), {name: draw(weights_of) for name in names}


@given(mixes(), st.sampled_from(HOWS), st.integers(1, 9), st.integers(-50, 50))
def test_neither_the_scale_of_a_criterion_nor_that_of_the_weights_counts(
    drawn: Any, how: Any, times: int, plus: int
) -> None:
    columns, weights = drawn
    name = f"quality_{next(iter(weights))}"
    moved = {**columns, name: [None if value is None else value * times + plus for value in columns[name]]}
    found = mix(columns, weights, how)
    for other in (
        mix(moved, weights, how),
        mix(columns, {k: 4 * w for k, w in weights.items()}, how),
    ):
        assert other == [None if value is None else pytest.approx(value, abs=1e-4) for value in found]


@given(mixes(), st.sampled_from(HOWS))
def test_no_better_answer_is_worth_less(drawn: Any, how: Any) -> None:
    """Of two answers to a prompt, the one that no criterion finds worse has no lower quality."""
    columns, weights = drawn
    found = mix(columns, weights, how)
    raw = [columns[f"quality_{name}"] for name in weights]
    for one in range(len(found)):
        for other in range(one - one % 3, one - one % 3 + 3):
            if found[one] is not None and found[other] is not None:
                said = [(values[one], values[other]) for values in raw if values[one] is not None]
                if all(a >= b for a, b in said):
                    assert found[one] >= found[other] - 1e-4  # type: ignore[operator]


@given(mixes(), st.sampled_from(HOWS))
def test_null_is_what_a_criterion_of_the_prompt_could_not_judge(drawn: Any, how: Any) -> None:
    columns, weights = drawn
    found = mix(columns, weights, how)
    raw = {name: columns[f"quality_{name}"] for name in weights}
    for row, value in enumerate(found):
        cell = slice(row - row % 3, row - row % 3 + 3)
        counting = [values[row] for values in raw.values() if any(said is not None for said in values[cell])]
        assert (value is None) == (not counting or None in counting)
        if how == "minmax" and value is not None:
            assert 0 <= value <= 1 + 1e-12
