"""Recipes are read strictly; each fault is one sentence that names what was found and what is needed."""

import importlib
import pkgutil
from pathlib import Path
from typing import get_args

import pytest

import persyn_hf
from persyn_hf.errors import RecipeError
from persyn_hf.recipe.file import load_recipe
from persyn_hf.recipe.strict import Strict
from persyn_hf.runner.plan import make_plan


MINIMAL = """
name: small
teachers: [{name: a, model: ./a}, {name: b, model: org/b}]
students: [{name: s, model: ./s}]
prompts: {path: ./q.jsonl, columns: {prompt: question}}
"""


def write(folder: Path, text: str, name: str = "r.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_paths_count_from_the_file_that_names_them(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    write(tmp_path, MINIMAL, "base.yaml")
    recipe = load_recipe(write(tmp_path / "deep", "extends: ../base.yaml\nname: child\n"))
    assert recipe.teachers[0].model == str(tmp_path / "a")
    assert recipe.teachers[1].model == "org/b"
    assert recipe.name == "child"


def test_a_path_needs_no_dot_and_that_of_set_counts_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    path = write(tmp_path, MINIMAL.replace("./q.jsonl", "q.jsonl"))
    assert load_recipe(path).prompts["path"] == str(tmp_path / "q.jsonl")
    assert load_recipe(path, ["prompts.path=q.jsonl"]).prompts["path"] == str(tmp_path / "here" / "q.jsonl")
    assert load_recipe(path, ["teachers=[{name: a, model: ./a}, {name: b, model: c/d}]"]).teachers[0].model == str(
        tmp_path / "here" / "a"
    )


def test_set_goes_on_top_and_lists_are_set_whole(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, MINIMAL), ["score.alpha=0.3", "strategies=[mix, car]", "seed=7"])
    assert recipe.score == {"alpha": 0.3}
    assert [strategy.kind for strategy in recipe.strategies] == ["mix", "car"]
    assert recipe.seed == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("stratgies: [mix]", "r.yaml: unknown key `stratgies`, did you mean `strategies`? (known: name, namespace, "),
        ("seed: three", "r.yaml.seed: input should be a valid integer, got 'three'"),
        ("seed: -1", "r.yaml.seed: must be at least 0, got -1"),
        ("name: a/b", "r.yaml.name: must be letters, digits, `.`, `_` or `-`, at most 64 characters"),
        (
            "teachers: [{name: a}, {name: a}]",
            "r.yaml: two teachers are named `a`; give each a name of its own",
        ),
        (
            "teachers: [{name: a}]",
            "r.yaml: `teachers` must name at least two, found only `a`; with one there is nothing to route",
        ),
        ("teachers: [{name: a, modell: x}, {name: b}]", "unknown key `modell`, did you mean `model`?"),
        ("students: []", "r.yaml: `students` must name at least one"),
        ("strategies: [persin]", "input should be 'persyn', 'oracle',"),
        ("strategies: [persin]", "got 'persin', did you mean `persyn`?"),
        (
            "strategies: [mix, strong]",
            "r.yaml: strategy `strong` finds the strongest teacher by size and `a` has no `params_b`; set it for "
            "every teacher, or name the strategy's `teacher`",
        ),
        (
            "strategies: [{kind: strong, teacher: bb}]",
            "r.yaml: strategy `strong` names the teacher `bb`, did you mean `b`? (known: a, b)",
        ),
        (
            "teachers: [{name: a, params_b: 2}, {name: b, params_b: 1}]\n"
            "strategies: [{kind: strong, teacher: b}, family_strong]",
            "r.yaml: strategy `family_strong` takes the largest teacher for the strongest of all and leaves it out, "
            "but `strong` names `b`, a smaller one; name the `teacher` of `family_strong` too",
        ),
        (
            "strategies: [{kind: reassign}]",
            "r.yaml: strategy `reassign` of kind reassign needs `base` and `to_teacher`",
        ),
        (
            "strategies: [{kind: reassign, base: persyn, to_teacher: a}, persyn]",
            "r.yaml: strategy `reassign`: its base `persyn` must stand before it",
        ),
    ],
)
def test_a_fault_in_the_recipe_is_one_sentence(tmp_path: Path, change: str, message: str) -> None:
    key = change.split(":")[0]
    kept = "\n".join(line for line in MINIMAL.splitlines() if not line.startswith(f"{key}:"))
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(tmp_path, f"{kept}\n{change}\n"))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("score.alpa=0.3", "score: unknown key `alpa`, did you mean `alpha`?"),
        ("score.alpha=2", "score.alpha: must be at least 0 and at most 1, got 2"),
        ("score.alpha=high", "score.alpha: input should be a valid number, got 'high'"),
        ("assign.kind=mix", "assign: `kind` is decided by the strategies; set it there, not here"),
        ("name.first=x", "--set name.first=x: `name` is no mapping; lists are set whole, as YAML"),
        ("seed", "--set takes key.subkey=value, got `seed`"),
        ("seed=[1", "--set seed=[1 cannot be read: while parsing a flow sequence"),
        ("students=[{name: s}]", "the student `s` has no `model`, but the recipe goes on to train_student; name its"),
        ("inputs.rewards-t=local/x@v1", "inputs: `rewards-t` is not one artifact of this recipe"),
    ],
)
def test_a_fault_in_a_stage_section_is_one_sentence(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        make_plan(load_recipe(write(tmp_path, MINIMAL), ["strategies=[mix]", override]))
    assert message in str(caught.value)


def test_what_recipes_extend_is_no_recipe(tmp_path: Path) -> None:
    (tmp_path / "part.yaml").write_text("score: {alpha: 0.3}")
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path / "part.yaml")
    assert str(caught.value) == (
        f"{tmp_path / 'part.yaml'} is no recipe by itself: it has none of `name`, `students`, `teachers`; name a "
        "recipe that extends it"
    )


