"""Stage `pair` on rewards worked by hand."""

import pytest
from datasets import Dataset
from rows import prompt, reward, user

from persyn_hf.errors import InputError
from persyn_hf.recipe.roles import Teacher
from persyn_hf.schemas import PAIRS, PROMPTS, REWARDS
from persyn_hf.stage import Context
from persyn_hf.stages import pair


def split(name: str) -> str:
    return "calibration" if name == "p" else "dev"


def prompts(ids: str = "pq") -> Dataset:
    system = {"role": "system", "content": "s"}
    rows = [prompt("", name, messages=[system, *user(f"ask {name}")], split=split(name)) for name in ids]
    return PROMPTS.dataset(rows)


def rewards(cells: list[tuple[str, str, float | None, float | None]]) -> Dataset:
    return REWARDS.dataset([reward(p, t, value, quality_reward=q, split=split(p)) for p, t, value, q in cells])


CELLS = [
    ("q", "b", 0.3, 1.0),
    ("q", "a", 0.3, 0.0),
    ("p", "a", 1.0, 1.0),
    ("p", "b", 0.25, 1.0),
    ("p", "c", None, 0.0),
]


def context(tmp_path, names="abc") -> Context:
    return Context(seed=0, work_dir=tmp_path, teachers=tuple(Teacher(name=name) for name in names))


def test_pairs_by_hand(tmp_path):
    found = pair.run(pair.Settings(), context(tmp_path), prompts=prompts(), rewards=rewards(CELLS))
    PAIRS.check(found.data, "pairs")
    assert found.counts == {"prompts": 2, "pairs": 2, "ties": 1, "missing_cells": 2, "pairs_skipped": 4}
    tie, decided = found.data
    assert (tie["prompt_id"], tie["label"], tie["margin"], tie["split"]) == ("q", 0.5, 0.0, "dev")
    assert (decided["prompt_id"], decided["prompt"], decided["split"]) == ("p", "ask p", "calibration")
    assert decided["margin"] == (0.75 if decided["teacher_b"] == "a" else -0.75)
    assert decided["label"] == (1.0 if decided["teacher_b"] == "a" else 0.0)
    assert found.metrics["mean_label"] == (0.5 + decided["label"]) / 2


def test_another_alpha_needs_no_new_scores(tmp_path):
    found = pair.run(pair.Settings(alpha=0), context(tmp_path), prompts=prompts(), rewards=rewards(CELLS))
    assert found.counts["pairs"] == 4 and found.counts["ties"] == 1


def test_no_rewards_give_no_pairs_but_all_columns(tmp_path):
    found = pair.run(pair.Settings(), context(tmp_path), prompts=prompts(), rewards=rewards([]))
    PAIRS.check(found.data, "pairs")
    assert len(found.data) == 0 and found.metrics["mean_label"] is None


def test_rewards_of_other_prompts_are_refused(tmp_path):
    with pytest.raises(InputError) as caught:
        pair.run(pair.Settings(), context(tmp_path), prompts=prompts("p"), rewards=rewards(CELLS))
    assert str(caught.value) == (
        "the rewards name 1 prompts (first q) that `prompts` does not hold; "
        "give the prompts that they were measured on"
    )


def test_more_prompts_than_are_in_memory_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(pair, "CHUNK", 1)
    found = pair.run(pair.Settings(), context(tmp_path), prompts=prompts(), rewards=rewards(CELLS))
    assert found.counts == {"prompts": 2, "pairs": 2, "ties": 1, "missing_cells": 2, "pairs_skipped": 4}
    assert found.data["prompt_id"][:] == ["q", "p"] and found.data["prompt"][:] == ["ask q", "ask p"]
