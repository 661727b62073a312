"""Routers and assignments, from Python: they decide as the stages do."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import persyn_hf
from persyn_hf.errors import PersynError
from persyn_hf.recipe.roles import Teacher
from persyn_hf.schemas import ASSIGNMENTS, PROMPTS, REWARDS
from persyn_hf.stage import Context
from persyn_hf.stages import assign as stage


POOL = ("words", "sums", "both")
NEW = ["write a poem about the sea", "what is 7 plus 8", "tell me a story", "what is 3 minus 2"]


def prompt(number: int) -> str:
    return f"what is {number} plus {number + 3}" if number % 2 else f"write a poem about the {number} seas"


def cells(number: int = 120) -> list[dict[str, Any]]:
    """Rewards that the words of a prompt decide, with some noise that does not turn them."""
    noise = np.random.default_rng(0).uniform(-0.2, 0.2, (number, len(POOL)))
    means = {0: (0.9, 0.1, 0.5), 1: (0.1, 0.9, 0.5)}
    return [
        {"prompt": prompt(row), "teacher": name, "reward": means[row % 2][place] + noise[row, place]}
        for row in range(number)
        for place, name in enumerate(POOL)
    ]


@pytest.fixture(scope="module")
def router() -> persyn_hf.Router:
    return persyn_hf.train_router(cells(), kind="ridge")


def test_a_router_learns_who_is_good_at_what(router: persyn_hf.Router) -> None:
    assert router.teachers == POOL
    predicted = router.predict(NEW)
    assert predicted["teacher"][:] == ["words", "sums", "words", "sums"]
    assert predicted.column_names == ["prompt_id", "teacher", "scores", "margin", "confidence"]
    assert all(0.8 < value <= 1 for value in predicted["confidence"])
    for row in predicted:
        first, second = sorted(row["scores"])[:-3:-1]
        assert row["margin"] == first - second and POOL[int(np.argmax(row["scores"]))] == row["teacher"]
    assert router.metrics["router"]["hit_at_1"]["value"] > 0.9


def test_a_prediction_does_not_depend_on_the_others(router: persyn_hf.Router) -> None:
    together = router.predict(NEW).to_list()
    assert [router.predict([each]).to_list()[0] for each in NEW] == together
    turns = [[{"role": "system", "content": "x"}, {"role": "user", "content": each}] for each in NEW]
    assert router.predict(turns)["scores"][:] == router.predict(NEW)["scores"][:], "routers read the user's turns"
    assert router.predict({"prompt": NEW, "split": ["dev", "pool", "train", None]}).to_list() == together
    assert len(router.predict([])) == 0


def test_a_saved_router_predicts_as_before(router: persyn_hf.Router, tmp_path: Path) -> None:
    router.save(tmp_path / "mine")
    loaded = persyn_hf.load_router(tmp_path / "mine")
    assert loaded.predict(NEW).to_list() == router.predict(NEW).to_list()
    assert dict(loaded.metrics) == router.metrics
    (tmp_path / "mine" / "learned.json").unlink()
    bare = persyn_hf.load_router(tmp_path / "mine").predict(NEW)
    assert bare["teacher"][:] == router.predict(NEW)["teacher"][:] and set(bare["confidence"]) == {None}


def of_contracts(dev: int, pool: list[str]) -> tuple[Any, Any]:
    """Prompts and rewards as a recipe has them: the last `dev` measured prompts are dev."""
    rows = cells()
    asked = list(dict.fromkeys(row["prompt"] for row in rows))
    split_of = {each: "dev" if place >= len(asked) - dev else "calibration" for place, each in enumerate(asked)}
    prompts = [{"prompt": each, "split": split_of.get(each, "pool")} for each in [*asked, *pool]]
    return [row | {"split": split_of[row["prompt"]]} for row in rows], prompts


def staged(prompts: Any, rewards: Any, folder: Path, work_dir: Path, **settings: Any) -> list[dict[str, Any]]:
    """What the stage `assign` makes of the same."""
    from persyn_hf.api.rewarding import labelled

    known, asked = labelled(rewards, prompts)
    PROMPTS.check(asked, "prompts")
    REWARDS.check(known, "rewards")
    context = Context(seed=0, work_dir=work_dir, teachers=tuple(Teacher(name=name) for name in POOL))
    chosen = stage.Settings(kind="persyn", **settings)
    return stage.run(chosen, context, prompts=asked, rewards=known, router=folder).data.to_list()


@pytest.mark.parametrize("settings", [{}, {"per_prompt": 2}, {"per_prompt": 2, "confidence": 0.9}])
def test_prompts_are_assigned_as_the_stage_does(settings: dict[str, Any], tmp_path: Path) -> None:
    rewards, prompts = of_contracts(30, NEW)
    router = persyn_hf.train_router(rewards, prompts, kind="ridge")
    router.save(tmp_path / "router")
    expected = staged(prompts, rewards, tmp_path / "router", tmp_path, **settings)
    assigned = persyn_hf.assign(prompts, router, rewards=rewards, **settings)
    ASSIGNMENTS.check(assigned, "assignments")
    assert assigned.to_list() == expected
    of_pool = [row for row in expected if row["source"] == "router"]
    assert len({row["prompt_id"] for row in of_pool}) == len(NEW)
    alone = persyn_hf.assign(NEW, router, **settings).to_list()
    assert alone == of_pool, "what the router knows of dev takes the place of rewards"


def test_a_budget_is_kept(router: persyn_hf.Router) -> None:
    asked = [prompt(number) for number in range(0, 200, 2)]
    free = persyn_hf.assign(asked, router)["teacher"][:]
    assert free.count("words") == 100
    kept = persyn_hf.assign(asked, router, budget={"max": {"words": 0.25}})["teacher"][:]
    assert kept.count("words") == 25


def test_other_strategies() -> None:
    rewards, prompts = of_contracts(0, [])
    best = persyn_hf.assign(prompts, strategy="oracle", rewards=rewards)
    assert best["teacher"][:2] == ["words", "sums"] and set(best["source"]) == {"oracle"}
    drawn = persyn_hf.assign(NEW, strategy="mix", teachers=["x", "y"], weights={"y": 1}, seed=3)
    assert drawn["teacher"][:] == ["y"] * 4
    sizes = [{"name": "x", "params_b": 7}, {"name": "y", "params_b": 72}]
    assert persyn_hf.assign(NEW, strategy="strong", teachers=sizes)["teacher"][:] == ["y"] * 4
    one = persyn_hf.assign([*NEW, *prompts_of(rewards)], strategy="best_mean_reward", rewards=rewards)
    assert len(set(one["teacher"])) == 1 and len(one) == 124


def prompts_of(rewards: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row["prompt"] for row in rewards))


def test_rewards_of_alone_may_be_all_there_is() -> None:
    rows = [row | {"quality": row["reward"] > 0.5, "learnability": row["reward"]} for row in cells()]
    made = persyn_hf.rewards(rows)
    first = persyn_hf.train_router(made, rows, kind="knn", seed=4)
    again = persyn_hf.train_router(made.to_pandas(), prompts_of(rows), kind="knn", seed=4)
    assert first.predict(NEW).to_list() == again.predict(NEW).to_list()
    weighed = persyn_hf.train_router(made, rows, kind="ridge", alpha=0.0)
    assert weighed.predict(NEW)["teacher"][:] == ["words", "sums", "words", "sums"]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda _: persyn_hf.train_router(cells(), kind="forest"), "train_router.kind: input should be 'auto', "),
        (lambda _: persyn_hf.train_router(cells(), kind="ridge", ridge=1), "unknown key `ridge`, did you mean"),
        (lambda _: persyn_hf.train_router(cells(), dev=1.5), "`dev` must be a share between 0 and 1, got 1.5"),
        (lambda _: persyn_hf.train_router(cells(3), kind="ridge"), "calibration prompts have rewards of two teachers"),
        (lambda _: persyn_hf.train_router([{"prompt": "x", "teacher": "a"}]), "`rewards` has no column `reward`"),
        (
            lambda _: persyn_hf.train_router([{"prompt": "x", "teacher": "a", "reward": "1"}]),
            "must be a number, true,",
        ),
        (
            lambda r: persyn_hf.assign([{"prompt": "x", "split": "test"}], r),
            "`split` of row 0 must be calibration, dev",
        ),
        (lambda _: persyn_hf.load_router("me/none@v1", store="empty"), "me/none@v1 is not in the store"),
        (lambda _: persyn_hf.assign(NEW), "the strategy persyn needs a `router`, got none"),
        (lambda _: persyn_hf.assign(NEW, strategy="mix"), "`assign` needs to know the `teachers`, got none"),
        (
            lambda _: persyn_hf.assign(NEW, strategy="oracel"),
            "`strategy` 'oracel' is not known, did you mean `oracle`?",
        ),
        (
            lambda _: persyn_hf.assign(NEW, strategy="oracle", teachers=["a"]),
            "the strategy oracle needs `rewards`, got none",
        ),
        (lambda r: persyn_hf.assign(NEW, r, teachers=["words", "sums"]), "the router was trained for the teachers"),
        (lambda _: persyn_hf.assign(NEW, "me/router@v1"), "me/router@v1 is not in the store"),
        (
            lambda _: persyn_hf.assign(NEW, Path("nix")),
            "the folder nix does not exist; give a folder that `Router.save`",
        ),
        (lambda _: persyn_hf.assign(NEW, 3), "`router` must be a Router, NAMESPACE/NAME@TAG or a folder, got int"),
        (lambda r: persyn_hf.assign(NEW, r, teachers="words"), "`teachers` must be a list of names or dicts, got str"),
        (lambda r: persyn_hf.assign(NEW, r, teachers=[3]), "`teachers` must hold names or dicts, got int 3"),
        (lambda r: persyn_hf.assign(NEW, r, budget="x"), "`budget` must be a dict as in a recipe, got str"),
        (lambda r: persyn_hf.assign(NEW, r, seed="a"), "`seed` must be a whole number, got str 'a'"),
        (lambda _: persyn_hf.train_router(cells(), dev="0.2"), "`dev` must be a number, got str '0.2'"),
        (lambda _: persyn_hf.load_router(None), "`ref` must be NAMESPACE/NAME@TAG or a folder, got NoneType"),
        (lambda _: persyn_hf.load_router("./nix"), "the folder ./nix does not exist"),
        (lambda _: persyn_hf.load_router("a/b@v1", store=3), "the store must be a folder, got int"),
        (lambda _: persyn_hf.load_artifact(None), "`ref` must be NAMESPACE/NAME@TAG, got NoneType"),
        (lambda _: persyn_hf.export(None, "x"), "`ref` must be NAMESPACE/NAME@TAG, got NoneType"),
        (lambda _: persyn_hf.export("a/b@v1", None), "`folder` must be a folder, got NoneType"),
        (lambda _: persyn_hf.export("a/b@v1", "x", to=[1]), "`to` [1] is no form of export"),
        (lambda _: persyn_hf.plan("persyn:tiny/demo", overrides="until=mix"), "`overrides` must be a list of"),
        (lambda _: persyn_hf.plan("persyn:tiny/demo", overrides=[3]), "`overrides` must hold texts"),
        (lambda r: persyn_hf.assign(NEW, r, per_prompt=0), "assign.per_prompt: must be at least 1"),
        (
            lambda r: persyn_hf.assign(NEW, r, budget={"cost": "money", "total": 1}),
            "a budget in money needs `responses`, the",
        ),
    ],
)
def test_what_is_wrong_is_said(
    router: persyn_hf.Router, call: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PersynError) as error:
        call(router)
    assert said in str(error.value)


def test_a_router_is_loaded_from_its_folder(router: persyn_hf.Router, tmp_path: Path) -> None:
    router.save(tmp_path / "router")
    chosen = persyn_hf.assign(NEW, tmp_path / "router")
    assert chosen.to_list() == persyn_hf.assign(NEW, str(tmp_path / "router")).to_list()
    assert chosen.to_list() == persyn_hf.assign(NEW, router).to_list()


@pytest.mark.heavy
def test_a_stored_router_assigns_as_the_run_did(finished: tuple[Path, float]) -> None:
    store = finished[0]
    router = persyn_hf.load_router("tiny/smoke-router-qwen-student@v1", store=store)
    stored = persyn_hf.load_artifact("tiny/smoke-assignments-qwen-student-persyn@v1", split="pool", store=store)
    prompts = persyn_hf.load_artifact("tiny/smoke-prompts@v1", split="pool", store=store)
    assert stored.remove_columns(["source", "split"]).to_list() == router.predict(prompts).to_list()
    with pytest.raises(PersynError, match="is of kind `rewards`, needed is a router"):
        persyn_hf.load_router("tiny/smoke-rewards-qwen-student@v1", store=store)
    with pytest.raises(PersynError, match="did you mean tiny/smoke-router-qwen-student@v1"):
        persyn_hf.load_router("tiny/smoke-rewards-qwen-student@v2", store=store)
