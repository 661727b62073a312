"""`train_router` with the llm kind: from rewards, from pairs alone, with two heads; and what its card says."""

import re
from typing import Any

import numpy as np
import pytest
from corpora import TEACHERS, corpus
from datasets import Dataset
from rows import prompt, reward

from persyn_hf.backends.routers import load
from persyn_hf.errors import RecipeError
from persyn_hf.recipe.recipe import Recipe
from persyn_hf.recipe.roles import Teacher
from persyn_hf.recipe.strict import read_section
from persyn_hf.runner.plan import make_plan
from persyn_hf.schemas import PROMPTS, REWARDS
from persyn_hf.stage import Context, Result
from persyn_hf.stages import pair, train_router
from persyn_hf.store.cards.card import render_card
from persyn_hf.store.manifest import Manifest


CALIBRATION, DEV, ALPHA = 60, 20, 0.3


def data() -> dict[str, Dataset]:
    """Prompts and rewards of `corpora.corpus`, learnability the other way round."""
    found = corpus(CALIBRATION + DEV, 1)
    asked, scored = [], []
    for number, (messages, quality) in enumerate(zip(found.conversations, found.rewards, strict=True)):
        name, split = f"{number:03d}", "calibration" if number < CALIBRATION else "dev"
        asked.append(prompt("", name, messages=messages, split=split))
        for teacher, quality_of in zip(TEACHERS, quality.tolist(), strict=True):
            parts = {"quality_reward": quality_of, "learnability_reward": 1 - quality_of}
            value = (1 - ALPHA) * quality_of + ALPHA * (1 - quality_of)
            scored.append(reward(name, teacher, value, split=split, **parts))
    return {"prompts": PROMPTS.dataset(asked), "rewards": REWARDS.dataset(scored)}


def context(folder: Any) -> Context:
    folder.mkdir(exist_ok=True)
    return Context(seed=0, work_dir=folder, teachers=tuple(Teacher(name=name) for name in TEACHERS))


def run(backbone: Any, folder: Any, inputs: dict[str, Dataset], **changes: Any) -> Result:
    values = {"kind": "llm", "backbone": str(backbone), "learning_rate": 3e-3, "head_learning_rate": 1e-2, "epochs": 3}
    values |= {"device": "cpu", "batch_size": 16, **changes}
    return train_router.run(read_section(train_router.Settings, values, "train_router"), context(folder), **inputs)


def test_pairs_do_instead_of_rewards(backbone, tmp_path):
    """The same training; dev is judged by the shares of its comparisons that a teacher won."""
    given = data()
    compared = pair.run(pair.Settings(), context(tmp_path), **given)
    by_rewards = run(backbone, tmp_path / "rewards", given, validation_share=0)
    by_pairs = run(
        backbone, tmp_path / "pairs", {"prompts": given["prompts"], "pairs": compared.data}, validation_share=0
    )
    assert by_rewards.metrics["training"] == by_pairs.metrics["training"]
    assert by_rewards.counts == by_pairs.counts
    assert by_pairs.metrics["oracle"]["reward"]["value"] == 1  # the best won all of its comparisons
    asked = given["prompts"]["messages"][:5]
    scores = [load(found.data, "cpu").scores(asked) for found in (by_rewards, by_pairs)]
    assert (scores[0] == scores[1]).all()


def test_without_dev_the_prompts_that_chose_the_epoch_judge_the_router(backbone, tmp_path):
    given = data()
    given = {name: rows.filter(lambda row: row["split"] == "calibration") for name, rows in given.items()}
    found = run(backbone, tmp_path / "nodev", given)
    own = found.metrics["by_calibration"]
    assert (own["folds"], own["prompts"], own["cells"]) == (None, 9, 9 * len(TEACHERS))  # 15 % of 60
    assert own["gain"]["low"] <= own["gain"]["value"] <= own["gain"]["high"]
    assert found.counts["dev_prompts"] == 0 and found.metrics["router"]["regret"]["value"] is not None


def test_one_of_rewards_and_pairs_is_given(backbone, tmp_path):
    given = data()
    message = "`train_router` needs the input `rewards` or the input `pairs`, got {}; give one"
    with pytest.raises(RecipeError) as caught:
        run(backbone, tmp_path, {"prompts": given["prompts"]})
    assert str(caught.value) == message.format("none")
    compared = pair.run(pair.Settings(), context(tmp_path), **given).data
    with pytest.raises(RecipeError) as caught:
        run(backbone, tmp_path, {**given, "pairs": compared})
    assert str(caught.value) == message.format("both")
    with pytest.raises(RecipeError) as caught:
        run(backbone, tmp_path, {"prompts": given["prompts"], "pairs": compared}, objective="two_head")
    assert str(caught.value) == "the objective `two_head` needs rewards, got pairs; take `bt`"


def test_auto_takes_llm_where_it_is_named(backbone, tmp_path):
    given = {"backbone": str(backbone), "device": "cpu", "epochs": 4}
    given |= {"learning_rate": 3e-3, "head_learning_rate": 1e-2, "batch_size": 16}
    found = run(backbone, tmp_path, data(), kind="auto", candidates=["global_best", {"kind": "llm", **given}])
    regrets = [one["regret"] for one in found.metrics["training"]["candidates"]]
    assert regrets[1] < regrets[0] and found.metrics["training"]["chosen"].startswith("llm")
    assert found.metrics["training"]["steps"] <= 4 * 4
    assert found.metrics["router"]["regret"]["value"] == pytest.approx(regrets[1], abs=1e-9)


def test_pairs_that_a_recipe_pins_are_what_its_router_is_trained_on():
    recipe = Recipe.model_validate(
        {
            "name": "r",
            "until": "train_router",
            "teachers": [{"name": name, "model": "org/model"} for name in TEACHERS],
            "students": [{"name": "s"}],
            "strategies": ["persyn"],
            "prompts": {"path": "/dev/null", "columns": {"prompt": "q"}},
            "inputs": {"pairs": "org/x-pairs-s@v1"},
        }
    )
    steps = {step.key: step for step in make_plan(recipe)}
    assert steps["router-s"].inputs == {"prompts": "prompts", "pairs": "org/x-pairs-s@v1"}
    assert not {"rewards-s", "responses", "pairs-s"} & set(steps), "nothing is generated or scored for it"


@pytest.mark.parametrize("objective", ["bt", "two_head"])
def test_the_card_shows_how_to_score_without_our_code(objective, backbone, tmp_path):
    found = run(backbone, tmp_path / "work", data(), objective=objective)
    training = found.metrics["training"]
    assert (training["prompts"], training["pairs"]) == (51, 51 * 3 * (2 if objective == "two_head" else 1))
    assert training["steps"] == 3 * 4 and training.get("alpha") == (ALPHA if objective == "two_head" else None)
    manifest = Manifest(
        repo="org/x-router-s",
        kind="router",
        schema_version=1,
        stage="train_router",
        settings={"kind": "llm"},
        seed=0,
        fingerprint="f" * 64,
        metrics=found.metrics,
    )
    card = render_card(manifest, "v1")
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", card, re.DOTALL) if "AutoModel" in block)
    assert code.count('from_pretrained("org/x-router-s", revision="v1")') == 2
    names: dict[str, Any] = {}
    exec(code.replace('"org/x-router-s", revision="v1"', repr(str(found.data))), names)  # noqa: S102
    expected = load(found.data, "cpu").scores([names["turns"]])[0]
    np.testing.assert_allclose(names["scores"].detach().numpy(), expected, atol=1e-5)
    assert ("`assign.alpha` weighs the two anew" in card) == (objective == "two_head")
