"""Teachers that join a trained router: the others bit by bit, the pool's order, leave-one-out, what is refused."""

import json

import numpy as np
import pytest
from corpora import TEACHERS, corpus
from tiny_llm import tiny
from tiny_llm import train as train_llm

from persyn_hf.backends.routers import Labelled, RouterSettings, fit, load
from persyn_hf.backends.routers.extended import extend
from persyn_hf.core.metrics import regret
from persyn_hf.errors import InputError


NAN = np.nan


def train(folder, kind, teachers):
    """A router for some of the teachers of the corpus."""
    columns = [TEACHERS.index(name) for name in teachers]
    parts = (corpus(120, 1), corpus(24, 2))
    old = [Labelled(part.conversations, part.rewards[:, columns]) for part in parts]
    fit(RouterSettings(kind=kind), teachers, *old, folder, seed=0)
    return load(folder)


def anchored(new, number, pool):
    """All prompts, columns as in the pool, the new teacher measured on `number` of them only."""
    labelled = corpus(144, 4)
    rewards = labelled.rewards[:, [TEACHERS.index(name) for name in pool]].copy()
    rewards[number:, pool.index(new)] = NAN
    return Labelled(labelled.conversations, rewards)


@pytest.mark.parametrize("kind", ["knn", "ridge", "stacking", "logistic", "best_per_topic", "global_best"])
@pytest.mark.parametrize("new", TEACHERS)
def test_the_others_stay_bit_by_bit_whoever_joins(kind, new, tmp_path):
    old = tuple(name for name in TEACHERS if name != new)
    before = train(tmp_path / "old", kind, old)
    record = extend(TEACHERS, tmp_path / "old", anchored(new, 100, TEACHERS), tmp_path / "new", "cpu")
    after, asked = load(tmp_path / "new"), corpus(50, 5).conversations
    assert after.teachers == TEACHERS and after.scale == before.scale
    places = [TEACHERS.index(name) for name in old]
    assert (after.scores(asked)[:, places] == before.scores(asked)).all()
    assert record["joined"] == {new: 100} and json.loads(json.dumps(record)) == record


@pytest.mark.parametrize("kind", ["knn", "ridge", "logistic"])
def test_without_the_poet_the_poems_go_wrong_and_with_100_anchors_they_do_not(kind, tmp_path):
    """The two teachers that are left cannot be told apart on poems; regret against a router trained on all."""
    new, dev = "poetry-teacher", corpus(200, 6)
    old = train(tmp_path / "old", kind, ("maths-teacher", "weak-teacher"))
    pool = ("poetry-teacher", "maths-teacher", "weak-teacher")  # in an order of its own
    extend(pool, tmp_path / "old", anchored(new, 100, pool), tmp_path / "new", "cpu")
    scratch = train(tmp_path / "all", kind, TEACHERS)
    rewards = dev.rewards[:, [TEACHERS.index(name) for name in pool]]
    found = regret(load(tmp_path / "new").scores(dev.conversations), rewards).mean()
    without = regret(old.scores(dev.conversations), dev.rewards[:, [0, 2]]).mean()
    best = regret(scratch.scores(dev.conversations), dev.rewards).mean()
    lost = (dev.rewards.max(axis=1) - dev.rewards[:, [0, 2]].max(axis=1)).mean() + without
    assert lost > 0.25 and best < 0.02
    assert found < best + 0.1 * lost


def test_an_extended_router_is_extended_again(tmp_path):
    first = train(tmp_path / "0", "ridge", TEACHERS[:2])
    extend(TEACHERS, tmp_path / "0", anchored("weak-teacher", 60, TEACHERS), tmp_path / "1", "cpu")
    both, labelled = (*TEACHERS, "twin"), anchored("weak-teacher", 60, TEACHERS)
    again = Labelled(labelled.conversations, np.column_stack([labelled.rewards, labelled.rewards[:, 0]]))
    extend(both, tmp_path / "1", again, tmp_path / "2", "cpu")
    scores = load(tmp_path / "2").scores(labelled.conversations)
    assert (scores[:, :2] == first.scores(labelled.conversations)).all()
    assert np.abs(scores[:, 3] - scores[:, 0]).mean() < 0.05


def test_an_llm_router_is_extended_on_its_scores_alone(backbone, tmp_path):
    """A twin of the maths teacher, a little worse everywhere: it takes no prompt, and it is no worse than the rest."""
    train_llm(tiny(backbone), tmp_path / "old")
    labelled, pool = corpus(144, 4), (*TEACHERS, "twin")
    twin = np.where(np.arange(144) < 100, labelled.rewards[:, 0] - 0.1, NAN)
    both = Labelled(labelled.conversations, np.column_stack([labelled.rewards, twin]))
    extend(pool, tmp_path / "old", both, tmp_path / "new", "cpu")
    before, after = load(tmp_path / "old", "cpu"), load(tmp_path / "new", "cpu")
    scores, asked = after.scores(labelled.conversations), labelled.conversations
    assert after.scale == "log_odds" and (scores[:, :3] == before.scores(asked)).all()
    maths, poems = scores[::2], scores[1::2]
    assert (maths[:, 3] > maths[:, 1:3].max(axis=1)).mean() > 0.9 and (maths[:, 3] < maths[:, 0]).mean() > 0.9
    assert (poems[:, 3] < poems[:, 1]).mean() > 0.9


def test_what_is_missing_is_named(tmp_path):
    train(tmp_path / "old", "ridge", TEACHERS[:2])
    folder = tmp_path / "new"
    with pytest.raises(InputError) as fault:
        extend(TEACHERS, tmp_path / "old", anchored("weak-teacher", 19, TEACHERS), folder, "cpu")
    assert str(fault.value) == (
        "`weak-teacher` has rewards on 19 calibration prompts that another teacher has rewards on too, 20 are needed "
        "for it to join a router; 100 to 200 are better: raise `calibration.anchors`"
    )
    known = "the router to extend was trained for the teachers maths-teacher, poetry-teacher, and"
    advice = "; name all of these and the ones that join in `teachers`"
    for pool, what in (
        (TEACHERS[:2], "the pool names no other one"),
        (TEACHERS[1:], "`maths-teacher` is missing from the pool"),
    ):
        with pytest.raises(InputError) as fault:
            extend(pool, tmp_path / "old", anchored(pool[0], 60, pool), folder, "cpu")
        assert str(fault.value) == f"{known} {what}{advice}"
    extend(TEACHERS, tmp_path / "old", anchored("weak-teacher", 60, TEACHERS), folder, "cpu")
    (folder / "joined.safetensors").unlink()
    with pytest.raises(InputError, match=r"lacks a file .* fetch it again"):
        load(folder)
