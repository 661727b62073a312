"""The study at equal cost: what each arm pays and trains on, worked by hand, and what the analysis says of lines."""

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from persyn_hf.recipe.recipe import Recipe


STUDY = Path(__file__).parents[2] / "recipes/tiny/study-cost"
MODULES = ("analyse", "arms", "sets", "study", "train", "world")
PROMPTS, BUDGET = 60, 65
NAMES = ("a", "b", "c", "d", "mistral-eq")


@pytest.fixture(scope="module")
def folder():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(STUDY))
        yield
    for name in MODULES:
        sys.modules.pop(name, None)
    sys.path[:] = [path for path in sys.path if "study-reward" not in path]


@pytest.fixture(scope="module")
def study(folder):
    """Sixty prompts of two kinds and five teachers: `a` is right on sums, `b` on products, `c` on all of them.

    `c` is likely to nobody. Each cell has two samples of 10 tokens and one more per place of the teacher.
    """
    import study
    from world import World

    recipe = Recipe.model_validate(
        {
            "name": "small",
            "teachers": [
                {"name": name, "model": "m", "family": f"f{place % 2}", "params_b": 1 + place}
                for place, name in enumerate(NAMES)
            ],
            "students": [{"name": "s", "model": "m", "family": "f0", "params_b": 0.1}],
        }
    )
    ids = [f"p{number:02d}" for number in range(PROMPTS)]
    kinds = ["sum" if number % 2 else "product" for number in range(PROMPTS)]
    right = {("a", "sum"), ("b", "product"), ("c", "sum"), ("c", "product")}

    class Small(World):
        def table(self, kind):
            if kind == "prompts":
                said = [f"the {word} of {number} and 2" for number, word in enumerate(kinds)]
                return [
                    {"prompt_id": key, "messages": [{"role": "user", "content": text}]}
                    for key, text in zip(ids, said, strict=True)
                ]
            if kind.endswith("-pool"):
                return []
            found = []
            for key, word in zip(ids, kinds, strict=True):
                for place, name in enumerate(NAMES):
                    is_right = (name, word) in right
                    cell = {"prompt_id": key, "teacher": name, "num_tokens": 10 + place}
                    sample = {
                        "reasoning": None,
                        "finish_reason": "stop",
                        "status": "ok",
                        "round": 0,
                        "is_correct": is_right,
                        "quality": None,
                    }
                    if kind == "responses":
                        found += [
                            cell
                            | sample
                            | {"sample_index": at, "selected": at == 0, "response": f"{name} says {word} {at}"}
                            for at in range(2)
                        ]
                    else:
                        likely = -2.0 if name == "c" else -0.5 - place / 100
                        found.append(cell | {"quality_raw": float(is_right), "mean_logprob": likely})
            return found

    return study.Study(recipe, Small(recipe, None))


def bought(study, arm, budget=BUDGET, draw=0):
    from study import Job

    return study.buy(Job(budget, arm, 0, draw, "s"))


@pytest.mark.parametrize(
    ("arm", "cells", "prompts"),
    [
        ("mix", 65, 60),  # 60 prompts, and a second teacher on five of them
        ("mix_right", 65, 60),
        ("tournament", 65, 56),  # 1 x 5 + 1 x 4 + 2 x 2 = 13 on four prompts; 52 more of the winner
        ("persyn", 65, 45),  # 65 // 13 = 5 prompts x 5 teachers = 25; 40 more
        ("car", 65, 45),
        ("stacking", 65, 45),
        ("alpha_0.8", 65, 45),
        ("best", 65, 57),  # half of the five prompts, rounded: 2 x 5 = 10; 55 more
        ("hindsight", 60, 60),  # there are no more prompts
        ("strong", 60, 60),
    ],
)
def test_every_arm_pays_the_budget_or_less(study, arm, cells, prompts):
    purchase = bought(study, arm)
    assert int(purchase.asked.sum()) == cells and int(purchase.asked.any(axis=1).sum()) == prompts
    taught = np.sort(np.flatnonzero((np.array(purchase.teachers) >= 0).any(axis=0)))
    assert taught.tolist() == np.flatnonzero(purchase.asked.any(axis=1)).tolist()  # nothing is paid for in vain
    for teachers in purchase.teachers:  # and nobody teaches without having been paid
        own = np.flatnonzero(teachers >= 0)
        assert purchase.asked[own, teachers[own]].all()


@pytest.mark.parametrize("budget", [100, 260])
def test_no_arm_of_any_budget_pays_more(study, budget):
    from arms import ARMS

    for arm in ARMS:
        if budget == 260 or arm not in ("uncertainty", "whole_prompts"):  # rounds need some prompts each
            assert int(bought(study, arm, budget, draw=1).asked.sum()) <= budget, arm


