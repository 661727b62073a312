"""A prior in `assign`, in the stop, and in `train_router`: it helps where right, and is overruled where not."""

import json

import numpy as np
import pytest
from datasets import concatenate_datasets
from rows import prompt, reward

from persyn_hf.errors import InputError
from persyn_hf.recipe.recipe import Calibration
from persyn_hf.recipe.roles import Teacher
from persyn_hf.schemas import PROMPTS, REWARDS
from persyn_hf.stage import Context
from persyn_hf.stages import assign, train_router


POOL, TOPICS = ("adds", "rhymes", "names"), ("sum of two numbers", "verse about the moon", "name of a town")
CALIBRATION, DEV = 120, 60


def prompts():
    splits = ["calibration"] * CALIBRATION + ["dev"] * DEV + ["pool"] * 90
    rows = [prompt(f"{TOPICS[n % 3]} {n}", f"{n:04d}", split=split) for n, split in enumerate(splits)]
    return PROMPTS.dataset(rows)


def value_of(prompt_id, teacher, seed, noise):
    """A teacher is good at one topic, and 0.15 better than the others in everything if it is the first."""
    place = POOL.index(teacher)
    chance = np.random.default_rng([seed, int(prompt_id), place]).normal()
    return 0.3 + 0.4 * (int(prompt_id) % 3 == place) + 0.15 * (place == 0) + noise * chance


def rewards(asked, seed=0, noise=0.3, turn=0):
    """Of cells (prompt_id, teacher, split); `turn` gives every teacher the rewards of another."""
    rows = [
        reward(name, teacher, value_of(name, POOL[(POOL.index(teacher) + turn) % 3], seed, noise), split=split)
        for name, teacher, split in asked
    ]
    return REWARDS.dataset(rows)


def every_cell(number=CALIBRATION):
    return [(f"{n:04d}", teacher, "calibration") for n in range(number) for teacher in POOL]


def context(folder):
    folder.mkdir(exist_ok=True, parents=True)
    return Context(seed=3, work_dir=folder, teachers=tuple(Teacher(name=name) for name in POOL))


def rounds(folder, prior=None, **calibration):
    """Run three rounds, and return the results of `assign`."""
    asked, found = None, []
    ref = {"prior": "n/rewards@v1"} if prior is not None else {}
    wanted = Calibration(**{"strategy": "uncertainty", "share": 0.4, "rounds": 3, **ref, **calibration})
    for round in (1, 2, 3):
        given = {} if prior is None else {"prior": prior}
        if asked is not None:
            columns = (asked[name] for name in ("prompt_id", "teacher", "split"))
            given |= {"base": asked, "rewards": rewards(zip(*columns, strict=True))}
        settings = assign.Settings(kind="all", labelling=wanted, round=round, splits=("calibration",))
        found.append(assign.run(settings, context(folder / str(round)), prompts=prompts(), **given))
        asked = found[-1].data
    return found


def cells(result):
    return list(zip(result.data["prompt_id"], result.data["teacher"], strict=True))


def test_a_prior_sends_cells_to_the_best_teachers_of_prompts_that_nobody_was_asked(tmp_path):
    prior = rewards(every_cell(), seed=0, noise=0.3)
    with_prior, without = rounds(tmp_path / "a", prior), rounds(tmp_path / "b")
    assert cells(with_prior[0]) == cells(without[0])  # the first round is at random

    def has_best(found):
        """The share of the prompts of later rounds of which the best teacher is asked."""
        later = {name for name, _ in set(cells(found[-1])) - set(cells(found[0]))}
        best = {name: max(POOL, key=lambda teacher: value_of(name, teacher, 0, 0.3)) for name in later}
        return np.mean([(name, best[name]) in cells(found[-1]) for name in later])

    assert has_best(with_prior) > 0.95 > has_best(without)
    told = with_prior[-1].metrics["labelling"]["prior"]
    assert told["prompts"] == CALIBRATION and told["slope"] > 0.8 and set(told["count"]) == set(POOL)
    assert "prior" not in without[-1].metrics["labelling"]


