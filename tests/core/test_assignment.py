"""Who answers which prompt, by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from persyn_hf.core import assignment as core
from persyn_hf.errors import InputError, RecipeError


NAN = np.nan


def test_route_takes_the_best_and_says_by_how_much():
    found = core.route([[0.1, 0.9, 0.4], [0.8, NAN, 0.1], [NAN, 0.3, NAN]])
    assert found.teacher.tolist() == [1, 0, 1]
    assert found.margin == pytest.approx(np.array([0.5, 0.7, NAN]), nan_ok=True)


def test_equal_scores_go_to_the_better_teacher_then_to_the_first():
    assert core.route([[1.0, 1.0], [0.0, 1.0]]).teacher.tolist() == [1, 1]
    assert core.route([[1.0, 1.0]]).teacher.tolist() == [0]
    assert core.route([[1.0, 1.0]], prior=[0.0, 1.0]).teacher.tolist() == [1]


def test_a_prompt_without_measurements_goes_to_the_best_on_average():
    assert core.route([[NAN, NAN], [0.1, 0.2]]).teacher.tolist() == [1, 1]
    with pytest.raises(InputError, match="no teacher has any score, one is needed"):
        core.route([[NAN, NAN]])


levels = st.sampled_from([0.0, 0.5, 1.0, NAN])
cells = arrays(np.float64, st.tuples(st.integers(1, 8), st.integers(1, 5)), elements=levels)


@given(cells)
def test_route_is_total_and_repeatable(scores):
    if np.isnan(scores).all():
        return
    first, second = core.route(scores), core.route(scores)
    assert (first.teacher == second.teacher).all()
    for row, teacher in zip(scores, first.teacher, strict=True):
        assert 0 <= teacher < scores.shape[1]
        assert np.isnan(row).all() or row[teacher] == np.nanmax(row)


def test_route_of_nothing():
    assert len(core.route(np.zeros((0, 3))).teacher) == 0


def test_mix_follows_its_weights_and_its_seed():
    drawn = core.mix(20_000, [1, 4, 0], np.random.default_rng(1))
    assert core.allocation(drawn, 3) == pytest.approx([0.2, 0.8, 0], abs=0.01)
    assert (drawn == core.mix(20_000, [1, 4, 0], np.random.default_rng(1))).all()
    with pytest.raises(RecipeError, match="must be numbers >= 0 with a sum above 0, got \\[0.0, 0.0\\]"):
        core.mix(3, [0, 0], np.random.default_rng(1))


def test_a_mix_drawn_in_parts_is_the_same():
    rng = np.random.default_rng(1)
    parts = np.concatenate([core.mix(size, [1, 4, 2], rng) for size in (1, 7, 992)])
    assert (parts == core.mix(1000, [1, 4, 2], np.random.default_rng(1))).all()


def test_strong_is_the_largest_then_the_better_then_the_first():
    names = ["a", "b", "c"]
    assert core.strong(names, [7, 70, 70]).teacher == 1
    assert core.strong(names, [7, 70, 70], [0.9, 0.5, 0.6]).teacher == 2
    with pytest.raises(RecipeError) as caught:
        core.strong(names, [7, None, 70])
    assert str(caught.value) == (
        "the strongest teacher is found by size and `b` has no `params_b`; "
        "set it for every teacher, or name the strongest with `teacher:`"
    )


def test_family_strong_is_not_the_global_strong_one():
    """The paper: Llama-3.2-3B's family-strong is the 70B though the 405B is of the family."""
    names, families, sizes = ["405b", "70b", "8b", "qwen"], ["llama", "llama", "llama", "qwen"], [405, 70, 8, 72]
    found = core.family_strong(names, families, sizes, "llama", 0)
    assert found.teacher == 1
    assert found.values == pytest.approx([NAN, 70, 8, NAN], nan_ok=True)
    with pytest.raises(RecipeError) as caught:
        core.family_strong(names, families, sizes, "gemma", 0)
    assert str(caught.value) == (
        "family_strong needs a teacher of the student's family `gemma` other than the strongest of all, "
        "found none (families of the pool: llama, qwen); name one with `teacher:`"
    )


def test_car_by_hand():
    """Mean quality 0.8 and 0.9, mean loss 0.5 and 1: 0.8 / 2.5 = 0.32 beats 0.9 / 4 = 0.225."""
    found = core.car([[0.6, 0.9], [1.0, NAN]], [[0.5, 1.0], [0.5, 1.0]])
    assert found.teacher == 0
    assert found.values == pytest.approx([0.32, 0.225])


def test_car_shifts_negative_quality_so_that_a_high_loss_is_no_merit():
    """-2 and -1 over losses 9 and 0.1: unshifted -2/28 beats -1/1.3."""
    found = core.car([[-2.0, -1.0]], [[9.0, 0.1]])
    assert found.teacher == 1
    assert found.values == pytest.approx([0.0, 1 / 1.3])


def test_car_with_equal_negative_quality_falls_back_on_the_loss():
    assert core.car([[-1.0, -1.0]], [[2.0, 1.0]]).teacher == 1


def test_car_does_not_change_when_every_row_is_doubled():
    rng = np.random.default_rng(0)
    quality, loss = rng.normal(size=(9, 4)), rng.random((9, 4))
    doubled = core.car(np.tile(quality, (2, 1)), np.tile(loss, (2, 1)))
    assert doubled.values == pytest.approx(core.car(quality, loss).values)


def test_best_mean_looks_at_measured_cells_only():
    found = core.best_mean([[0.2, 0.9, NAN], [0.4, NAN, NAN]])
    assert found.teacher == 1
    assert found.values == pytest.approx([0.3, 0.9, NAN], nan_ok=True)
    with pytest.raises(InputError, match="needs measured rewards, found none"):
        core.best_mean([[NAN, NAN]])


def test_reassign_and_allocation():
    changed = core.reassign([0, 1, 2, 1], [1], 0)
    assert changed.tolist() == [0, 0, 2, 0]
    assert core.allocation(changed, 4).tolist() == [0.75, 0, 0.25, 0]
    assert core.allocation([], 2).tolist() == [0, 0]


@given(st.integers(1, 30), st.integers(2, 5), st.integers(0, 10_000))
def test_a_teacher_keeps_a_prompt_exactly_where_it_is_still_a_best_one(number: int, teachers: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 3, size=(number, teachers)).astype(float)
    scores[rng.random(scores.shape) < 0.2] = np.nan
    scores[:, 0] = np.where(np.isnan(scores).all(axis=1), 0.0, scores[:, 0])
    before = rng.integers(0, teachers, size=number)
    free, kept = core.route(scores).teacher, core.route(scores, stay=before).teacher
    best = scores == np.nanmax(scores, axis=1, keepdims=True)
    rows = np.arange(number)
    assert (kept == np.where(best[rows, before], before, free)).all()
    assert best[rows, kept].all()
    assert (core.several_best(scores) == (best.sum(axis=1) > 1)).all()
