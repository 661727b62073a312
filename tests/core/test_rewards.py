"""Rewards on tables worked by hand; what holds whatever the numbers is in test_reward_properties.py."""

from typing import Any

import numpy as np
import pytest

from persyn_hf.core.rewards import combine, learnability, normalise, rank_rewards, recombine, reward_matrix, to_matrix
from persyn_hf.errors import InputError, RecipeError


NAN = np.nan
HOWS = ("minmax", "zscore", "rank")
# prompts p and q, teachers a, b and c: c has no answer to q, a's is unjudged there
ROWS: dict[str, list[Any]] = {
    "prompt_id": ["p", "p", "p", "q", "q"],
    "teacher": ["a", "b", "c", "b", "a"],
    "quality_raw": [1.0, 0.0, 1.0, 0.5, None],
    "mean_logprob": [-2.0, -1.0, -4.0, -1.0, -3.0],
    "sum_logprob": [-4.0, -10.0, -8.0, 0.0, -6.0],
    "sum_min_rank": [8.0, 15.0, 40.0, 0.0, 6.0],
}


def test_minmax_by_hand():
    assert normalise([[2.0, 4.0, 3.0], [-1.0, NAN, -3.0]]) == pytest.approx(
        np.array([[0, 1, 0.5], [1, NAN, 0]]), nan_ok=True
    )


def test_zscore_by_hand():
    """Mean 2, deviations -1, 0, 1, population variance 2/3; and over two cells -1 and 1, whatever they hold."""
    expected = np.array([[-(1.5**0.5), 0, 1.5**0.5], [1, NAN, -1]])
    assert normalise([[1.0, 2.0, 3.0], [700.0, NAN, -4.0]], "zscore") == pytest.approx(expected, nan_ok=True)


def test_ranks_of_a_tie_share_their_mean():
    """From the worst: 5, 10, then two 20s on places 2 and 3 of 0 to 3."""
    found = normalise([[10.0, 20.0, 20.0, 5.0, NAN], [1.0, 1.0, 1.0, 2.0, NAN]], "rank")
    expected = np.array([[1 / 3, 2.5 / 3, 2.5 / 3, 0, NAN], [1 / 3, 1 / 3, 1 / 3, 1, NAN]])
    assert found == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize(
    "row", [[1.0, 1.0, 1.0], [0.0, 0.0, NAN], [7.0, NAN, NAN], [NAN, NAN, NAN], [-1.0, -1.0000003, -1.0]]
)
def test_a_constant_row_becomes_zero_and_missing_stays_missing(how, row):
    found = normalise([row], how)[0]
    assert np.isnan(found).tolist() == np.isnan(row).tolist()
    assert (found[~np.isnan(found)] == 0).all()


@pytest.mark.parametrize("how", HOWS)
def test_one_teacher_or_no_prompt(how):
    assert normalise([[3.0], [NAN], [-5.0]], how) == pytest.approx(np.array([[0], [NAN], [0]]), nan_ok=True)
    assert normalise(np.empty((0, 3)), how).shape == (0, 3)
    assert rank_rewards([[3.0], [NAN]]).tolist() == [[1], [0]]
    assert rank_rewards(combine(np.empty((0, 3)), np.empty((0, 3)), 0.4)).shape == (0, 3)


@pytest.mark.parametrize("how", HOWS)
def test_values_that_differ_by_rounding_tie(how):
    """0.1 + 0.2 is 0.30000000000000004; and a float32 model's -1.5 may be -1.5000001."""
    found = normalise([[0.1 + 0.2, 0.3, 0.0], [-1.5, -1.5000001, -2.0]], how)
    assert (found[:, 0] == found[:, 1]).all() and (found[:, 0] > found[:, 2]).all()


def test_what_a_large_shift_drowns_ties():
    """Differences below a millionth of the largest magnitude count as none."""
    assert normalise([[0.0, 1e-5], [1.0, 1.00001], [100.0, 100.00001]]).tolist() == [[0, 1], [0, 1], [0, 0]]


