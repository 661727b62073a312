"""What a fingerprint covers: everything that changes the content of an artifact, and nothing else."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import BaseModel

from persyn_hf.recipe.file import load_recipe
from persyn_hf.recipe.recipe import STAGES
from persyn_hf.recipe.roles import Price
from persyn_hf.recipe.strict import _model_of
from persyn_hf.runner.fingerprint import covered_settings, fingerprint, not_covered, path_digest
from persyn_hf.runner.plan import make_plan
from persyn_hf.runner.step import Step


def step(root: Path, key: str, *overrides: str) -> Step:
    recipe = load_recipe(root / "recipes/tiny/smoke.yaml", overrides)
    return next(step for step in make_plan(recipe) if step.key == key)


@pytest.mark.parametrize(
    ("key", "override", "same"),
    [
        ("rewards-qwen-student", "score.alpha=0.3", False),
        ("rewards-qwen-student", "score.batch_tokens=99", True),
        ("rewards-qwen-student", "generate.max_tokens=7", True),
        ("responses", "generate.max_tokens=7", False),
        ("responses", "generate.device=cpu", True),
        ("responses", "generate.executor={kind: ray, replicas: 3}", True),
        ("rewards-qwen-student", "score.executor={kind: ray, replicas: 3, shared: /tmp}", True),
        ("router-qwen-student", "train_router.executor={kind: ray, max_restarts: 1}", True),
        ("assignments-qwen-student-persyn", "assign.executor={kind: ray}", True),
        ("student-qwen-student-persyn", "train_student.executor={kind: ray}", True),
        ("evaluation-qwen-student-base", "evaluate.executor={kind: ray}", True),
        ("responses", "generate.server={urls: ['http://h/v1'], timeout_s: 5}", True),
        ("responses", "generate.server={extra: {reasoning_effort: low}}", False),
        ("responses", "generate.vllm={tensor_parallel_size: 4}", True),
        ("responses", "generate.vllm={args: ['--quantization', fp8]}", False),
        ("responses", "generate.rerun=[errors]", False),
        ("assignments-all", "assign.beta=9", False),
        ("prompts", "prompts.dev=3", False),
        ("prompts", "prompts.reference_lists=null", True),
        ("prompts", "prompts.reference_lists=any", False),
    ],
)
def test_settings(root: Path, key: str, override: str, same: bool) -> None:
    one, other = fingerprint(step(root, key), 0, {}), fingerprint(step(root, key, override), 0, {})
    assert (one == other) is same


def test_seed_inputs_and_models_count(root: Path, tmp_path: Path) -> None:
    one = step(root, "responses")
    base = fingerprint(one, 0, {"prompts": "a"})
    teacher = one.teachers[0]
    priced = teacher.model_copy(update={"price": Price(prompt=1), "server": {"urls": ["http://h/v1"]}})
    assert fingerprint(replace(one, teachers=(priced, *one.teachers[1:])), 0, {"prompts": "a"}) == base
    told = teacher.model_copy(update={"server": {"extra": {"top_k": 5}}})
    assert fingerprint(replace(one, teachers=(told, *one.teachers[1:])), 0, {"prompts": "a"}) != base
    assert fingerprint(one, 1, {"prompts": "a"}) != base
    assert fingerprint(one, 0, {"prompts": "b"}) != base
    others = step(root, "responses", "teachers=[{name: a, model: x/a}, {name: b, model: x/b}]", "strategies=[mix]")
    assert fingerprint(others, 0, {"prompts": "a"}) != base


def priced(root: Path, cost: str, price: float) -> Step:
    teachers = json.dumps(
        [{"name": n, "model": f"x/{n}", "params_b": 1, "price": {"completion": price}} for n in "ab"]
    )
    strategy = f"{{kind: persyn, name: p, budget: {{cost: {cost}, lambda: 0.1}}}}"
    return step(root, "assignments-qwen-student-p", f"teachers={teachers}", f"strategies=[{strategy}]")


@pytest.mark.parametrize(("cost", "same"), [("money", False), ("flops", True)])
def test_prices_count_where_a_budget_in_money_goes_by_them(root: Path, cost: str, same: bool) -> None:
    one, other = (fingerprint(priced(root, cost, price), 0, {}) for price in (1, 2))
    assert (one == other) is same


def test_files_count_by_content_not_by_place(tmp_path: Path) -> None:
    for name, text in (("one", "x"), ("two", "x"), ("three", "y")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text(text)
    assert path_digest(tmp_path / "one") == path_digest(tmp_path / "two") != path_digest(tmp_path / "three")


def test_what_is_not_covered_exists(root: Path) -> None:
    steps = make_plan(load_recipe(root / "recipes/tiny/smoke.yaml"))
    assert {planned.stage for planned in steps} == set(STAGES)
    assert any(hasattr(planned.module, "LATER") for planned in steps)
    for planned in steps:
        known = keys_of(type(planned.settings))
        assert {key.replace("judge.panel.", "judge.") for key in not_covered(planned)} <= known, planned.stage
        assert getattr(planned.module, "LATER", {}).keys() <= known, planned.stage


def keys_of(model: type[BaseModel]) -> set[str]:
    """The settings of a stage, as `key` or `section.key`, of sections that may be left out, too."""
    found = set(model.model_fields)
    for key, info in model.model_fields.items():
        inner = _model_of(info)
        found |= {f"{key}.{name}" for name in keys_of(inner)} if inner else set()
    return found


def test_where_a_judge_of_a_panel_is_asked_is_not_covered(root: Path) -> None:
    def print_of(**panel: object) -> str:
        judge = {"model": "x", "server": {"urls": ["http://a"]}, "panel": [{"model": "y", **panel}]}
        one = step(root, "rewards-qwen-student", "score.quality=judge", f"score.judge={json.dumps(judge)}")
        return fingerprint(one, 0, {})

    urls = {"server": {"urls": ["http://b"]}, "price": {"completion": 2}}
    assert print_of() == print_of(**urls) != print_of(revision="z")
    assert print_of(server={"extra": {"seed": None}}) != print_of()


def test_a_setting_that_came_later_is_left_out_while_it_says_what_held_before(root: Path) -> None:
    """The example of the Space was stored before `score.near_tie` was a setting."""
    now = step(root, "rewards-qwen-student")
    path = root / "spaces/allocations/example/example-rewards-qwen-student/v1/persyn.json"
    assert covered_settings(now).keys() == json.loads(path.read_text())["settings"].keys()
    said = step(root, "rewards-qwen-student", "score.near_tie=1e-6")
    other = step(root, "rewards-qwen-student", "score.near_tie=0")
    assert fingerprint(said, 0, {}) == fingerprint(now, 0, {}) != fingerprint(other, 0, {})
    assert covered_settings(other)["near_tie"] == 0


def test_a_setting_in_a_section_can_come_later_too(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = step(root, "rewards-qwen-student")
    monkeypatch.setattr(planned.module, "LATER", {"reward_model.max_length": 16384, "alpha": 0.3})
    settings = covered_settings(planned)
    assert "max_length" not in settings["reward_model"] and settings["alpha"] == 0.4
