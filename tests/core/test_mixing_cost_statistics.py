"""Training rows and what is dropped; bootstrap intervals."""

import numpy as np
import pytest
from rows import response as whole
from scipy.stats import bootstrap

from persyn_hf.core.mixing import chosen_responses, drop_reason, sft_rows
from persyn_hf.core.statistics import bootstrap_means, percentile_bounds


def response(prompt_id="p", teacher="a", text="4", **changes):
    return whole(prompt_id, teacher, text, **{"is_correct": True} | changes)


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
    assert dropped == {"missing": 1, "error": 0, "truncated": 1, "unknown_end": 0, "empty": 0, "incorrect": 0}
    assert len(sft_rows(map(ask, "pq"), assigned, chosen, {}, keep_incorrect=False)[0]) == 1


def test_what_may_be_cut_off_is_trained_on_only_where_that_is_wanted():
    prompts = [{"prompt_id": name, "messages": []} for name in "pqrs"]
    ends = {"p": "unknown", "q": "load", "r": "eos_token", "s": "max_tokens"}
    chosen = {name: response(name, finish_reason=word) for name, word in ends.items()}
    assigned = dict.fromkeys("pqrs", ["a"])
    rows, dropped = sft_rows(prompts, assigned, chosen, {})
    assert [row["prompt_id"] for row in rows] == ["r"]
    assert (dropped["unknown_end"], dropped["truncated"]) == (2, 1)
    rows, dropped = sft_rows(prompts, assigned, chosen, {}, unknown_ends=True)
    assert [row["prompt_id"] for row in rows] == ["p", "q", "r"] and dropped["unknown_end"] == 0


def test_bounds_agree_with_scipy_and_leave_missing_values_out():
    values = np.random.default_rng(0).normal(size=200)
    column = np.append(values, np.nan)[:, None]
    low, high = percentile_bounds(bootstrap_means(column, np.random.default_rng(1), 9000))
    other = bootstrap((values,), np.mean, method="percentile", rng=2, n_resamples=9000).confidence_interval
    assert (low, high) == pytest.approx((other.low, other.high), abs=0.01)
    assert np.isnan(percentile_bounds(np.array([np.nan]))).all()


def test_bootstrap_columns_share_their_draws():
    columns = np.random.default_rng(0).normal(size=(30, 1)) + np.array([[0.0, 5.0]])
    found = bootstrap_means(columns, np.random.default_rng(0), 100)
    assert found[:, 1] - found[:, 0] == pytest.approx(np.full(100, 5.0))


def test_reasoning_is_trained_on_with_the_answer():
    prompts = [{"prompt_id": "p", "messages": [{"role": "user", "content": "2 + 2?"}]}]
    rows, _ = sft_rows(prompts, {"p": "a"}, {"p": response(reasoning="2 and 2 make 4")}, {})
    assert rows[0]["completion"][0]["content"] == "<think>\n2 and 2 make 4\n</think>\n\n4"
