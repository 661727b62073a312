"""Stage `assign`: every kind on three teachers and six prompts, worked by hand."""

import json

import numpy as np
import pytest
from datasets import Dataset
from rows import prompt, row

from persyn_hf.backends.routers import Labelled, RouterSettings, fit
from persyn_hf.errors import InputError, RecipeError
from persyn_hf.recipe.roles import Student, Teacher
from persyn_hf.recipe.strategies import KINDS
from persyn_hf.recipe.strict import read_section
from persyn_hf.schemas import ASSIGNMENTS, PROMPTS, REWARDS
from persyn_hf.stage import Context
from persyn_hf.stages import assign


TEACHERS = (
    Teacher(name="big", family="llama", params_b=405),
    Teacher(name="small", family="qwen", params_b=1.5),
    Teacher(name="thinker", family="qwen", params_b=7, long_cot=True),
)
POOL = [teacher.name for teacher in TEACHERS]
SPLITS = {"c1": "calibration", "c2": "calibration", "d1": "dev", "p1": "pool", "p2": "pool", "p3": "pool"}
# prompt -> (reward, quality_reward, learnability_reward, quality_raw, mean_logprob) of each teacher
MEASURED = {
    "c1": [(0.2, 1.0, 0.0, 1.0, -2.0), (0.9, 1.0, 0.5, 1.0, -0.5), (0.1, 0.0, 1.0, 0.0, -0.2)],
    "c2": [(0.3, 1.0, 0.0, 1.0, -2.0), (None, None, 0.4, None, -0.5), (0.8, 1.0, 1.0, 1.0, -0.2)],
    "d1": [(9.0, 1.0, 0.0, 9.0, -2.0), (0.0, 0.0, 0.0, 0.0, -0.5), (0.0, 0.0, 1.0, 0.0, -0.2)],
}
PLACES = ("reward", "quality_reward", "learnability_reward", "quality_raw", "mean_logprob")


def prompts(splits=SPLITS) -> Dataset:
    return PROMPTS.dataset([prompt(f"question {name}", name, split=split) for name, split in splits.items()])


def rewards(measured=MEASURED) -> Dataset:
    rows = [
        row(REWARDS, prompt_id=name, teacher=teacher, split=SPLITS[name], **dict(zip(PLACES, values, strict=True)))
        for name, cells in measured.items()
        for teacher, values in zip(POOL, cells, strict=True)
    ]
    return REWARDS.dataset(rows)


@pytest.fixture
def router(tmp_path):
    """Prefers `small` for every prompt, then `big`."""
    labelled = Labelled([[]], np.array([[0.4, 0.9, 0.1]]))
    fit(RouterSettings(kind="global_best"), POOL, labelled, Labelled([], np.zeros((0, 3))), tmp_path / "r", seed=0)
    return tmp_path / "r"


def run(tmp_path, kind, teachers=TEACHERS, student="qwen", seed=0, asked=None, **given):
    inputs = {key: given.pop(key) for key in ("rewards", "pool_rewards", "router", "base") if key in given}
    settings = read_section(assign.Settings, {"kind": kind, **given}, "assign")
    context = Context(
        seed=seed, work_dir=tmp_path, teachers=teachers, student=Student(name="s", model="m", family=student)
    )
    found = assign.run(settings, context, prompts=asked or prompts(), **inputs)
    ASSIGNMENTS.check(found.data, "assignments")
    assert json.loads(json.dumps(found.metrics)) == found.metrics
    return found


def chosen(found) -> dict[str, str]:
    return dict(zip(found.data["prompt_id"], found.data["teacher"], strict=True))


def test_all_gives_every_cell_of_calibration_and_dev(tmp_path):
    found = run(tmp_path, "all")
    cells = list(zip(found.data["prompt_id"], found.data["teacher"], strict=True))
    assert cells == [(p, t) for p in ("c1", "c2", "d1") for t in POOL]
    assert found.data["scores"][0] == [] and found.data["margin"][0] is None and found.counts["rule"] == 9
    assert chosen(run(tmp_path, "all", splits=["pool"])).keys() == {"p1", "p2", "p3"}


