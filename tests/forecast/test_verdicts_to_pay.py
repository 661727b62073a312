"""How many verdicts a plan foresees: from local prompts, from sizes alone, and where samples are judged."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from rows import write_lines

from persyn_hf.forecast.outlook import look_ahead
from persyn_hf.recipe.file import load_recipe
from persyn_hf.runner.run import look_up
from persyn_hf.store.local import Store


CALIBRATION, DEV, POOL = 10, 4, 6


@pytest.fixture
def recipe(tmp_path: Path, zoo: Path) -> Path:
    write_lines(tmp_path / "q.jsonl", [{"question": f"Say something about {number}."} for number in range(40)])
    sizes = {"calibration": CALIBRATION, "dev": DEV, "pool": POOL}
    values: dict[str, Any] = {
        "name": "judged",
        "teachers": [
            {"name": "a", "model": "org/a", "samples": 3},
            {"name": "b", "model": "org/b", "samples": 2},
            {"name": "greedy", "model": "org/c", "temperature": 0},
        ],
        "students": [{"name": "s", "model": str(zoo / "qwen-student")}],
        "strategies": ["persyn", {"kind": "strong", "teacher": "b"}],
        "prompts": {"path": "./q.jsonl", "columns": {"prompt": "question"}, **sizes},
        "generate": {"engine": "server", "verify": "none", "server": {"urls": ["http://localhost:1/v1"]}},
        "score": {
            "quality": "judge",
            "judge": {"model": "j", "price": {"completion": 2}, "server": {"urls": ["http://localhost:1/v1"]}},
        },
    }
    path = tmp_path / "judged.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def at_most(recipe: Path, *sets: str) -> int:
    read, store = load_recipe(recipe, sets), Store(recipe.parent / "store")
    (found,) = look_ahead(read, look_up(read, store), store).verdicts
    assert (found.journalled, found.certain) == (0, 0)
    assert found.money == pytest.approx(found.at_most * 1024 * 2 / 1e6)
    return found.at_most


def test_one_kept_answer_of_each_teacher_is_judged_on_calibration(recipe: Path) -> None:
    assert at_most(recipe) == 3 * (CALIBRATION + DEV)
    assert at_most(recipe, "score.quality=[{command: 1}, {judge: 2}]", "score.command.run=[cat]") == 42


def test_all_samples_are_judged_where_the_best_is_kept_of_the_pool_too(recipe: Path) -> None:
    # On calibration and dev 3 + 2 samples, and the single one of `greedy`, as it is scored. Of the pool each strategy
    # asks one teacher, of 3 samples at most.
    assert at_most(recipe, "generate.choose_by=quality") == 6 * (CALIBRATION + DEV) + 2 * 3 * POOL
    assert at_most(recipe, "generate.choose_by=quality", "strategies=[persyn]") == 6 * 14 + 3 * POOL
    assert at_most(recipe, "generate.choose_by=quality", "generate.temperature=0") == 3 * 14 + 0


def test_of_prompts_that_are_not_here_the_sizes_bound_it(recipe: Path) -> None:
    away = ("prompts.path=null", "prompts.dataset=org/set")
    assert at_most(recipe, *away) == 3 * (CALIBRATION + DEV)
    assert at_most(recipe, *away, "generate.choose_by=quality", "strategies=[persyn]") == 6 * 14 + 3 * POOL