def test_how_near_is_a_tie_can_be_said():
    row = [[1.0, 1.0000008, 1.0000016, 1.1]]
    assert normalise(row, "rank").tolist() == [[1 / 3, 1 / 3, 1 / 3, 1]], "the first and the third chain by the second"
    assert normalise(row, "rank", near_tie=0.0).tolist() == [[0, 1 / 3, 2 / 3, 1]]
    assert normalise([[0.0, 0.5, 0.9, 1.0]], near_tie=0.2).tolist() == [[0, 0.5 / 0.9, 1, 1]]
    columns = ROWS | {"quality_raw": [1.0, 1.0000008, *ROWS["quality_raw"][2:]]}
    both = [recombine(columns, 0.0, near_tie=share)["quality_reward"][:2] for share in (1e-6, 0.0)]
    assert both[0][0] == both[0][1] and both[1][0] < both[1][1]


def test_none_changes_nothing():
    assert normalise([[3.0, 3.0], [NAN, -2.0]], "none") == pytest.approx(np.array([[3, 3], [NAN, -2]]), nan_ok=True)


def test_infinite_rewards_are_refused():
    with pytest.raises(InputError) as caught:
        normalise([[0.0, 1.0], [0.0, -np.inf]])
    assert str(caught.value) == (
        "rewards must be finite or missing, found -inf for prompt number 1, teacher number 1; "
        "score that response again or leave it out"
    )


def test_an_unknown_normalisation_is_refused():
    with pytest.raises(RecipeError, match="`normalisation` must be minmax, zscore, rank or none, got 'softmax'"):
        normalise([[0.0, 1.0]], "softmax")  # type: ignore[arg-type]


def test_combine_by_hand():
    assert combine([[1.0, 0.0]], [[0.25, 1.0]], 0.4) == pytest.approx(np.array([[0.7, 0.4]]))


def test_rewards_that_differ_by_rounding_tie_in_rank_and_best_teacher():
    """0.6 * 0 + 0.4 * 0.9 is 0.36000000000000004, 0.6 * 0.6 + 0.4 * 0 is 0.36."""
    assert 0.4 * 0.9 != 0.6 * 0.6
    reward = combine([[0.6, 0.0, 0.0], [0.0, 0.6, 0.0]], [[0.0, 0.9, 0.0], [0.9, 0.0, 0.0]], 0.4)
    assert rank_rewards(reward).tolist() == [[1, 1, 3]] * 2
    assert reward.argmax(axis=1).tolist() == [0, 0], "the first of equals"


def test_one_sided_alpha_needs_one_side_only():
    assert combine([[1.0, 0.0]], [[NAN, NAN]], 0).tolist() == [[1.0, 0.0]]
    assert combine(None, [[0.5, 1.0]], 1).tolist() == [[0.5, 1.0]]
    assert np.isnan(combine([[NAN]], [[1.0]], 0.4)).all()


def test_combine_says_what_is_missing():
    with pytest.raises(InputError, match="alpha 0.4 needs learnability rewards, found none; measure them, or set"):
        combine([[1.0]], None, 0.4)
    with pytest.raises(RecipeError, match="`alpha` must be a number from 0 to 1, got 1.5"):
        combine([[1.0]], [[1.0]], 1.5)


def test_ranks_by_hand():
    assert rank_rewards([[0.7, 0.9, 0.7, NAN, 0.1]]).tolist() == [[2, 1, 2, 0, 4]]


def test_learnability_by_hand():
    """Rank-surprisal: 8 / 4, 15 / 10, 40 / 8 and 6 / 6, less is better; without any surprisal there is no ratio."""
    assert learnability(ROWS) == pytest.approx([-2, -1, -4, -1, -3])
    assert learnability(ROWS, "rank_surprisal") == pytest.approx([-2, -1.5, -5, NAN, -1], nan_ok=True)
    assert np.isnan(learnability(ROWS, "none")).all()


