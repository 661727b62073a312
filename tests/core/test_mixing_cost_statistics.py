"""Training rows and what is dropped; bootstrap intervals."""

import numpy as np
import pytest
from scipy.stats import bootstrap

from persyn_hf.core.mixing import chosen_responses, drop_reason, sft_rows
from persyn_hf.core.statistics import bootstrap_interval, bootstrap_means, paired_bootstrap


def response(prompt_id="p", teacher="a", text="4", **changes):
    row = {
        "prompt_id": prompt_id,
        "teacher": teacher,
        "response": text,
        "reasoning": None,
        "finish_reason": "stop",
        "is_correct": True,
        "selected": True,
        "round": 0,
        "status": "ok",
    }
    return {**row, **changes}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"is_correct": None}, None),
        ({"finish_reason": "imported"}, None),
        ({"status": "error", "finish_reason": "error", "text": ""}, "error"),
        ({"selected": False}, "missing"),
        ({"finish_reason": "length"}, "truncated"),
        ({"finish_reason": "content_filter"}, "truncated"),
        ({"text": " \n"}, "empty"),
        ({"is_correct": False}, "incorrect"),
    ],
)
def test_each_fault_has_its_name(changes, reason):
    assert drop_reason(response(**changes), keep_incorrect=False) == reason


def test_the_paper_keeps_a_wrong_answer():
    assert drop_reason(response(is_correct=False), keep_incorrect=True) is None


def test_the_selected_sample_of_the_assigned_teacher_is_chosen():
    rows = [
        response(text="no", selected=False),
        response(text="yes"),
        response(text="again"),
        response(teacher="b", text="other"),
        response(prompt_id="unasked"),
        response(prompt_id="q", status="error", selected=False, text=""),
    ]
    found = chosen_responses({"p": ["a"], "q": ["b"]}, rows, {})
    assert {key: row["response"] for key, row in found.items()} == {"p": "yes"}
    found = chosen_responses({"q": ["a"]}, rows, {})
    assert drop_reason(found["q"], True) == "error"


def test_rows_keep_the_order_of_the_prompts_and_count_every_drop():
    def ask(name):
        return {"prompt_id": name, "messages": [{"role": "user", "content": name}]}

    chosen = {"q": response("q"), "p": response("p", is_correct=False), "r": response("r", finish_reason="length")}
    assigned = dict.fromkeys("pqrs", ["a"])
    rows, dropped = sft_rows(map(ask, "sqrpx"), assigned, chosen, {("q", "a"): 0.5})
    assert [(row["prompt_id"], row["reward"]) for row in rows] == [("q", 0.5), ("p", None)]
    assert rows[0] == {
        "prompt": [{"role": "user", "content": "q"}],
        "completion": [{"role": "assistant", "content": "4"}],
        "prompt_id": "q",
        "teacher": "a",
        "reward": 0.5,
    }
    assert dropped == {"missing": 1, "error": 0, "truncated": 1, "empty": 0, "incorrect": 0}
    assert len(sft_rows(map(ask, "pq"), assigned, chosen, {}, keep_incorrect=False)[0]) == 1


def test_interval_agrees_with_scipy():
    values = np.random.default_rng(0).normal(size=200)
    found = bootstrap_interval(values, np.random.default_rng(1), resamples=9000)
    other = bootstrap((values,), np.mean, method="percentile", rng=2, n_resamples=9000).confidence_interval
    assert found.value == values.mean()
    assert (found.low, found.high) == pytest.approx((other.low, other.high), abs=0.01)


def test_interval_repeats_with_its_seed_and_leaves_missing_values_out():
    values = [1.0, 2.0, np.nan, 3.0]
    first, second = (bootstrap_interval(values, np.random.default_rng(7)) for _ in range(2))
    assert first == second and first.value == 2.0 and 1 <= first.low <= 2 <= first.high <= 3
    assert np.isnan(bootstrap_interval([np.nan], np.random.default_rng(0))).all()


def test_bootstrap_columns_share_their_draws():
    columns = np.random.default_rng(0).normal(size=(30, 1)) + np.array([[0.0, 5.0]])
    found = bootstrap_means(columns, np.random.default_rng(0), 100)
    assert found[:, 1] - found[:, 0] == pytest.approx(np.full(100, 5.0))


def test_paired_bootstrap_finds_a_difference_that_unpaired_noise_hides():
    rng = np.random.default_rng(3)
    a = rng.normal(size=300) * 10
    found = paired_bootstrap(a + 0.1 + rng.normal(size=300) * 0.1, a, np.random.default_rng(0))
    assert found.low > 0 and found.p_value < 0.01
    same = paired_bootstrap(a, a, np.random.default_rng(0))
    assert same.difference == 0 and same.p_value == 1
    assert np.isnan(paired_bootstrap([np.nan], [1.0], np.random.default_rng(0))).all()


def test_reasoning_is_trained_on_with_the_answer():
    prompts = [{"prompt_id": "p", "messages": [{"role": "user", "content": "2 + 2?"}]}]
    rows, _ = sft_rows(prompts, {"p": "a"}, {"p": response(reasoning="2 and 2 make 4")}, {})
    assert rows[0]["completion"][0]["content"] == "<think>\n2 and 2 make 4\n</think>\n\n4"
