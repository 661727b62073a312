"""`group_weights`: the weighted mean is the mean of the groups' means."""

import numpy as np
import pytest

from persyn_hf.core.item_weights import group_weights


def test_the_mean_is_that_of_categories_of_tasks() -> None:
    """By hand: math is (5/8 + 0) / 2, language 1/2; of both, 13/32. The plain mean of the seven would be 1/2."""
    scores = {"math/a/1": 1, "math/a/2": 0, "math/a/3": 0.5, "math/a/4": 1, "math/b/1": 0} | {
        "language/c/1": 1,
        "language/c/2": 0,
    }
    weights = group_weights(list(scores))
    assert weights @ np.array(list(scores.values())) / 7 == pytest.approx(13 / 32)
    assert weights.sum() == pytest.approx(7)


def test_items_in_no_group_count_once() -> None:
    assert group_weights([str(item) for item in range(49)]).tolist() == [1.0] * 49
    assert group_weights([]).tolist() == []