def test_recombine_by_hand():
    """Learnability of p, min-max: -2 is 2/3 of the way from -4 to -1."""
    found = recombine(ROWS, 0.4)
    assert list(found) == ["quality_reward", "learnability_reward", "reward", "rank"]
    assert found["quality_reward"] == [1, 0, 1, 0, None]
    assert found["learnability_reward"] == pytest.approx([2 / 3, 1, 0, 1, 0])
    assert found["reward"] == pytest.approx([0.6 + 0.4 * 2 / 3, 0.4, 0.6, 0.4, None])
    assert found["rank"] == [1, 3, 2, 1, None]
    assert recombine(ROWS, 1.0)["rank"] == [2, 1, 3, 1, 2]
    assert recombine(ROWS, 0.0, measure="none")["rank"] == [1, 3, 1, 1, None]
    raw = recombine(ROWS, 0.5, "none", "rank_surprisal")
    assert raw["reward"] == pytest.approx([-0.5, -0.75, -2, None, None])
    assert recombine({name: [] for name in ROWS}, 0.4)["rank"] == []


@pytest.mark.parametrize("column", ["quality_raw", "mean_logprob"])
@pytest.mark.parametrize("value", [NAN, np.inf, -np.inf, 1e308, -2e100])
def test_a_value_that_is_no_number_is_refused_by_name(column, value):
    with pytest.raises(InputError) as caught:
        recombine(ROWS | {column: [*ROWS[column][:2], value, *ROWS[column][3:]]}, 0.4)
    assert str(caught.value) == (
        f"the rewards hold {value} as `{column}` of prompt p and teacher `c`, a finite number up to 1e+100 "
        "is needed, or null where it is missing; score that response again or leave it out"
    )


def test_stored_rewards_that_are_no_numbers_are_refused_by_name():
    with pytest.raises(InputError, match="the rewards hold nan as `value` of prompt q and teacher `a`, a finite"):
        to_matrix(["p", "q"], ["a", "a"], [None, NAN], ["a"])


def test_rows_to_matrix_keeps_the_order_of_prompts_and_pool():
    ids, matrix = to_matrix(["q", "p", "q"], ["b", "a", "a"], [1.0, None, 2.0], ["a", "b"])
    assert ids == ["q", "p"]
    assert matrix == pytest.approx(np.array([[2, 1], [NAN, NAN]]), nan_ok=True)


def test_rows_to_matrix_without_rows():
    ids, matrix = to_matrix([], [], [], ["a", "b"])
    assert ids == [] and matrix.shape == (0, 2)


def test_rows_to_matrix_refuses_strangers_and_doubles():
    with pytest.raises(InputError) as caught:
        to_matrix(["p"], ["c"], [1.0], ["a", "b"])
    assert str(caught.value) == (
        "the rewards name the teacher `c`, the pool holds a, b; "
        "add it to `teachers`, or score the pool's responses anew"
    )
    with pytest.raises(InputError) as caught:
        to_matrix(["o", "p", "p"], ["a", "b", "b"], [1.0, 1.0, 2.0], ["a", "b"])
    assert str(caught.value) == (
        "the rewards hold 2 rows for prompt p and teacher `b`, one is needed; keep the selected response only"
    )


def test_alpha_none_takes_the_stored_reward():
    columns = {
        "prompt_id": ["p", "p"],
        "teacher": ["a", "b"],
        "reward": [0.5, None],
        "quality_reward": [1.0, 0.0],
        "learnability_reward": [0.0, 1.0],
    }
    assert reward_matrix(columns, ["a", "b"], None)[1] == pytest.approx(np.array([[0.5, NAN]]), nan_ok=True)
    assert reward_matrix(columns, ["a", "b"], 0.25)[1] == pytest.approx(np.array([[0.75, 0.25]]))


def test_terms_that_cancel_tie() -> None:
    """By z-scores two teachers are 1 and -1 on each part, so at alpha 0.5 both are 0: rounding decides nothing."""
    quality, learned = normalise([[1.0, 0.0]], "zscore"), normalise([[-0.9, -0.4]], "zscore")
    assert rank_rewards(combine(quality, learned, 0.5)).tolist() == [[1, 1]]
    quality, learned = normalise([[1.0, 0.0, 1.0]], "zscore"), normalise([[-0.7, -0.5, -0.7]], "zscore")
    assert rank_rewards(combine(quality, learned, 0.5)).tolist() == [[1, 1, 1]]