def test_persyn_takes_the_measured_best_where_it_is_paid_for_and_the_router_elsewhere(tmp_path, router):
    found = run(tmp_path, "persyn", rewards=rewards(), router=router)
    assert chosen(found) == {"c1": "small", "c2": "thinker", "p1": "small", "p2": "small", "p3": "small"}
    assert found.data["source"][:] == ["oracle", "oracle", "router", "router", "router"]
    assert found.data["scores"][1] == [0.3, None, 0.8]
    assert found.data["margin"][:] == pytest.approx([0.7, 0.5, 0.5, 0.5, 0.5])
    assert found.counts == {"router": 3, "oracle": 2, "rule": 0}
    assert found.metrics["allocation"] == {"big": 0.0, "small": 1.0, "thinker": 0.0}, "of the pool's prompts"


def test_persyn_without_rewards_asks_the_router_for_all(tmp_path, router):
    assert run(tmp_path, "persyn", router=router).counts["router"] == 5


def test_the_ablations_measure_with_one_reward_only(tmp_path, router):
    """Quality alone ties on c1: the better teacher on average of those measured. Learnability alone: the thinker."""
    without = chosen(run(tmp_path, "no_learnability", rewards=rewards(), router=router))
    assert without["c1"] in ("big", "small")
    assert chosen(run(tmp_path, "no_quality", rewards=rewards(), router=router))["c1"] == "thinker"
    with pytest.raises(RecipeError, match="no_quality means alpha 1.0, got alpha 0.4; leave `alpha` out"):
        run(tmp_path, "no_quality", rewards=rewards(), router=router, alpha=0.4)


def test_oracle_needs_every_prompt_measured(tmp_path):
    pool = {name: [(0.1, 0, 0, 0, 0), (0.2, 0, 0, 0, 0), (0.3, 0, 0, 0, 0)] for name in ("p1", "p2")}
    pool["p3"] = [(None, None, 0, None, 0)] * 3
    found = run(tmp_path, "oracle", rewards=rewards(), pool_rewards=rewards(pool))
    assert chosen(found) == {"c1": "small", "c2": "thinker", "p1": "thinker", "p2": "thinker", "p3": "small"}
    assert found.counts == {"router": 0, "oracle": 4, "rule": 1}, "nobody's answer to p3 could be judged"
    with pytest.raises(InputError) as caught:
        run(tmp_path, "oracle", rewards=rewards(), pool_rewards=rewards({"p1": pool["p1"]}))
    assert str(caught.value) == (
        "oracle needs rewards of every prompt, 2 have none (first p2); "
        "generate and score all teachers on them, or leave their split out of `splits`"
    )


@pytest.mark.parametrize(
    ("kind", "settings", "teacher"),
    [
        ("strong", {}, "big"),
        ("strong", {"teacher": "small"}, "small"),
        ("family_strong", {}, "thinker"),
        ("car", {}, "small"),  # 1 / 7, 1 / 2.5, 0.5 / 1.6; dev would turn it to `big`
        ("car", {"beta": 0}, "small"),  # 1, 1, 0.5: a tie, the lower loss
        ("best_mean_reward", {}, "small"),  # 0.25, 0.9, 0.45
        ("best_mean_reward", {"alpha": 1}, "thinker"),
    ],
)
def test_one_teacher_for_all(tmp_path, kind, settings, teacher):
    found = run(tmp_path, kind, rewards=rewards(), **settings)
    assert set(chosen(found).values()) == {teacher}
    assert found.metrics["chosen"] == teacher
    assert found.metrics["effective_teachers"] == 1 and found.data["source"][0] == "rule"


def test_the_values_behind_the_choice_are_reported(tmp_path):
    values = run(tmp_path, "car", rewards=rewards()).metrics["values"]
    assert values == pytest.approx({"big": 1 / 7, "small": 1 / 2.5, "thinker": 0.5 / 1.6})
    assert run(tmp_path, "family_strong").metrics["values"] == {"big": None, "small": 1.5, "thinker": 7.0}


