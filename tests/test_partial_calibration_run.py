"""A calibration in part and a teacher that joins, run on the tiny world: what is paid for, and that once."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from persyn_hf.backends.journal import read_spent
from persyn_hf.backends.routers import load
from persyn_hf.cli.main import main
from persyn_hf.errors import RecipeError
from persyn_hf.recipe.file import load_recipe
from persyn_hf.runner.plan import make_plan
from persyn_hf.store.local import Store


OLD, NEW = ("qwen-gen", "gemma-md", "mistral-eq"), "llama-verbal"
CALIBRATION, DEV = 40, 6


def write(folder: Path, root: Path, zoo: Path, **more: Any) -> Path:
    content = {
        "name": "part",
        "until": "assign",
        "teachers": [{"name": name, "model": str(zoo / name), "params_b": 1} for name in OLD],
        "students": [{"name": "s", "model": str(zoo / "qwen-student")}],
        "strategies": ["persyn"],
        "prompts": {
            "path": str(root / "recipes/tiny/prompts.jsonl"),
            "columns": {"prompt": "question", "reference": "answer"},
            "references": "math",
            **{"calibration": CALIBRATION, "dev": DEV, "pool": 4, "limit": CALIBRATION + DEV + 4},
        },
        "generate": {"samples": 1, "max_tokens": 60},
        "train_router": {"kind": "knn"},
    }
    path = folder / "part.yaml"
    path.write_text(yaml.safe_dump(content | more))
    return path


@pytest.fixture(scope="module")
def store(heavy: None, tmp_path_factory: pytest.TempPathFactory, root: Path, zoo: Path) -> Store:
    """Halved in two rounds."""
    folder = tmp_path_factory.mktemp("part")
    halved = {"strategy": "successive_halving", "share": 0.5, "rounds": 2}
    recipe = write(folder, root, zoo, calibration=halved)
    assert main(["run", str(recipe), "--store", str(folder / "s")]) == 0
    return Store(folder / "s")


def requests(store: Store) -> dict[str, int]:
    return {name: line.requests for name, line in read_spent(store.state_dir / "journal.sqlite", "local/part").items()}


def test_only_the_chosen_cells_are_paid_for_and_each_once(store: Store) -> None:
    rounds = [store.get(f"local/part-assignments-all{suffix}@v1").manifest for suffix in ("-round1", "")]
    first, paid = (manifest.metrics["labelling"]["cells"] for manifest in rounds)
    assert set(first.values()) == {10}  # half of the 60 cells of the share, 3 teachers
    assert 58 <= sum(paid.values()) <= 60 and all(paid[name] >= 10 for name in OLD)
    assert requests(store) == {name: paid[name] + DEV for name in OLD}
    matrix = store.read_dataset(store.get("local/part-rewards-s@v1"))
    assert matrix["split"][:].count("calibration") == sum(paid.values())
    assert matrix["split"][:].count("dev") == DEV * len(OLD)
    missing = rounds[1].metrics["labelling"]["prompts"] * len(OLD) - sum(paid.values())
    assert store.get("local/part-router-s@v1").manifest.counts["missing_cells"] == missing > 0


def test_the_report_says_what_the_labels_cost(store: Store, tmp_path: Path) -> None:
    recipe = store.root.parent / "part.yaml"
    assert main(["report", str(recipe), "--store", str(store.root), "--out", str(tmp_path)]) == 0
    header, *lines = (line.split(",") for line in (tmp_path / "labelling-s.csv").read_text().splitlines())
    table = {line[0]: dict(zip(header, line, strict=False)) for line in lines}
    assert list(table) == ["round 1", "paid for", "every cell"]
    assert [line["cells"] for line in table.values()][::2] == ["30", "120"]
    assert (table["round 1"]["share"], table["every cell"]["share"]) == ("0.25", "1")
    text = (tmp_path / "report.md").read_text()
    assert "| 30 | 25% |" in text and "| 120 | 100% |" in text and text.count("| – |") >= 1
    assert table["paid for"]["gap closed"] != "" and table["every cell"]["gap closed"] == ""


def test_a_second_student_starts_from_the_first_ones_rewards(
    store: Store, root: Path, zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    in_part = {"strategy": "uncertainty", "share": 0.6, "rounds": 2, "prior": "local/part-rewards-s@v1"}
    other = {"name": "second", "students": [{"name": "t", "model": str(zoo / "llama-student")}]}
    recipe = write(tmp_path, root, zoo, calibration=in_part, train_router={"kind": "stacking"}, **other)
    for ref, sentence in (
        ("local/part-rewards-x@v1", "local/part-rewards-x"),
        ("local/part-prompts@v1", "is of kind `prompts` and cannot be its `prior`"),
        (str(tmp_path / "none" / "prior.csv"), "prior.csv does not exist"),
    ):
        capsys.readouterr()
        assert main(["run", str(recipe), "--store", str(store.root), "--set", f"calibration.prior={ref}"]) == 2
        assert sentence in " ".join(capsys.readouterr().err.split()), ref
        assert not [item for item in store.artifacts() if item.repo == "local/second-responses-round1"]
    assert main(["run", str(recipe), "--store", str(store.root)]) == 0
    asked = store.get("local/second-assignments-all@v1").manifest
    assert asked.inputs["prior"].ref == "local/part-rewards-s@v1"
    told, trained = asked.metrics["labelling"]["prior"], store.get("local/second-router-t@v1").manifest
    known = set(store.read_dataset(store.get("local/part-rewards-s@v1"), split="calibration")["prompt_id"])
    assert told["prompts"] == len(known) and told["slope"] > 0
    assert trained.inputs["prior"].ref == "local/part-rewards-s@v1"
    assert trained.metrics["training"]["prior"]["slope"] > 0
    assert main(["report", str(recipe), "--store", str(store.root), "--out", str(tmp_path / "out")]) == 0
    assert f"the prior knows {len(known)} calibration prompts" in (tmp_path / "out" / "report.md").read_text()


def test_without_dev_prompts_the_report_says_what_calibration_tells_of_the_router(
    store: Store, root: Path, zoo: Path, tmp_path: Path
) -> None:
    sizes = {"calibration": CALIBRATION + DEV, "dev": 0, "pool": 4, "limit": CALIBRATION + DEV + 4}
    source = {
        "path": str(root / "recipes/tiny/prompts.jsonl"),
        "columns": {"prompt": "question", "reference": "answer"},
    }
    budget = {
        "strategy": "uncertainty",
        "rounds": 2,
        "budget": {"cost": "generations", "total": 100, "covers_dev": True},
    }
    recipe = write(
        tmp_path,
        root,
        zoo,
        name="nodev",
        prompts={**source, "references": "math", **sizes},
        calibration=budget,
        train_router={"kind": "stacking"},
    )
    assert main(["plan", str(recipe), "--store", str(store.root)]) == 0
    assert main(["run", str(recipe), "--store", str(store.root)]) == 0
    trained = store.get("local/nodev-router-s@v1")
    own = trained.manifest.metrics["by_calibration"]
    assert own["folds"] == 5 and trained.manifest.counts["dev_prompts"] == 0
    assert own["cells"] == sum(
        store.get("local/nodev-assignments-all@v1").manifest.metrics["labelling"]["cells"].values()
    )
    assert main(["report", str(recipe), "--store", str(store.root), "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "report.md").read_text()
    words = f"{own['prompts']} calibration prompts by cross-fitting in 5 folds, as there are no dev prompts"
    assert f"Routers for s, on {words}" in text and "gain: reward per prompt over the best single teacher" in text
    assert words in (trained.path / "README.md").read_text()
    header, row, *_ = (tmp_path / "out" / "routers-s.csv").read_text().splitlines()
    assert header.split(",")[-3:] == ["gain", "gain low", "gain high"] and all(row.split(",")[-3:])


def test_a_new_teacher_costs_its_anchors_and_dev_and_leaves_the_router_as_it_was(
    store: Store, root: Path, zoo: Path, tmp_path: Path
) -> None:
    everyone = [{"name": name, "model": str(zoo / name), "params_b": 1} for name in (*OLD, NEW)]
    full = write(tmp_path, root, zoo)
    assert main(["run", str(full), "--store", str(store.root)]) == 0
    tag = max(item.tag for item in store.artifacts() if item.repo == "local/part-router-s")
    ref, before = f"local/part-router-s@{tag}", requests(store)
    joins = {"calibration": {"anchors": {NEW: 24}}, "train_router": {"extend": ref}, "teachers": everyone}
    recipe = write(tmp_path, root, zoo, **joins)
    assert main(["run", str(recipe), "--store", str(store.root), "--set", "until=train_router"]) == 0
    assert requests(store) == before | {NEW: 24 + DEV}
    new = [item for item in store.artifacts() if item.repo == "local/part-router-s"][-1]
    assert new.manifest.inputs["base"].ref == ref
    asked = [[{"role": "user", "content": text}] for text in ("What is 3 + 4?", "a poem")]
    old, extended = load(store.get(ref).path), load(new.path)
    assert extended.teachers == (*OLD, NEW)
    assert (extended.scores(asked)[:, :3] == old.scores(asked)).all()


def test_the_rounds_come_first_and_are_scored_for_the_first_student(root: Path, zoo: Path, tmp_path: Path) -> None:
    students = [{"name": name, "model": str(zoo / "qwen-student")} for name in "ab"]
    chosen = {"calibration": {"strategy": "uncertainty"}, "students": students, "strategies": ["oracle"]}
    steps = make_plan(load_recipe(write(tmp_path, root, zoo, **chosen)))
    rounds = [f"{key}-round{round}" for round in (1, 2) for key in ("assignments-all", "responses", "rewards-a")]
    assert [step.key for step in steps[:8]] == ["prompts", *rounds, "assignments-all"]
    by_key = {step.key: step for step in steps}
    of_last = {"prompts": "prompts", "base": "assignments-all-round2", "rewards": "rewards-a-round2"}
    assert by_key["assignments-all"].inputs == of_last
    assert {"rewards-a", "rewards-b"} < set(by_key)
    assert by_key["assignments-all-pool"].settings.splits == ("calibration", "pool")  # type: ignore[attr-defined]


def test_the_plan_reckons_with_the_share(
    root: Path, zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    halved = {"strategy": "successive_halving", "share": 0.5, "rounds": 2}
    for calibration, answers in ((halved, 20 + DEV), ({"anchors": dict.fromkeys(OLD, 30)}, 30 + DEV)):
        recipe = write(tmp_path, root, zoo, calibration=calibration, until="train_router")
        assert main(["run", str(recipe), "--set", "until=prompts", "--store", str(tmp_path / "s")]) == 0
        assert main(["plan", str(recipe), "--store", str(tmp_path / "s")]) == 0
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        *_, (_, _, of_all_steps, *_) = (line for line in lines if line[:1] == ["qwen-gen"])
        assert of_all_steps == str(answers)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"calibration": {"share": 0.3}},
            "calibration: the strategy full knows no `share`; leave it out, or take another strategy",
        ),
        (
            {"calibration": {"strategy": "uncertainty", "anchors": {"qwen-gen": 10}}},
            "calibration: the strategy uncertainty knows no `anchors`; leave it out, or take another strategy",
        ),
        (
            {"calibration": {"anchors": {"qwen-gem": 10}}},
            "`calibration.anchors` names the teacher `qwen-gem`, did you mean `qwen-gen`? (known: qwen-gen, gemma-md, "
            "mistral-eq)",
        ),
        (
            {"train_router": {"extend": "a/b@v1"}, "strategies": [{"kind": "persyn", "router": "knn"}]},
            "train_router: `extend` extends one router, and the strategy `persyn` needs one of its own; leave either "
            "out",
        ),
        (
            {"score": {"in_part": True}},
            "score: `in_part` is decided by `calibration`; set it there, not here",
        ),
    ],
)
def test_contradictions_are_named(more: dict[str, Any], message: str, root: Path, zoo: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as fault:
        make_plan(load_recipe(write(tmp_path, root, zoo, **more)))
    assert str(fault.value).endswith(message)
