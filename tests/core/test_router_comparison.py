"""Several routers on the same prompts: means over trainings, paired differences, temperature, learning curve."""

import json

import numpy as np
import pytest
from naive import expected_calibration_error

from persyn_hf.core.pair_calibration import fit_temperature, preference_bins, preference_pairs
from persyn_hf.core.router_comparison import Scored, comparison, learning_curve
from persyn_hf.core.router_table import compare


NAN = np.nan
REWARDS = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.5], [0.2, 0.2]])


def rng():
    return np.random.default_rng(0)


def test_pairs_stand_in_both_orientations_and_leave_out_what_was_not_measured():
    pairs = preference_pairs([[2.0, 1.0, 5.0]], [[1.0, 1.0, NAN]])
    assert pairs.difference.tolist() == [1, -1] and pairs.preferred.tolist() == [0.5, 0.5]
    pairs = preference_pairs([3.0, 1.0], [[0.0, 1.0]])
    assert pairs.difference.tolist() == [2, -2] and pairs.preferred.tolist() == [0, 1]


def test_bins_are_those_of_the_calibration_error():
    scores, rewards = rng().normal(size=(200, 5)), np.random.default_rng(1).random((200, 5))
    error, rows = preference_bins(preference_pairs(scores, rewards))
    assert error == pytest.approx(expected_calibration_error(scores, rewards), abs=1e-12)
    assert sum(row["pairs"] for row in rows) == 200 * 20
    assert error == pytest.approx(sum(abs(r["predicted"] - r["share"]) * r["pairs"] for r in rows) / 4000, abs=1e-12)


def test_one_bin_by_hand():
    """Odds of 3 to 1 in scores, right in 3 of 4 prompts."""
    scores = np.tile([np.log(3), 0.0], (4, 1))
    error, rows = preference_bins(preference_pairs(scores, [[1, 0], [1, 0], [1, 0], [0, 1]]))
    assert error == pytest.approx(0, abs=1e-12)
    assert rows[1] == {"predicted": pytest.approx(0.75), "share": 0.75, "pairs": 4}


@pytest.mark.parametrize("temperature", [0.05, 1.0, 7.0])
def test_temperature_is_found_again(temperature):
    draw = rng()
    scores = draw.normal(size=(4000, 2)) * temperature
    wins = draw.random(4000) < 1 / (1 + np.exp((scores[:, 1] - scores[:, 0]) / temperature))
    pairs = preference_pairs(scores, np.column_stack([wins, ~wins]).astype(float))
    found = fit_temperature(pairs)
    assert found == pytest.approx(temperature, rel=0.1)
    assert preference_bins(pairs, found)[0] < 0.03
    bare = preference_pairs(np.log([[3.0, 1.0]] * 4) * 5, [[1, 0], [1, 0], [1, 0], [0, 1]])
    assert fit_temperature(bare) == pytest.approx(5, rel=1e-6)


def test_temperature_at_its_ends():
    right, wrong = np.array([[1.0, 0.0]] * 3), np.array([[0.0, 1.0]] * 3)
    assert fit_temperature(preference_pairs(right, right)) == pytest.approx(0.01)
    assert fit_temperature(preference_pairs(wrong, right)) == pytest.approx(100)
    assert fit_temperature(preference_pairs(np.zeros((3, 2)), right)) is None
    assert fit_temperature(preference_pairs(right, np.full((3, 2), NAN))) is None
    assert fit_temperature(preference_pairs(right[:0], right[:0])) is None


def test_a_metric_is_the_mean_over_the_trainings():
    both = [REWARDS, 1 - REWARDS]
    alone = [compare({"a": [of]}, REWARDS, [1.0, 0.0], rng())["a"] for of in both]
    found = compare({"a": both}, REWARDS, [1.0, 0.0], rng())["a"]
    for metric in ("hit_at_1", "reward", "regret", "gap_closed", "allocation_js"):
        assert found[metric]["value"] == pytest.approx(np.mean([one[metric]["value"] for one in alone]))
    assert found["calibration_error"]["value"] is None
    assert compare({"a": both}, REWARDS, [1, 0], rng(), log_odds=["a"])["a"]["calibration_error"]["value"] > 0


def test_differences_are_paired():
    """The rewards of prompts differ widely, those of the two routers on one prompt always by 0.01."""
    level = rng().random(100) * 10
    rewards = np.column_stack([level, level + 0.01])
    found = compare({"a": [[1, 0]], "b": [[0, 1]]}, rewards, [1, 0], rng(), over={"a": "a", "itself": "b"})
    assert found["a"]["reward"]["high"] - found["a"]["reward"]["low"] > 0.5
    gain = found["b"]["gain_over_a"]
    assert [gain[end] for end in ("value", "low", "high")] == pytest.approx([0.01] * 3)
    assert found["b"]["gain_over_itself"] == {"value": 0, "low": 0, "high": 0}


def scored(scores, is_log_odds=True):
    return Scored(np.array(scores, dtype=float), np.array(scores, dtype=float), REWARDS, is_log_odds)


def test_comparison_names_the_best_but_for_global_best():
    flat = np.tile([1.0, 0.0], (4, 1))
    runs = {
        "global_best": [scored(flat, False)] * 2,
        "bad": [scored(-REWARDS)] * 2,
        "half": [scored(REWARDS), scored(flat)],
    }
    found = comparison(runs, "half", REWARDS, np.array([1.0, 0.0]), rng())
    assert found["best"] == "half" and found["trainings"] == 2
    assert list(found["means"]) == ["global_best", "bad", "half", "random", "oracle"]
    assert found["means"]["half"]["regret"] == pytest.approx(0.125)  # 0 and 1 / 4
    assert found["gap_closed"]["half"]["value"] == pytest.approx(0.5)
    assert found["gain_over_global_best"]["half"]["value"] == pytest.approx(0.125)
    assert found["gain_over_best"]["bad"]["value"] == pytest.approx(-(2.5 / 4 - 0.125))
    assert found["gain_over_best"]["half"]["value"] == 0
    assert found["means"]["half"]["calibration_error"] == pytest.approx(found["calibration"]["half"]["error"])
    assert found["calibration"]["global_best"]["error"] is None
    assert found["reliability"]["router"] == "half" and found["reliability"]["before"]
    assert json.loads(json.dumps(found)) == found


def test_global_best_alone_is_the_best_of_itself():
    found = comparison({"global_best": [scored(np.ones((4, 2)), False)]}, "global_best", REWARDS, np.ones(2), rng())
    assert found["best"] == "global_best"
    assert found["reliability"] == {
        "router": "global_best",
        "temperature": None,
        "before": [],
        "after": [],
    }


def test_learning_curve_by_hand():
    flat = np.tile([1.0, 0.0], (4, 1))
    found = learning_curve({"a": {10: [flat, REWARDS], 20: [REWARDS, REWARDS]}}, REWARDS, np.array([1.0, 0.0]))
    assert found == {
        "mean": {"a": {"10": 0.5, "20": 1.0}},
        "lowest": {"a": {"10": 0.0, "20": 1.0}},
        "highest": {"a": {"10": 1.0, "20": 1.0}},
    }
    assert learning_curve({"a": {10: [flat]}}, flat, flat[0])["mean"] == {"a": {"10": None}}
