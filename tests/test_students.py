"""Two students in one recipe, run on the tiny world as far as their assignments: what is shared, what is not."""

import contextlib
import io
from pathlib import Path
from typing import Any

import pytest
import yaml

from persyn_hf.backends.journal import read_spent
from persyn_hf.cli.main import main
from persyn_hf.store.local import Store


STUDENTS, TEACHERS = ("qwen-student", "llama-student"), ("qwen-gen", "gemma-md", "llama-verbal")
LABELLED, POOL, SAMPLES = 12, 6, 1


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, root: Path, zoo: Path) -> Path:
    folder = tmp_path_factory.mktemp("students")
    content = {
        "name": "both",
        "until": "assign",
        "teachers": [{"name": name, "model": str(zoo / name)} for name in TEACHERS],
        "students": [{"name": name, "model": str(zoo / name)} for name in STUDENTS],
        "strategies": ["oracle", {"kind": "persyn", "name": "two", "per_prompt": 2}, "mix"],
        "prompts": {
            "path": str(root / "recipes/tiny/prompts.jsonl"),
            "columns": {"prompt": "question", "reference": "answer"},
            "references": "math",
            **{"calibration": 8, "dev": 4, "pool": POOL, "limit": 18},
        },
        "generate": {"samples": SAMPLES, "max_tokens": 100},
        "train_router": {"kind": "global_best"},
    }
    (folder / "both.yaml").write_text(yaml.safe_dump(content))
    return folder / "both.yaml"


@pytest.fixture(scope="module")
def runs(recipe: Path) -> list[tuple[dict[str, int], str]]:
    """Of the run with the first student alone, and of the one with both: answers asked for until then, the output."""
    store, found = Store(recipe.parent / "s"), []
    alone = str(yaml.safe_load(recipe.read_text())["students"][0])
    for sets in (["--set", f"students=[{alone}]"], []):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            assert main(["run", str(recipe), *sets, "--store", str(store.root)]) == 0
        spent = read_spent(store.state_dir / "journal.sqlite", "local/both")
        found.append(({name: line.requests for name, line in spent.items()}, printed.getvalue()))
    return found


@pytest.fixture(scope="module")
def store(recipe: Path, runs: list[tuple[dict[str, int], str]]) -> Store:
    """Of both students."""
    return Store(recipe.parent / "s")


def columns(store: Store, name: str) -> dict[str, Any]:
    return dict(store.read_dataset(store.get(f"local/both-{name}@v1"))[:])


def test_a_second_student_costs_no_answer(runs: list[tuple[dict[str, int], str]], store: Store) -> None:
    once = dict.fromkeys(TEACHERS, (LABELLED + POOL) * SAMPLES)
    (asked, _), (then, output) = runs
    assert asked == then == once
    assert "reused local/both-responses@v1" in output and "reused local/both-rewards-qwen-student@v1" in output
    assert [item.tag for item in store.artifacts() if item.repo == "local/both-responses"] == ["v1"]
    assert "How far the students agree on their teachers" in output


def test_quality_is_shared_and_learnability_is_each_students_own(store: Store) -> None:
    qwen, llama = (columns(store, f"rewards-{name}") for name in STUDENTS)
    for name in ("prompt_id", "teacher", "quality_raw", "quality_reward"):
        assert qwen[name] == llama[name]
    differing = [one != other for one, other in zip(qwen["mean_logprob"], llama["mean_logprob"], strict=True)]
    assert len(differing) == LABELLED * len(TEACHERS) and all(differing)


def test_the_report_says_how_far_they_agree(recipe: Path, store: Store, tmp_path: Path) -> None:
    """Counted again here, from the rows."""
    assert main(["report", str(recipe), "--store", str(store.root), "--out", str(tmp_path)]) == 0
    header, *lines = [line.split(",") for line in (tmp_path / "students.csv").read_text().splitlines()]
    table = {line[1]: dict(zip(header, line, strict=True)) for line in lines}
    assert list(table) == ["measured reward", "oracle", "two", "mix"]
    assert {line["students"] for line in table.values()} == {"qwen-student / llama-student"}
    for strategy in ("oracle", "two"):
        firsts = []
        for student in STUDENTS:
            cells = columns(store, f"assignments-{student}-{strategy}")
            rows = zip(cells["prompt_id"], cells["teacher"], cells["split"], strict=True)
            best: dict[str, str] = {}
            for prompt, teacher, split in rows:
                if split == "pool":
                    best.setdefault(prompt, teacher)
            firsts.append(best)
        assert firsts[0].keys() == firsts[1].keys() and len(firsts[0]) == POOL
        same = sum(firsts[1][prompt] == teacher for prompt, teacher in firsts[0].items())
        assert table[strategy]["prompts"] == str(POOL)
        assert float(table[strategy]["same teacher"]) == pytest.approx(same / POOL)
        assert table[strategy]["tau"] == ""
    assert (table["mix"]["same teacher"], table["mix"]["kappa"], table["mix"]["TV"]) == ("1", "1", "0")
    shown = (tmp_path / "report.md").read_text()
    assert f"| mix | {POOL} | 100.0% |" in shown and "| 1.00 | – | 0.0% |" in shown
    best = [first_places(columns(store, f"rewards-{student}")) for student in STUDENTS]
    prompts = best[0].keys() & best[1].keys()
    certain = sum(best[0][prompt] == best[1][prompt] and len(best[0][prompt]) == 1 for prompt in prompts)
    possible = sum(bool(best[0][prompt] & best[1][prompt]) for prompt in prompts)
    found = table["measured reward"]
    assert found["prompts"] == str(len(prompts)) == str(LABELLED)
    assert certain <= round(float(found["same teacher"]) * LABELLED) <= possible
    assert -1 <= float(found["tau"]) <= 1


def first_places(rewards: dict[str, Any]) -> dict[str, set[str]]:
    """Teachers of rank 1 of each prompt."""
    cells = zip(rewards["prompt_id"], rewards["teacher"], rewards["rank"], strict=True)
    best: dict[str, set[str]] = {}
    for prompt, teacher, rank in cells:
        best.setdefault(prompt, set()).update([teacher] if rank == 1 else [])
    return best