def test_a_file_says_what_the_artifact_says(tmp_path):
    prior = rewards(every_cell())
    path = tmp_path / "prior.jsonl"
    path.write_text("\n".join(json.dumps({k: row[k] for k in ("prompt_id", "teacher", "reward")}) for row in prior))
    by_ref = rounds(tmp_path / "a", prior)
    settings = {"strategy": "uncertainty", "share": 0.4, "rounds": 3, "prior": str(path)}
    first = by_ref[0].data
    columns = (first[name] for name in ("prompt_id", "teacher", "split"))
    again = assign.run(
        assign.Settings(kind="all", labelling=Calibration(**settings), round=2, splits=("calibration",)),
        context(tmp_path / "c"),
        prompts=prompts(),
        base=first,
        rewards=rewards(zip(*columns, strict=True)),
    )
    assert cells(again) == cells(by_ref[1])


@pytest.mark.parametrize("strategy", ["uncertainty", "successive_halving", "whole_prompts"])
def test_a_prior_that_is_wrong_changes_nothing(strategy, tmp_path):
    wrong = rewards(every_cell(), noise=0.0, turn=1)
    believed = rounds(tmp_path / "a", wrong, strategy=strategy)
    without = rounds(tmp_path / "b", strategy=strategy)
    assert believed[-1].metrics["labelling"]["prior"]["slope"] == 0
    assert [cells(one) for one in believed] == [cells(one) for one in without]


def test_a_stop_counts_the_prior_as_the_cells_that_it_stands_for(tmp_path):
    wanted = {"strategy": "whole_prompts", "share": 0.9, "stop": "gain"}
    for name, prior in (("right", rewards(every_cell())), ("wrong", rewards(every_cell(), noise=0.0, turn=1))):
        told = rounds(tmp_path / name, prior, **wanted)[-1].metrics["labelling"]
        counts = round(sum(told["prior"]["count"].values()))
        ahead = told["ahead"]
        expected = max(0.0, ahead["gain"]["high"]) * ahead["pool"] / (ahead["cells"] + counts)
        assert ahead["per_cell"] == pytest.approx(expected) and bool(counts) == (name == "right")


def train(folder, own, **given):
    settings = train_router.Settings(kind="stacking", validation_share=0)
    dev = [(f"{n:04d}", teacher, "dev") for n in range(CALIBRATION, CALIBRATION + DEV) for teacher in POOL]
    scored = concatenate_datasets([rewards(own, noise=0.6), rewards(dev)])
    return train_router.run(settings, context(folder), prompts=prompts(), rewards=scored, **given)


def test_stacking_learns_from_prompts_that_only_the_prior_knows(tmp_path):
    own = every_cell(24)
    alone, helped, misled = (
        train(tmp_path / name, own, **({} if prior is None else {"prior": prior}))
        for name, prior in (
            ("alone", None),
            ("helped", rewards(every_cell(), seed=1)),
            ("misled", rewards(every_cell(), noise=0.0, turn=1)),
        )
    )
    closed = [found.metrics["router"]["gap_closed"]["value"] for found in (alone, helped, misled)]
    assert closed[1] > closed[0] + 0.05 and closed[2] == closed[0]
    assert [found.counts["train_prompts"] for found in (alone, helped, misled)] == [24] * 3
    told = helped.metrics["training"]
    assert told["prior"]["slope"] > 0 and any(member.get("prior") for member in told["members"] if member["weight"])
    assert misled.metrics["training"]["prior"] == {"slope": 0.0, "count": [0.0, 0.0, 0.0]}


def test_a_prior_of_other_teachers_is_refused_before_anybody_is_asked(tmp_path):
    other = REWARDS.dataset([reward("0001", "stranger", 0.5, split="calibration")])
    with pytest.raises(
        InputError, match="`calibration.prior`: the artifact holds none of the teachers adds, rhymes, "
    ):
        rounds(tmp_path, other)
