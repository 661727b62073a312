"""Rewards, recombined rewards and comparisons, from Python; numbers are worked by hand."""

from functools import partial
from typing import Any

import pytest

import persyn_hf
from persyn_hf.errors import InputError, PersynError
from persyn_hf.schemas import PAIRS, REWARDS


def cells(*values: tuple[str, str, float | None, float | None]) -> list[dict[str, Any]]:
    names = ("prompt", "teacher", "quality", "learnability")
    return [dict(zip(names, cell, strict=True)) for cell in values]


TWO = cells(("p", "a", 1, -0.9), ("p", "b", 0, -0.4))
THREE = cells(
    ("p", "a", 1, -3.0), ("p", "b", 1, -1.0), ("p", "c", 0, -2.0), ("q", "a", None, -1.0), ("q", "b", 1, -2.0)
)


def test_quality_and_learnability_are_weighed() -> None:
    assert persyn_hf.rewards(TWO)["reward"][:] == pytest.approx([0.6, 0.4])
    assert persyn_hf.rewards(TWO, alpha=0.75)["rank"][:] == [2, 1]


def test_rewards_are_of_their_contract_and_a_missing_value_is_no_zero() -> None:
    made = persyn_hf.rewards(THREE)
    REWARDS.check(made, "rewards")
    assert made["reward"][:] == pytest.approx([0.6, 1.0, 0.2, None, 0.0])
    assert made["rank"][:] == [2, 1, 3, None, 1]
    assert set(made["split"]) == {"calibration"}


def test_what_has_no_weight_may_be_absent() -> None:
    quality = [{key: row[key] for key in ("prompt", "teacher", "quality")} for row in TWO]
    learned = [{key: row[key] for key in ("prompt", "teacher", "learnability")} for row in TWO]
    assert persyn_hf.rewards(quality, alpha=0)["reward"][:] == [1, 0]
    assert persyn_hf.rewards(learned, alpha=1)["reward"][:] == [0, 1]
    with pytest.raises(PersynError, match="`rows` has no column `learnability`, whose weight is alpha"):
        persyn_hf.rewards(quality)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"alpha": "0.4"}, "`alpha` must be a number, got str '0.4'"),
        ({"near_tie": None}, "`near_tie` must be a number, got NoneType None"),
        ({"alpha": 1.5}, "`alpha` must be a number from 0 to 1, got 1.5"),
        ({"normalisation": "max"}, "`normalisation` must be minmax, zscore, rank or none, got 'max'"),
    ],
)
def test_a_setting_that_is_not_valid_is_refused(option: dict[str, Any], said: str) -> None:
    made = persyn_hf.rewards(TWO)
    for call in (partial(persyn_hf.rewards, TWO), partial(persyn_hf.recombine, made)):
        with pytest.raises(PersynError) as error:
            call(**option)
        assert said in str(error.value)


def test_stored_rewards_are_recombined_as_if_they_were_made_so() -> None:
    made = persyn_hf.rewards(THREE, alpha=0.4)
    for alpha, how in ((0.0, "minmax"), (0.9, "rank"), (1.0, "zscore")):
        again = persyn_hf.recombine(made.to_pandas(), alpha, normalisation=how)
        assert again.to_list() == persyn_hf.rewards(THREE, alpha=alpha, normalisation=how).to_list()


def test_another_measure_needs_what_stored_rewards_have() -> None:
    rows = {
        "prompt_id": ["p", "p"],
        "teacher": ["a", "b"],
        "quality_raw": [1.0, 1.0],
        "mean_logprob": [-1.0, -2.0],
        "sum_logprob": [-10.0, -20.0],
        "num_tokens": [10, 10],
        "sum_min_rank": [30.0, 20.0],
    }
    ratio = persyn_hf.recombine(rows, 1.0, measure="rank_surprisal")
    assert ratio["reward"][:] == [0, 1], "-30 / 10 is less than -20 / 20"
    del rows["sum_min_rank"]
    with pytest.raises(PersynError, match="`rewards` has no column `sum_min_rank`"):
        persyn_hf.recombine(rows, 1.0, measure="rank_surprisal")


def test_what_no_row_has_is_refused_where_it_counts() -> None:
    made = persyn_hf.rewards(TWO)
    with pytest.raises(InputError) as error:
        persyn_hf.recombine(made, measure="rank_surprisal")
    assert str(error.value) == (
        "`rewards`: `sum_logprob` and `sum_min_rank` are null in every row, and alpha 0.4 with the measure "
        "rank_surprisal needs them; give rewards of a run that measured them, or set alpha 0"
    )
    assert persyn_hf.recombine(made, 0, measure="rank_surprisal")["reward"][:] == [1, 0]
    quality = [{key: row[key] for key in ("prompt", "teacher", "quality")} for row in TWO]
    with pytest.raises(InputError, match="`mean_logprob` is null in every row, and alpha 0.3 with the measure"):
        persyn_hf.recombine(persyn_hf.rewards(quality, alpha=0), 0.3)


def test_teachers_are_compared_two_by_two() -> None:
    made = persyn_hf.pairs(persyn_hf.rewards(THREE), THREE)
    PAIRS.check(made, "pairs")
    gap = {}
    for row in made:
        better, worse = (row["teacher_b"], row["teacher_a"])
        gap[row["prompt"], *sorted((better, worse))] = row["margin"] if better > worse else -row["margin"]
        assert row["label"] == (row["margin"] > 0)
    expected = {("p", "a", "b"): 0.4, ("p", "a", "c"): -0.4, ("p", "b", "c"): -0.8}
    assert gap == pytest.approx(expected), "q has one reward only"
    assert set(persyn_hf.pairs(persyn_hf.rewards(THREE), THREE, tie=1)["label"]) == {0.5}


def test_prompts_come_from_the_rewards_or_beside_them() -> None:
    made = persyn_hf.rewards(TWO)
    own = persyn_hf.pairs([row | {"prompt": "p"} for row in made])
    for prompts in (["p"], TWO, {"prompt": ["p", "other"]}):
        assert persyn_hf.pairs(made, prompts).to_list() == own.to_list()
    with pytest.raises(PersynError, match="no `prompts` were given; give the prompts that the rewards are about"):
        persyn_hf.pairs(made)
    with pytest.raises(PersynError, match="the rewards name 1 prompts"):
        persyn_hf.pairs(made, ["other"])
    with pytest.raises(PersynError, match="pairs.tie: must be at least 0"):
        persyn_hf.pairs(made, ["p"], tie=-1)


def test_a_dataset_that_was_made_can_be_worked_on() -> None:
    made = persyn_hf.pairs(persyn_hf.rewards(TWO), ["p"])
    assert made.map(lambda row: {"twice": 2 * row["margin"]}).filter(lambda row: row["twice"]).num_rows == 1
