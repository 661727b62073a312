"""Plans and runs of recipes, and exports, from Python; `finished` is a run of the tiny world that is reused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from smoke_run import SMALL, ZOO

import persyn_hf
from persyn_hf.errors import PersynError
from persyn_hf.recipe.file import load_recipe, read_recipe


SMOKE = ZOO.parent / "smoke.yaml"
OWN: dict[str, Any] = {
    "name": "own",
    "prompts": {"path": "q.jsonl", "columns": {"prompt": "q", "reference": "a"}, "calibration": 4, "dev": 2},
    "teachers": [{"name": name, "model": ZOO / name} for name in ("qwen-gen", "gemma-md")],
    "students": [{"name": "student", "model": ZOO / "qwen-student"}],
    "strategies": ["mix"],
    "generate": {"samples": 1},
    "until": "mix",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "q.jsonl").write_text(
        "".join(json.dumps({"q": f"What is {n} + 1?", "a": str(n + 1)}) + "\n" for n in range(9))
    )
    return tmp_path


def test_a_dict_is_read_as_its_file_is(here: Path) -> None:
    (here / "base.yaml").write_text("train_router: {kind: ridge}\n")
    values = {"extends": "./base.yaml", **OWN}
    before = repr(values)
    (here / "own.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(values, default=str))))
    assert read_recipe(values, here, ["seed=3"]) == load_recipe(here / "own.yaml", ["seed=3"])
    assert repr(values) == before, "what was given is left as it is"


def test_a_plan_counts_and_runs_nothing(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = persyn_hf.plan(OWN, store="store")
    assert found.to_pay["total"] == {"journalled": 0, "under_way": 0, "certain": 12 + 3, "expected": 15, "at_most": 15}
    assert set(found.to_pay) == {"qwen-gen", "gemma-md", "total"}
    assert set(found.steps.values()) == {"new"} and "sft-student-mix" in found.steps
    assert not found.faults
    assert "Answers that `persyn run` will pay for (own)" in str(found)
    assert capfd.readouterr() == ("", "")
    assert not (here / "store").exists()
    assert persyn_hf.plan(OWN, store="store", checks=False).warnings == ()
    (here / "empty").mkdir()
    (fault,) = persyn_hf.plan(OWN | {"students": [{"name": "student", "model": "./empty"}]}, store="store").faults
    assert str(here / "empty") in fault


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (7, "`recipe` must be a YAML file, a dict or a Recipe, got int"),
        ("none.yaml", "the recipe none.yaml does not exist"),
        ({"seed": 1}, "this is no recipe by itself: it has none of `name`, `students`, `teachers`"),
        (OWN | {"techers": []}, "recipe: unknown key `techers`, did you mean `teachers`?"),
        (OWN | {"extends": "none.yaml"}, "none.yaml does not exist"),
    ],
)
def test_what_is_no_recipe_is_refused(here: Path, recipe: Any, said: str) -> None:
    for call in (persyn_hf.plan, persyn_hf.run):
        with pytest.raises(PersynError) as error:
            call(recipe, store="store")
        assert said in str(error.value)


@pytest.mark.heavy
def test_a_run_reuses_what_is_stored_reports_and_is_silent(
    finished: tuple[Path, float], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store = shutil.copytree(finished[0], tmp_path / "store", symlinks=True)
    done = persyn_hf.run(SMOKE, store=store, overrides=SMALL)
    assert capfd.readouterr() == ("", "")
    assert len(done.refs) == 25 and done.refs["pairs-qwen-student"] == "tiny/smoke-pairs-qwen-student@v1"
    assert sum("reused" in note for note in done.notes) == 25
    stored = persyn_hf.load_artifact(done.refs["responses"], config="qwen-gen", split="dev", store=store)
    assert done.load("responses", config="qwen-gen", split="dev").to_list() == stored.to_list()
    with pytest.raises(PersynError, match="has no step `response`, did you mean `responses`"):
        done.load("response")
    files = done.report(tmp_path / "report")
    assert files[0].name == "report.md" and {"allocation-qwen-student.png"} < {path.name for path in files}
    persyn_hf.run(SMOKE, store=store, overrides=SMALL, progress=True)
    assert "reused" in capfd.readouterr().out


@pytest.mark.heavy
def test_training_rows_are_exported(finished: tuple[Path, float], tmp_path: Path) -> None:
    ref = "tiny/smoke-sft-qwen-student-persyn@v1"
    (path,) = persyn_hf.export(ref, tmp_path, store=finished[0])
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    data = persyn_hf.load_artifact(ref, store=finished[0])["train"]
    assert rows == data.select_columns(["prompt", "completion"]).to_list()
    with pytest.raises(PersynError, match="`to` 'json' is no form of export, did you mean `jsonl`"):
        persyn_hf.export(ref, tmp_path, to="json", store=finished[0])  # type: ignore[arg-type]


@pytest.mark.heavy
def test_learnability_is_what_the_run_has_stored(finished: tuple[Path, float]) -> None:
    store = finished[0]
    prompts = persyn_hf.load_artifact("tiny/smoke-prompts@v1", store=store)
    messages = {row["prompt_id"]: row["messages"] for rows in prompts.values() for row in rows}
    answers = persyn_hf.load_artifact("tiny/smoke-responses@v1", split="dev", store=store)
    stored = persyn_hf.load_artifact("tiny/smoke-rewards-qwen-student@v1", split="dev", store=store)
    kept = {(row["prompt_id"], row["teacher"]): row for row in answers if row["selected"]}
    rows = [
        {**kept[row["prompt_id"], row["teacher"]], "prompt": messages[row["prompt_id"]]}
        for row in stored
        if row["num_tokens"] is not None
    ]
    assert len(rows) == 6 * 4
    measured = persyn_hf.learnability(ZOO / "qwen-student", rows, max_length=256)
    assert measured == pytest.approx([row["mean_logprob"] for row in stored], abs=1e-4)


@pytest.mark.heavy
def test_stored_rewards_are_recombined_to_themselves(finished: tuple[Path, float]) -> None:
    stored = persyn_hf.load_artifact("tiny/smoke-rewards-qwen-student@v1", store=finished[0])
    rows = [row for part in stored.values() for row in part]
    again = persyn_hf.recombine(stored["calibration"].to_pandas(), 0.4)
    assert again.to_list() == stored["calibration"].to_list()
    assert persyn_hf.recombine(stored, 0.4).to_list() == rows