def test_missing_broken_and_circular_files(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"the recipe .*none\.yaml does not exist"):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match="cannot be read: while parsing"):
        load_recipe(write(tmp_path, "name: [", "broken.yaml"))
    with pytest.raises(RecipeError, match="must hold a mapping of keys to values, found list"):
        load_recipe(write(tmp_path, "- name", "list.yaml"))
    with pytest.raises(RecipeError, match="extends itself"):
        load_recipe(write(tmp_path, "extends: circle.yaml", "circle.yaml"))


def test_plan_shares_what_strategies_share_and_cuts_at_until(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, MINIMAL), ["strategies=[persyn, car, {kind: persyn, name: again}]"])
    keys = [step.key for step in make_plan(recipe)]
    assert keys[:5] == ["prompts", "assignments-all", "responses", "rewards-s", "pairs-s"]
    assert keys.count("router-s") == 1
    assert "responses-pool" not in keys, "only the oracle pays for all teachers on the pool"
    assert keys[-1] == "student-s-again", "nothing to evaluate on is named, so the students are trained and that is it"
    tasks = recipe.model_copy(update={"evaluate": {"tasks": [{"name": "t", "path": "t.jsonl"}]}})
    assert [s.key for s in make_plan(tasks)][-4:] == [
        f"evaluation-s-{name}" for name in ("base", "persyn", "car", "again")
    ]
    until = [s.key for s in make_plan(recipe.model_copy(update={"until": "assign"}))]
    assert until[-1].startswith("assignments-s-")
    assert "responses-s-persyn" not in until


def test_a_pinned_input_replaces_its_step_and_what_only_that_needed(tmp_path: Path) -> None:
    overrides = ["strategies=[persyn]", "inputs={rewards: org/x@v2}", "until=assign"]
    steps = make_plan(load_recipe(write(tmp_path, MINIMAL), overrides))
    assert [step.key for step in steps] == ["prompts", "pairs-s", "router-s", "assignments-s-persyn"]
    assert steps[2].inputs == {"prompts": "prompts", "rewards": "org/x@v2"}


def test_every_recipe_of_the_repository_is_valid(recipes: list[Path]) -> None:
    for path in recipes:
        assert make_plan(load_recipe(path)), path


def test_every_number_of_a_recipe_has_an_upper_bound() -> None:
    """A count of 10^20 is refused; it was taken, and its requests were made one by one without an end."""
    unbounded = []
    for module in pkgutil.walk_packages(persyn_hf.__path__, "persyn_hf."):
        if module.name.startswith(("persyn_hf.recipe", "persyn_hf.stages", "persyn_hf.backends.engines.settings")):
            for value in vars(importlib.import_module(module.name)).values():
                if isinstance(value, type) and issubclass(value, Strict):
                    for name, field in value.model_fields.items():
                        numbers = {int, float} & set(get_args(field.annotation) or (field.annotation,))
                        bounds = {key for each in field.metadata for key in ("le", "lt") if hasattr(each, key)}
                        unbounded += [f"{value.__name__}.{name}"] if numbers and not bounds else []
    assert unbounded == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            "strategies=[{kind: mix, weights: {a: -1, b: 3}}]",
            "the weight of `a` must be from 0 to 1,000,000,000,000",
        ),
        ("strategies=[{kind: mix, weights: {a: 1e308, b: 1e308}}]", "the weight of `a` must be"),
        ("strategies=[{kind: mix, weights: {a: 0}}]", "`weights` must sum to more than 0"),
        ("strategies=[{kind: persyn, budget: {max: {a: 0.1, b: 0.3}}}]", "the shares of `max` sum to 0.4"),
        ("strategies=[{kind: persyn, budget: {cost: money, total: 5}}]", "a budget in money needs a `price` of every"),
        (
            "calibration={strategy: uncertainty, budget: {cost: money, total: 5}}",
            "calibration: a budget in money needs a `price` of every",
        ),
        (
            "strategies=[{kind: persyn, budget: {cost: flops, total: 5}}]",
            "a budget in flops needs `params_b` of",
        ),
        ("strategies=[mix, {kind: reassign, base: mix, to_teacher: a}]", "no teacher has `long_cot: true`"),
        ("strategies=[mix, {kind: reassign, base: mix, to_teacher: a, from_teachers: []}]", "other than `to_teacher`"),
        (
            "strategies=[mix, {kind: reassign, base: mix, to_teacher: a, from_teachers: [a]}]",
            "other than `to_teacher`",
        ),
        ("score.quality=column", "`quality: column` is what imported answers bring along"),
    ],
)
def test_what_can_be_known_of_a_recipe_is_refused_before_anything_is_paid(
    tmp_path: Path, changes: str, words: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        make_plan(load_recipe(write(tmp_path, MINIMAL), ["strategies=[mix]", changes]))
    assert words in str(caught.value)


def test_family_strong_needs_a_teacher_of_the_students_family(tmp_path: Path) -> None:
    teachers = (
        "teachers=[{name: a, model: ./a, params_b: 1, family: x}, {name: b, model: ./b, params_b: 2, family: x}]"
    )
    student = "students=[{name: s, model: ./s, family: y}]"
    with pytest.raises(RecipeError, match="none is of the family `y` of `s`; name the strategy's `teacher`"):
        load_recipe(write(tmp_path, MINIMAL), [teachers, student, "strategies=[family_strong]"])