def test_whole_prompts_that_never_stop_are_those_of_persyn(study):
    """20 prompts x 5 teachers in four rounds of five prompts: too few prompts to stop by."""
    rounds, full = bought(study, "whole_prompts", 260), bought(study, "persyn", 260)
    assert rounds.told["stopped"] is False and (rounds.asked == full.asked).all()


def test_uncertainty_has_as_many_cells_of_more_prompts(study):
    purchase = bought(study, "uncertainty", 260)  # 20 prompts x 5 in full; here 100 cells of 50 prompts
    per_prompt = Counter(purchase.asked[purchase.calibrated].sum(axis=1).tolist())
    assert 20 < sum(per_prompt.values()) <= 50 and min(per_prompt) >= 2
    assert 90 <= sum(number * times for number, times in per_prompt.items()) <= 100


def test_what_is_paid_in_tokens(study):
    """Strong is the largest, at place 4: 60 cells of two samples of 14 tokens."""
    assert study.spent(bought(study, "strong")) == {"cells": 60, "tokens": 60 * 2 * 14}


def test_wrong_answers_are_left_out_and_second_samples_taken(study):
    from arms import ARMS

    purchase = bought(study, "mix")
    everything, right = study.rows(ARMS["mix"], purchase), study.rows(ARMS["mix_right"], purchase)
    assert len(everything) == 65 and 0 < len(right) < 65
    assert {row["completion"][0]["content"].split()[0] for row in right} <= {"a", "b", "c"}
    best = study.rows(ARMS["best"], bought(study, "best"))
    answers = Counter(row["prompt_id"] for row in best)
    calibrated = {study.world.ids[at] for at in np.flatnonzero(bought(study, "best").calibrated)}
    assert len(calibrated) == 2
    assert {answers[key] for key in calibrated} == {1}  # one answer of a calibration prompt, two of the others
    assert {number for key, number in answers.items() if key not in calibrated} == {2}


def test_calibration_prompts_are_taught_by_their_best(study):
    """`a` is right on sums and likely, `b` on products; on the prompts that the router sees it may err."""
    purchase = bought(study, "persyn")
    for prompt in np.flatnonzero(purchase.calibrated):
        assert study.world.pool[purchase.teachers[0][prompt]] == ("a" if prompt % 2 else "b")


def test_arms_of_a_draw_begin_with_the_same_prompts(study):
    mixed, calibrated = (bought(study, arm).asked.any(axis=1) for arm in ("mix", "persyn"))
    assert (mixed | ~calibrated).all()
    assert (bought(study, "persyn", draw=1).asked.any(axis=1) != calibrated).any()


def lines(*rights):
    """Return lines of one arm, (draw, seed, right) each."""
    return [{"draw": draw, "seed": seed, "right": right} for draw, seed, right in rights]


def test_differences_are_paired_within_draw_and_seed(folder):
    import analyse

    best = [line | {"arm": "best"} for line in lines((0, 0, 360), (0, 1, 396), (1, 0, 432), (2, 0, 720))]
    mix = [line | {"arm": "mix"} for line in lines((0, 0, 324), (0, 1, 324), (1, 0, 414), (1, 1, 0))]
    # draw 0: (36 + 72) / 2 = 54 of 720, 7.5 points; draw 1: 18 of 720, 2.5 points; seed 1 is in one arm only
    assert analyse.differences(best + mix, "best", "mix") == pytest.approx([7.5, 2.5])
    assert analyse.accuracy(best + mix, "best") == pytest.approx(100 * (378 + 432 + 720) / 3 / 720)
    assert analyse.shown(np.array([])) == "–" and analyse.shown(np.array([2.0])) == "+2.0"


def test_interval_is_students(folder):
    import analyse

    mean, low, high = analyse.interval(np.array([1.0, 2.0, 3.0]))
    assert (mean, low, high) == pytest.approx((2.0, 2 - 4.30265 / 3**0.5, 2 + 4.30265 / 3**0.5), abs=1e-4)


@pytest.mark.parametrize("student", ["qwen", "llama"])
def test_what_was_measured_is_whole(student, root):
    text = (root / f"docs/data/tiny-cost-{student}-student.jsonl").read_text(encoding="utf-8")
    measured = [json.loads(line) for line in text.splitlines()]
    keys = [(line["budget"], line["arm"], line["draw"], line["seed"]) for line in measured]
    assert len(set(keys)) == len(keys) > 0
    for line in measured:
        assert line["cells"] <= line["budget"]
        asked = [number for _, number in line["by_skill"].values()]
        assert sum(asked) == 720 and sum(right for right, _ in line["by_skill"].values()) == line["right"]