def test_mix_is_drawn_from_the_seed(tmp_path):
    many = prompts({f"p{i}": "pool" for i in range(3000)})
    found = run(tmp_path, "mix", asked=many, weights={"big": 1, "small": 4})
    assert found.metrics["allocation"] == pytest.approx({"big": 0.2, "small": 0.8, "thinker": 0}, abs=0.03)
    assert chosen(found) == chosen(run(tmp_path, "mix", asked=many, weights={"big": 1, "small": 4}))
    uniform = run(tmp_path, "mix", asked=many, seed=1)
    assert uniform.metrics["effective_teachers"] == pytest.approx(3, abs=0.01)
    with pytest.raises(RecipeError, match="`weights` names the teacher `smal`, did you mean `small`?"):
        run(tmp_path, "mix", weights={"smal": 1})


def test_reassign_sends_the_long_cot_prompts_elsewhere(tmp_path, router):
    base = run(tmp_path, "persyn", rewards=rewards(), router=router)
    found = run(tmp_path, "reassign", base=base.data, to_teacher="big")
    assert chosen(found) == {"c1": "small", "c2": "big", "p1": "small", "p2": "small", "p3": "small"}
    assert found.data["source"][:2] == ["oracle", "rule"] and found.data["margin"][1] is None
    assert found.metrics["reassigned"] == 1
    other = run(tmp_path, "reassign", base=base.data, to_teacher="big", from_teachers=["small"])
    assert other.metrics["reassigned"] == 4
    rule = run(tmp_path, "strong")
    assert run(tmp_path, "reassign", base=rule.data, to_teacher="small").metrics["reassigned"] == 0
    with pytest.raises(InputError, match="in the order of the prompts, found another order, too few or too many"):
        run(tmp_path, "reassign", base=run(tmp_path, "all").data, to_teacher="big")
    with pytest.raises(RecipeError, match="reassign found no Long-CoT teacher in the pool; name whom to replace"):
        run(tmp_path, "reassign", base=base.data, to_teacher="big", teachers=TEACHERS[:2])


@pytest.mark.parametrize(
    ("kind", "missing"),
    [("persyn", "router"), ("oracle", "pool_rewards"), ("car", "rewards"), ("reassign", "base")],
)
def test_missing_inputs(tmp_path, kind, missing):
    with pytest.raises(RecipeError) as caught:
        run(tmp_path, kind)
    assert str(caught.value) == f"the strategy {kind} needs the input `{missing}`, got none; add it to `inputs`"


def test_a_router_of_another_pool(tmp_path, router):
    with pytest.raises(InputError) as caught:
        run(tmp_path, "persyn", router=router, teachers=TEACHERS[:2])
    assert str(caught.value) == (
        "the router was trained for the teachers big, small, thinker, the pool is big, small; "
        "train it again, or name the same teachers in the same order"
    )


def test_rules_that_lack_what_they_need(tmp_path):
    unsized = (*TEACHERS[:2], Teacher(name="new"))
    with pytest.raises(RecipeError, match="`new` has no `params_b`; set it for every teacher, or name the strongest"):
        run(tmp_path, "strong", teachers=unsized)
    with pytest.raises(RecipeError, match="of the student's family `gemma` other than the strongest of all"):
        run(tmp_path, "family_strong", student="gemma")
    with pytest.raises(InputError, match="the rewards hold no calibration prompt, some are needed to choose"):
        run(tmp_path, "car", rewards=rewards({"d1": MEASURED["d1"]}))
    with pytest.raises(InputError, match="no prompt is in the splits dev, at least one is needed; see `prompts`"):
        run(tmp_path, "strong", splits=["dev"], asked=prompts({"p1": "pool"}))
    with pytest.raises(RecipeError, match="assign: unknown key `teachr`, did you mean `teacher`?"):
        run(tmp_path, "strong", teachr="big")


def test_every_strategy_of_the_recipe_is_known_here():
    for kind in KINDS:
        assert assign.Settings(kind=kind).kind == kind
