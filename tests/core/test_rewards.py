"""Rewards: worked numbers, and what must hold whatever the numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import rankdata, zscore

from persyn_hf.core.rewards import combine, normalise, rank_rewards, reward_matrix, to_matrix
from persyn_hf.errors import InputError, RecipeError


NAN = np.nan
tidy = st.floats(-100, 100).map(lambda x: round(x, 3))
matrices = arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(2, 6)), elements=tidy)
HOWS = ("minmax", "zscore", "rank")


def test_minmax_by_hand():
    assert normalise([[2.0, 4.0, 3.0], [-1.0, NAN, -3.0]]) == pytest.approx(
        np.array([[0, 1, 0.5], [1, NAN, 0]]), nan_ok=True
    )


def test_zscore_by_hand():
    """Mean 2, deviations -1, 0, 1, population variance 2/3."""
    assert normalise([[1.0, 2.0, 3.0]], "zscore") == pytest.approx(np.array([[-(1.5**0.5), 0, 1.5**0.5]]))


def test_rank_by_hand():
    found = normalise([[10.0, 20.0, 20.0, 5.0, NAN]], "rank")
    assert found == pytest.approx(np.array([[1 / 3, 2.5 / 3, 2.5 / 3, 0, NAN]]), nan_ok=True)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize(
    "row", [[1.0, 1.0, 1.0], [0.0, 0.0, NAN], [7.0, NAN, NAN], [NAN, NAN, NAN], [-1.0, -1.0000003, -1.0]]
)
def test_a_constant_row_becomes_zero_and_missing_stays_missing(how, row):
    found = normalise([row], how)[0]
    assert np.isnan(found).tolist() == np.isnan(row).tolist()
    assert (found[~np.isnan(found)] == 0).all()


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
    with pytest.raises(RecipeError, match="`normalise` must be minmax, zscore, rank or none, got 'softmax'"):
        normalise([[0.0, 1.0]], "softmax")  # type: ignore[arg-type]


@given(matrices)
def test_against_scipy(matrix):
    varies = np.ptp(matrix, axis=1) > 1e-3
    matrix = matrix[varies]
    for row, z, ranks in zip(matrix, normalise(matrix, "zscore"), normalise(matrix, "rank"), strict=True):
        assert z == pytest.approx(zscore(row))
        assert ranks == pytest.approx((rankdata(row) - 1) / (len(row) - 1))


@given(matrices, st.sampled_from(HOWS), st.randoms())
def test_permuting_teachers_permutes_the_result(matrix, how, random):
    order = list(range(matrix.shape[1]))
    random.shuffle(order)
    assert normalise(matrix[:, order], how) == pytest.approx(normalise(matrix, how)[:, order])
    assert (rank_rewards(matrix[:, order]) == rank_rewards(matrix)[:, order]).all()


@given(matrices, st.sampled_from(HOWS), st.floats(0.1, 10), st.integers(-50, 50))
@settings(max_examples=60)
def test_scale_and_shift_do_not_matter(matrix, how, scale, shift):
    near = (np.ptp(matrix, axis=1) > 0) & (np.ptp(matrix, axis=1) < 0.01)  # may drown in a shift, by design
    matrix = np.round(matrix[~near])
    assert normalise(matrix * scale + shift, how) == pytest.approx(normalise(matrix, how), abs=1e-9)


@given(
    arrays(np.bool_, st.tuples(st.integers(1, 8), st.integers(2, 6))),
    st.floats(0, 0.499),
    st.randoms(),
)
def test_with_binary_quality_and_alpha_below_a_half_right_always_beats_wrong(correct, alpha, random):
    logprob = np.array([[-random.random() * 5 for _ in row] for row in correct])
    rewards = combine(normalise(correct.astype(float)), normalise(logprob), alpha)
    for row, right in zip(rewards, correct, strict=True):
        if right.any() and not right.all():
            assert row[right].min() > row[~right].max()


def test_combine_by_hand():
    assert combine([[1.0, 0.0]], [[0.25, 1.0]], 0.4) == pytest.approx(np.array([[0.7, 0.4]]))


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
