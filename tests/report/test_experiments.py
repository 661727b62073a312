"""Several SFT seeds, strategies and recipes, run on the tiny world: what is shared, and what the joint report says."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from persyn_hf.cli.main import main
from persyn_hf.recipe.file import load_recipe
from persyn_hf.runner.fingerprint import fingerprint
from persyn_hf.runner.plan import make_plan
from persyn_hf.store.local import Store


STUDENT, TEACHERS, SEEDS = "qwen-student", ("qwen-gen", "gemma-md"), (0, 3)
STRATEGIES = ["persyn", "oracle", {"kind": "persyn", "alpha": 0}, "no_quality", "no_learnability", "car"]
NAMES = ["persyn", "oracle", "persyn-alpha0", "no_quality", "no_learnability", "car"]
SFT = ("train_student", "evaluate")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, root: Path, zoo: Path) -> Path:
    folder = tmp_path_factory.mktemp("experiments")
    test = str(root / "recipes/tiny/test.jsonl")
    content = {
        "name": "seeded",
        "seeds": list(SEEDS),
        "teachers": [{"name": name, "model": str(zoo / name)} for name in TEACHERS],
        "students": [{"name": STUDENT, "model": str(zoo / STUDENT)}],
        "strategies": STRATEGIES,
        "prompts": {
            "path": str(root / "recipes/tiny/prompts.jsonl"),
            "columns": {"prompt": "question", "reference": "answer"},
            "references": "math",
            **{"calibration": 12, "dev": 4, "pool": 12, "limit": 28},
        },
        "generate": {"samples": 1, "max_tokens": 100},
        "train_router": {"kind": "logistic"},
        "train_student": {"learning_rate": 0.01, "epochs": 1, "batch_size": 4, "per_device_batch_size": 4},
        "evaluate": {
            "max_tokens": 50,
            "tasks": [{"name": "short", "path": test, "limit": 6}, {"name": "long", "path": test, "limit": 16}],
        },
    }
    (folder / "seeded.yaml").write_text(yaml.safe_dump(content))
    other = {"extends": "seeded.yaml", "name": "other", "strategies": ["persyn"], "seeds": [], "score": {"alpha": 0.7}}
    (folder / "other.yaml").write_text(yaml.safe_dump(other))
    return folder / "seeded.yaml"


@pytest.fixture(scope="module")
def store(recipe: Path) -> Store:
    """First without seeds, then with them, then the other recipe."""
    store = Store(recipe.parent / "store")
    for path, sets in (
        (recipe, ["--set", "seeds=[]", "--set", "strategies=[car]"]),
        (recipe, []),
        (recipe.parent / "other.yaml", []),
    ):
        assert main(["run", str(path), *sets, "--store", str(store.root)]) == 0
    return store


@pytest.fixture(scope="module")
def report(recipe: Path, store: Store) -> Path:
    out = recipe.parent / "report"
    assert main(["report", str(recipe), "--store", str(store.root), "--out", str(out)]) == 0
    return out


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def scores(store: Store, name: str, task: str) -> Any:
    items = store.read_dataset(store.get(f"local/{name}@v1"), config=task)
    return np.array(items["score"][:], dtype=float)


def test_only_training_and_evaluation_are_repeated(recipe: Path) -> None:
    plain, seeded = make_plan(load_recipe(recipe, ["seeds=[]"])), make_plan(load_recipe(recipe))
    by_key = {step.key: step for step in seeded}
    for step in plain:
        trained = step.stage in SFT and step.strategy is not None
        keys = [f"{step.key}-seed{seed}" for seed in SEEDS] if trained else [step.key]
        assert [by_key.pop(key).seed for key in keys] == (list(SEEDS) if trained else [0])
    assert by_key == {}
    trained_from = {step.key: step.inputs for step in seeded}
    assert trained_from[f"evaluation-{STUDENT}-car-seed3"] == {"student": f"student-{STUDENT}-car-seed3"}
    assert trained_from[f"student-{STUDENT}-car-seed3"]["sft"] == f"sft-{STUDENT}-car"


def test_one_seed_has_the_names_of_none_and_set_seed_means_everything_else(recipe: Path) -> None:
    def plan(*overrides: str) -> dict[str, tuple[int, str]]:
        steps = make_plan(load_recipe(recipe, overrides))
        return {step.key: (step.seed, fingerprint(step, step.seed, {})) for step in steps}

    assert plan("seeds=[0]") == plan("seeds=[]")
    one, other = plan("seed=5"), plan("seed=5", "seeds=[]")
    assert {seed for seed, _ in other.values()} == {5}
    assert {one[key][0] for key in one if "-seed" in key} == set(SEEDS)
    assert all(one[key] == other[key] for key in one if "-seed" not in key)


def test_faults_are_named(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for override, said in (
        ("seeds=[1, 1]", "seeded.yaml.: `seeds` names 1 twice; a student is trained once per seed, leave one out"),
        ("seeds=[-1]", "seeded.yaml.seeds.0: must be at least 0, got -1"),
        (
            "strategies=[{kind: mix, alpha: 0.5}]",
            "strategy `mix-alpha0.5` of kind mix sets `alpha`, which is for persyn; leave it out",
        ),
    ):
        assert main(["plan", str(recipe), "--set", override]) == 2
        assert said.replace("yaml.:", "yaml:") in capsys.readouterr().err.replace("yaml.:", "yaml:")


def test_each_seed_trains_a_student_of_its_own_on_the_same_rows(store: Store) -> None:
    found = {item.repo: item for item in store.artifacts()}
    first, second = (found[f"local/seeded-student-{STUDENT}-car-seed{seed}"] for seed in SEEDS)
    assert first.manifest.inputs["sft"] == second.manifest.inputs["sft"]
    assert first.digest == found[f"local/seeded-student-{STUDENT}-car"].digest != second.digest
    assert (first.manifest.seed, second.manifest.seed) == SEEDS
    tags = [
        item.tag
        for item in store.artifacts()
        if item.repo in ("local/seeded-responses", f"local/seeded-sft-{STUDENT}-car")
    ]
    assert tags == ["v1", "v1"]


def test_the_results_are_the_means_of_the_items(report: Path, store: Store) -> None:
    results = {row["strategy"]: row for row in rows(report / "results.csv")}
    assert list(results) == ["before SFT", *NAMES]
    assert {row["seeds"] for name, row in results.items() if name in NAMES} == {"2"}
    differences = {row["ahead of"]: row for row in rows(report / "differences.csv")}
    assert list(differences) == ["before SFT", *NAMES[1:]]
    means = {}
    for name in NAMES:
        means[name] = [
            np.mean([scores(store, f"seeded-evaluation-{STUDENT}-{name}-seed{s}", task).mean() for s in SEEDS])
            for task in ("short", "long")
        ]
        means[name].append(np.mean(means[name]))
        for column, mean in zip(("short", "long", "mean"), means[name], strict=True):
            value, low, high = (float(results[name][column + end]) for end in ("", " low", " high"))
            assert low <= value <= high and value == pytest.approx(mean)
    assert len({tuple(mean) for mean in means.values()}) >= 3, "else this shows little"
    assert float(differences["car"]["mean"]) == pytest.approx(means["persyn"][2] - means["car"][2])
    base = scores(store, f"seeded-evaluation-{STUDENT}-base", "long").mean()
    assert float(results["before SFT"]["long"]) == pytest.approx(base)
    assert f"| {100 * base:.1f} [" in (report / "report.md").read_text()


def test_alpha_0_is_the_strategy_without_learnability(report: Path, store: Store) -> None:
    """Same scores, same teachers; in the report both stand at alpha 0."""
    one, other = (
        store.read_dataset(store.get(f"local/seeded-assignments-{STUDENT}-{name}@v1")).to_list()
        for name in ("persyn-alpha0", "no_learnability")
    )
    assert one == other
    ahead = {row["ahead of"]: row["mean"] for row in rows(report / "differences.csv")}
    assert ahead["persyn-alpha0"] == ahead["no_learnability"]


def test_router_oracle_teachers_and_cost(report: Path, store: Store) -> None:
    oracle = rows(report / "oracle.csv")
    assert [row["strategy"] for row in oracle] == ["persyn", "persyn-alpha0"]
    assert {row["router"] for row in oracle} == {"logistic"}
    results = {row["strategy"]: row for row in rows(report / "results.csv")}
    assert {row["oracle's"] for row in oracle} == {results["oracle"]["mean"]}
    (chosen,) = rows(report / "teachers.csv")
    car = store.get(f"local/seeded-assignments-{STUDENT}-car@v1").manifest.metrics
    assert chosen == {"strategy": "car", STUDENT: car["chosen"]}
    footing = {row["strategy"]: row for row in rows(report / "footing.csv")}
    assert (footing["car"]["answers"], footing["oracle"]["answers"]) == (str(2 * 12 + 12), str(2 * 24))
    sft = store.get(f"local/seeded-student-{STUDENT}-car-seed0@v1").manifest.counts
    assert footing["car"]["SFT examples"] == str(sft["trained"])
    for figure in (f"strategies-{STUDENT}", "ablation", "alpha-after-training"):
        assert all((report / f"{figure}.{ending}").stat().st_size > 2000 for ending in ("png", "svg"))
        assert f"![{figure}]({figure}.png)" in (report / "report.md").read_text()


def test_several_recipes_are_joined(recipe: Path, store: Store, tmp_path: Path) -> None:
    """One name for two things gets its recipe's; before SFT, the same in both, stands once."""
    files = [str(recipe), str(recipe.parent / "other.yaml")]
    assert main(["report", *files, "--store", str(store.root), "--out", str(tmp_path)]) == 0
    labels = [row["strategy"] for row in rows(tmp_path / "results.csv")]
    assert labels.count("before SFT") == 1 and len(labels) == 1 + len(STRATEGIES) + 1
    assert {"persyn (seeded)", "persyn (other)"} <= set(labels)
    text = (tmp_path / "report.md").read_text()
    for number, name in enumerate(("seeded", "other"), 1):
        assert f"[{name}: {STUDENT}]({number}-{name}/report.md)" in text
        assert (tmp_path / f"{number}-{name}" / f"allocation-{STUDENT}.csv").exists()


def test_items_that_differ_are_not_compared(
    recipe: Path, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = yaml.safe_load(recipe.read_text())["evaluate"]["tasks"]
    fewer = {"extends": str(recipe), "name": "fewer", "strategies": []}
    (tmp_path / "fewer.yaml").write_text(yaml.safe_dump(fewer | {"evaluate": {"tasks": [tasks[0] | {"limit": 5}]}}))
    assert main(["run", str(tmp_path / "fewer.yaml"), "--store", str(store.root)]) == 0
    capsys.readouterr()
    files = [str(recipe), str(tmp_path / "fewer.yaml")]
    assert main(["report", *files, "--store", str(store.root), "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"error: the evaluations of {STUDENT} hold different items of the task short, the same are needed to compare "
        "them; evaluate both with the same `evaluate.tasks`, or report each recipe alone\n"
    )
