"""Stage `assign` with an llm router in several processes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import TEACHERS
from datasets import Dataset
from rows import prompt
from tiny_llm import tiny, train

from persyn_hf.errors import RecipeError
from persyn_hf.recipe.roles import Teacher
from persyn_hf.recipe.strict import read_section
from persyn_hf.schemas import PROMPTS
from persyn_hf.stage import Context
from persyn_hf.stages import assign


POOL = tuple(Teacher(name=name) for name in TEACHERS)


def prompts(count: int) -> Dataset:
    texts = ["add 2 and 3 " * (1 + number * 7 % 30) + str(number) for number in range(count)]
    return PROMPTS.dataset([prompt(text, f"{number:016d}") for number, text in enumerate(texts)])


def run(folder: Path, router: Path, **values: Any) -> dict[str, Any]:
    folder.mkdir()
    settings = read_section(assign.Settings, {"kind": "persyn", **values}, "assign")
    context = Context(seed=0, work_dir=folder, teachers=POOL)
    found = assign.run(settings, context, prompts=prompts(50), router=router)
    assert isinstance(found.data, Dataset)
    return found.data.to_dict()


@pytest.mark.ci
@pytest.mark.heavy
def test_two_processes_give_the_same_assignments(
    backbone: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    router = tmp_path / "router"
    train(tiny(backbone, epochs=1), router)
    alone = run(tmp_path / "one", router, device="cpu")
    monkeypatch.setattr(assign, "LAUNCHED", 30)  # two launches
    config = str(root / "recipes" / "accelerate" / "cpu-2.yaml")
    shared = run(tmp_path / "two", router, accelerate=config)
    assert shared["prompt_id"] == alone["prompt_id"]
    assert shared["teacher"] == alone["teacher"]
    assert np.array(shared["scores"]) == pytest.approx(np.array(alone["scores"]), abs=1e-5)
    assert {path.name for path in (tmp_path / "two" / "router").glob("measured-*")} == {
        "measured-0.jsonl",
        "measured-1.jsonl",
    }


def test_a_cheap_router_scores_in_this_process(tmp_path: Path, root: Path) -> None:
    router = tmp_path / "router"
    train(tiny(tmp_path, kind="global_best"), router)
    config = str(root / "recipes" / "accelerate" / "cpu-2.yaml")
    assert run(tmp_path / "work", router, accelerate=config) == run(tmp_path / "alone", router)
    assert not (tmp_path / "work" / "router").exists()
    with pytest.raises(
        RecipeError, match="`accelerate` decides on devices, found `device: cpu` as well; leave one out"
    ):
        read_section(assign.Settings, {"accelerate": "x.yaml", "device": "cpu"}, "assign")
