"""Tables of users, by `prompts` and `evaluate` alike: lists of references, and rows that do not fit their header."""

import json
from pathlib import Path
from typing import Any

import pytest

from persyn_hf.backends.harness.questions import MathTask
from persyn_hf.errors import InputError, RecipeError
from persyn_hf.recipe.strict import read_section
from persyn_hf.schemas import PROMPTS
from persyn_hf.stage import Context, Result
from persyn_hf.stages import evaluate, prompts
from persyn_hf.stages.evaluate import items


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def run(tmp_path: Path, **settings: Any) -> Result:
    given = {"calibration": 1, "dev": 0, **settings}
    result = prompts.run(read_section(prompts.Settings, given, "prompts"), Context(seed=0, work_dir=tmp_path))
    PROMPTS.check(result.data, "prompts")
    return result


def texts(result: Result) -> list[str]:
    return [row["messages"][-1]["content"] for row in result.data]


def test_rows_that_do_not_fit_are_counted_where_they_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("prompt,a\nWhat is 1,000 + 5?,1005\none,1\ntwo,2\n")
    result = run(tmp_path, path=str(path), columns={"reference": "a"}, ragged_rows="skip")
    assert sorted(texts(result)) == ["one", "two"]
    assert {name: count for name, count in result.counts.items() if count} == {"read": 3, "kept": 2, "ragged_rows": 1}
    with pytest.raises(RecipeError, match="`ragged_rows` is of a CSV in `path`"):
        run(tmp_path, dataset="org/name", ragged_rows="skip")


def test_lists_of_references_are_what_the_setting_says_and_told_where_it_says_nothing(tmp_path: Path) -> None:
    cells = [["4", "four"], ["4"], '["a", "b"]', "#### 1,000"]
    rows = [{"prompt": f"p{i}", "answer": {"aliases": cell, "value": "x"}} for i, cell in enumerate(cells)]
    found = {}
    for lists in (None, "all", "any"):
        said = {} if lists is None else {"reference_lists": lists}
        path = write(tmp_path / "p.jsonl", rows)
        result = run(tmp_path, path=path, columns={"reference": "answer.aliases"}, **said)
        by_text = {row["messages"][0]["content"]: row["reference"] for row in result.data}
        found[lists] = [by_text[f"p{i}"] for i in range(4)], result.counts.get("lists_of_references")
    assert found == {
        None: (["4, four", "4", '["a", "b"]', "#### 1,000"], 2),
        "all": (["4, four", "4", "a, b", "#### 1,000"], None),
        "any": (['{"any": ["4", "four"]}', "4", '{"any": ["a", "b"]}', "#### 1,000"], None),
    }


def test_alternatives_are_cut_out_and_looked_at_one_by_one(tmp_path: Path) -> None:
    cells = [["so #### 1,000", "#### 10^3", "none"], ["no mark"], ["#### ?", "#### 2"], ["#### ?", "#### \\text{}"]]
    path = write(tmp_path / "p.jsonl", [{"prompt": f"p{i}", "a": cell} for i, cell in enumerate(cells)])
    said = {"columns": {"reference": "a"}, "reference_lists": "any", "reference_after": "####", "references": "math"}
    result = run(tmp_path, path=path, **said)
    references = {row["messages"][0]["content"]: row["reference"] for row in result.data}
    assert references == {"p0": '{"any": ["1000", "10^3"]}', "p2": '{"any": ["?", "2"]}'}
    assert (result.counts["reference_missing"], result.counts["reference_unparsable"]) == (1, 1)


def test_alternatives_of_own_questions(tmp_path: Path) -> None:
    """TriviaQA's `answer.aliases`; without the setting, lists are all of the answer, and counted."""
    path = tmp_path / "q.jsonl"
    cells = [["#### 4", "#### four"], ["#### 1.5e10"], "#### 7"]
    path.write_text("".join(json.dumps({"question": "q?", "answer": {"aliases": cell}}) + "\n" for cell in cells))
    task = {"name": "t", "path": str(path), "columns": {"answer": "answer.aliases"}, "reference_after": "####"}
    for lists, first, unclear in (("any", '{"any": ["4", "four"]}', 0), (None, "four", 1)):
        said = {"tasks": [task | ({"reference_lists": lists} if lists else {})]}
        settings = read_section(evaluate.Settings, said, "evaluate")
        loaded = items.load(settings.tasks[0], settings)
        assert isinstance(loaded, MathTask)
        assert loaded.references == [first, "1.5 \\times 10^{10}", "7"]
        assert loaded.told == ({"lists_of_references": unclear} if unclear else {})
        assert ("reference_lists" in settings.model_dump()["tasks"][0]) == bool(
            lists
        )  # fingerprints stay as they were


def test_rows_of_a_test_file_that_do_not_fit_may_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_text("question,answer\nWhat is 1,000 + 5?,1005\n1 + 1?,2\n")
    task = {"name": "t", "path": str(path), "ragged_rows": "skip"}
    settings = read_section(evaluate.Settings, {"tasks": [task]}, "evaluate")
    loaded = items.load(settings.tasks[0], settings)
    assert isinstance(loaded, MathTask)
    assert (loaded.questions, loaded.told) == (["1 + 1?"], {"ragged_rows": 1})
    refusing = read_section(evaluate.Settings, {"tasks": [task | {"ragged_rows": "refuse"}]}, "evaluate")
    assert "ragged_rows" not in refusing.model_dump()["tasks"][0]  # fingerprints stay as they were
    with pytest.raises(InputError, match=r"row 1 \(line 2\) has 3 cells"):
        items.load(refusing.tasks[0], refusing)
