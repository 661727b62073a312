"""Stage `mix`: one training row per assigned prompt, and a count for each that falls out."""

import pytest
from datasets import Dataset

from persyn_hf.errors import InputError
from persyn_hf.recipe import Teacher
from persyn_hf.schemas import ASSIGNMENTS, PROMPTS, RESPONSES, REWARDS, SFT
from persyn_hf.stage import Context
from persyn_hf.stages import mix


def prompts(ids="pqrstu") -> Dataset:
    rows = [
        {
            "prompt_id": name,
            "messages": [{"role": "user", "content": f"ask {name}"}],
            "reference": "4",
            "source": "test",
            "topic": None,
            "split": "pool",
        }
        for name in ids
    ]
    return Dataset.from_list(rows, features=PROMPTS.features)


def assignments(cells: dict[str, str], extra=()) -> Dataset:
    rows = [
        {"prompt_id": p, "teacher": t, "scores": [], "margin": None, "source": "rule", "split": "pool"}
        for p, t in [*cells.items(), *extra]
    ]
    return Dataset.from_list(rows, features=ASSIGNMENTS.features)


def responses(*cells: dict) -> Dataset:
    usual = {
        "sample_index": 0,
        "response": "4",
        "reasoning": None,
        "finish_reason": "stop",
        "num_prompt_tokens": 3,
        "num_tokens": 10,
        "is_correct": True,
        "quality": None,
        "selected": True,
        "status": "ok",
        "error": None,
        "split": "pool",
    }
    return Dataset.from_list([{**usual, **cell} for cell in cells], features=RESPONSES.features)


ASSIGNED = {"u": "a", "q": "b", "p": "a", "r": "a", "s": "b"}
RESPONSES_ = (
    {"prompt_id": "s", "teacher": "b", "status": "error", "finish_reason": "error", "selected": False, "error": "x"},
    {"prompt_id": "r", "teacher": "a", "finish_reason": "length"},
    {"prompt_id": "q", "teacher": "b", "is_correct": False, "num_tokens": 30, "response": "5"},
    {"prompt_id": "p", "teacher": "b", "response": "of another"},
    {"prompt_id": "p", "teacher": "a", "selected": False, "response": "unselected"},
    {"prompt_id": "p", "teacher": "a", "sample_index": 1},
)


def run(tmp_path, rewards=None, **settings):
    context = Context(seed=0, work_dir=tmp_path, teachers=(Teacher(name="b"), Teacher(name="a"), Teacher(name="c")))
    inputs = {"assignments": assignments(ASSIGNED), "responses": responses(*RESPONSES_), "rewards": rewards}
    found = mix.run(mix.Settings(**settings), context, prompts=prompts(), **inputs)
    SFT.check(found.data, "sft")
    return found


def test_rows_stand_in_prompt_order_and_drops_are_counted(tmp_path):
    found = run(tmp_path)
    assert found.data["prompt_id"][:] == ["p", "q"], "t was assigned to nobody"
    assert found.data[0] == {
        "prompt": [{"role": "user", "content": "ask p"}],
        "completion": [{"role": "assistant", "content": "4"}],
        "prompt_id": "p",
        "teacher": "a",
        "reward": None,
    }
    assert found.counts == {
        "assigned": 5,
        "dropped_missing": 1,
        "dropped_error": 1,
        "dropped_truncated": 1,
        "dropped_empty": 0,
        "dropped_incorrect": 0,
        "unjudged": 0,
    }
    assert found.metrics == {
        "correct_share": 0.5,
        "allocation": {"b": 0.5, "a": 0.5, "c": 0.0},
        "mean_tokens": {"b": 30.0, "a": 10.0},
    }


def test_wrong_answers_can_be_left_out(tmp_path):
    found = run(tmp_path, keep_incorrect=False)
    assert found.data["prompt_id"][:] == ["p"] and found.counts["dropped_incorrect"] == 1


def test_measured_rewards_travel_along(tmp_path):
    row = {**dict.fromkeys(REWARDS.names), "prompt_id": "p", "teacher": "a", "reward": 0.7, "truncated": False}
    rewards = Dataset.from_list([{**row, "split": "pool"}], features=REWARDS.features)
    assert run(tmp_path, rewards).data["reward"][:] == [0.7, None]


def refusal(tmp_path, **inputs) -> str:
    given = {"prompts": prompts(), "assignments": assignments(ASSIGNED), "responses": responses(*RESPONSES_)}
    with pytest.raises(InputError) as caught:
        mix.run(mix.Settings(), Context(seed=0, work_dir=tmp_path), **{**given, **inputs})
    return str(caught.value)


def test_bad_input(tmp_path):
    twice = assignments({"p": "a"}, extra=[("p", "b")])
    assert refusal(tmp_path, assignments=twice) == (
        "`mix` needs one teacher per prompt, found 2 assignments for 1 prompts; "
        "give the assignments of a strategy, not those of `all`"
    )
    assert refusal(tmp_path, prompts=prompts("pq")) == (
        "3 assigned prompts (first r) are not in `prompts`; give the prompts that the assignments were made from"
    )
    assert refusal(tmp_path, responses=responses(RESPONSES_[0], RESPONSES_[1])) == (
        "none of 5 assigned prompts has a response to train on (3 missing, 1 error, 1 truncated); see `generate`"
    )
