"""What must hold of rewards whatever the numbers."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import rankdata, zscore

from persyn_hf.core.assignment import route
from persyn_hf.core.rewards import combine, normalise, rank_rewards, recombine


HOWS = ("minmax", "zscore", "rank")
hows, alphas = st.sampled_from(HOWS), st.floats(0, 1)
# Thousandths up to 100: differences stay above a millionth of the magnitude, also after the shifts below.
tidy = st.integers(-100_000, 100_000).map(lambda thousandths: thousandths / 1000)
few = st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.1 + 0.2, 0.5, 1.0])  # ties, and one by rounding
shapes = st.tuples(st.integers(1, 6), st.integers(1, 6))


def with_gaps(elements: st.SearchStrategy[float]) -> st.SearchStrategy[np.ndarray]:
    """Matrices with missing cells, whole rows and columns among them."""
    cells = st.one_of(st.just(np.nan), elements, elements, elements)
    return shapes.flatmap(lambda shape: arrays(np.float64, shape, elements=cells))


matrices = with_gaps(tidy) | with_gaps(few)


def pairs_of_matrices() -> st.SearchStrategy[tuple[np.ndarray, np.ndarray]]:
    cells = st.one_of(st.just(np.nan), tidy, few)
    return shapes.flatmap(lambda shape: st.tuples(*[arrays(np.float64, shape, elements=cells)] * 2))


def same(found: Any, expected: Any, tolerance: float = 1e-9) -> bool:
    return bool(np.allclose(found, expected, rtol=0, atol=tolerance, equal_nan=True))


@given(matrices)
def test_against_scipy(matrix: np.ndarray) -> None:
    for row, z, ranks, minmax in zip(matrix, *(normalise(matrix, how) for how in ("zscore", "rank", "minmax"))):  # noqa: B905
        known = ~np.isnan(row)
        values = np.round(row[known], 9)
        if len(np.unique(values)) > 1:
            assert same(z[known], zscore(values))
            assert same(ranks[known], (rankdata(values) - 1) / (len(values) - 1))
            assert same(minmax[known], (values - values.min()) / np.ptp(values))


@given(matrices, hows)
def test_missing_stays_missing_and_nothing_else_is(matrix: np.ndarray, how: Any) -> None:
    found = normalise(matrix, how)
    assert (np.isnan(found) == np.isnan(matrix)).all()
    assert ((rank_rewards(found) == 0) == np.isnan(matrix)).all()


@given(matrices, hows)
def test_order_and_range(matrix: np.ndarray, how: Any) -> None:
    """Better stays better; a row is all 0, or spans 0 to 1 (zscore: has mean 0 and deviation 1)."""
    for row, found in zip(np.round(matrix, 9), normalise(matrix, how), strict=True):
        known = ~np.isnan(row)
        assert (np.sign(np.subtract.outer(row, row)) == np.sign(np.subtract.outer(found, found)))[
            np.ix_(known, known)
        ].all()
        if len(np.unique(row[known])) < 2:
            assert (found[known] == 0).all()
        elif how == "zscore":
            assert same([found[known].mean(), found[known].std()], [0, 1])
        elif how == "minmax":
            assert (found[known].min(), found[known].max()) == (0, 1)
        else:
            assert 0 <= found[known].min() < found[known].max() <= 1


@given(pairs_of_matrices(), hows, alphas, st.randoms(use_true_random=False))
def test_permuting_teachers_permutes_the_result(pair: Any, how: Any, alpha: float, random: Any) -> None:
    quality, learned = pair
    order = list(range(quality.shape[1]))
    random.shuffle(order)
    plain = combine(normalise(quality, how), normalise(learned, how), alpha)
    permuted = combine(normalise(quality[:, order], how), normalise(learned[:, order], how), alpha)
    assert same(permuted, plain[:, order])
    assert (rank_rewards(permuted) == rank_rewards(plain)[:, order]).all()


@given(matrices, hows, st.floats(0.1, 10), st.integers(-50, 50))
def test_shift_and_scale_do_not_matter(matrix: np.ndarray, how: Any, scale: float, shift: int) -> None:
    assert same(normalise(matrix * scale + shift, how), normalise(matrix, how))


@given(matrices, hows, st.integers(-200, 200))
def test_scale_does_not_matter_over_the_range_of_floats(matrix: np.ndarray, how: Any, exponent: int) -> None:
    assert same(normalise(matrix * 10.0**exponent, how), normalise(matrix, how))


@given(pairs_of_matrices(), hows)
def test_alpha_0_ranks_by_quality_alone_and_alpha_1_by_learnability_alone(pair: Any, how: Any) -> None:
    quality, learned = (normalise(matrix, how) for matrix in pair)
    assert (rank_rewards(combine(quality, learned, 0)) == rank_rewards(quality)).all()
    assert (rank_rewards(combine(quality, None, 0)) == rank_rewards(quality)).all()
    assert (rank_rewards(combine(quality, learned, 1)) == rank_rewards(learned)).all()


@given(
    shapes.flatmap(lambda shape: st.tuples(arrays(np.bool_, shape), arrays(np.float64, shape, elements=tidy))),
    st.floats(0, 0.5 - 1e-8),  # closer to a half the difference is rounding: 1e-9 of the larger reward
)
def test_with_binary_quality_and_alpha_below_a_half_right_beats_wrong(pair: Any, alpha: float) -> None:
    correct, logprob = pair
    rewards = combine(normalise(correct.astype(float)), normalise(logprob), alpha)
    for row, ranks, right in zip(rewards, rank_rewards(rewards), correct, strict=True):
        if right.any() and not right.all():
            assert row[right].min() > row[~right].max()
            assert ranks[right].max() < ranks[~right].min()


@given(with_gaps(few), with_gaps(few), alphas)
def test_rank_1_best_teacher_and_differences_agree_on_ties(one: np.ndarray, other: np.ndarray, alpha: float) -> None:
    """Rewards are equal, or further apart than rounding."""
    rows, columns = (min(sizes) for sizes in zip(one.shape, other.shape, strict=True))
    reward = combine(normalise(one)[:rows, :columns], normalise(other)[:rows, :columns], alpha)
    reward = reward[~np.isnan(reward).all(axis=1)]
    ranks = rank_rewards(reward)
    assert (ranks[np.arange(len(reward)), route(reward).teacher] == 1).all()
    for row, rank in zip(reward, ranks, strict=True):
        gaps = np.diff(np.sort(row[~np.isnan(row)]))
        assert ((gaps == 0) | (gaps > 1e-9 * np.nanmax(np.abs(row)))).all()
        assert len(np.unique(rank[rank > 0])) == 1 + (gaps > 0).sum()


@given(pairs_of_matrices(), st.sampled_from([*HOWS, "none"]), alphas, st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_recombine_does_by_rows_what_the_matrices_say(pair: Any, how: Any, alpha: float, random: Any) -> None:
    """In any order of the rows; a cell without a row is a missing one."""
    quality, learned = pair
    cells = [cell for cell in np.ndindex(*quality.shape) if not np.isnan([quality[cell], learned[cell]]).all()]
    random.shuffle(cells)
    columns = {
        "prompt_id": [f"p{row}" for row, _ in cells],
        "teacher": [f"t{column}" for _, column in cells],
        "quality_raw": [None if np.isnan(quality[cell]) else quality[cell] for cell in cells],
        "mean_logprob": [None if np.isnan(learned[cell]) else learned[cell] for cell in cells],
    }
    found = recombine(columns, alpha, how)
    reward = combine(normalise(quality, how), normalise(learned, how), alpha)
    assert same([np.nan if value is None else value for value in found["reward"]], [reward[cell] for cell in cells])
    assert [rank or 0 for rank in found["rank"]] == [rank_rewards(reward)[cell] for cell in cells]


@pytest.mark.parametrize("how", HOWS)
def test_where_the_precision_ends(how: Any) -> None:
    """Differences of a millionth of the magnitude are the bound, whatever the scale."""
    for scale in (1e-30, 1.0, 1e30):
        kept, drowned = np.array([[1.0, 1.0 + 1.1e-6]]) * scale, np.array([[1.0, 1.0 + 0.9e-6]]) * scale
        assert np.ptp(normalise(kept, how)) > 0.9 and np.ptp(normalise(drowned, how)) == 0
