"""Columns that only some settings bring: stored, read back, compared and shown where they are there."""

from pathlib import Path
from typing import Any

import pytest
from rows import reward

from persyn_hf.errors import InputError
from persyn_hf.recipe.recipe import Recipe
from persyn_hf.report.judges import criteria_table
from persyn_hf.schemas import REWARDS
from persyn_hf.store.diff import compare
from persyn_hf.store.local import Store
from persyn_hf.store.stored import Stored


CRITERIA = {
    "correct": {"weight": 0.7, "mean": 0.5, "unjudged": 0.25},
    "judge": {"weight": 0.3, "mean": None, "unjudged": 1.0},
}
REPLY = {"judge": "m", "shown": "", "reason": "It is short.", "verdict": 8.0, "fault": None}
SAID: dict[str, Any] = {"quality_correct": 1.0, "quality_judge": None, "verdicts": [REPLY]}


def put(store: Store, name: str, **more: Any) -> Stored:
    rows = [
        reward(prompt, teacher, 1.0, quality_raw=1.0, split=split) | more
        for prompt, split in (("p", "pool"), ("q", "calibration"))
        for teacher in ("a", "b")
    ]
    fields = {"stage": "score", "teachers": [{"name": "a"}, {"name": "b"}], "metrics": {"criteria": CRITERIA}}
    return store.put(repo=f"org/{name}", schema=REWARDS, data=REWARDS.having(more).dataset(rows), fields=fields)


def test_they_are_read_back_as_they_were_written_and_others_need_none(tmp_path: Path) -> None:
    store = Store(tmp_path)
    plain, judged = put(store, "plain"), put(store, "judged", **SAID)
    assert store.read_dataset(plain).column_names == REWARDS.names
    read = store.read_dataset(judged)
    assert read.column_names == [*REWARDS.names, *SAID]
    assert read[0]["verdicts"] == [REPLY] and read[3]["quality_correct"] == 1
    REWARDS.check(read, "what was read")


def test_a_column_of_another_type_or_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"columns \[\] are missing or of another type, columns \['quality_taste'\] are not"
    ):
        REWARDS.check(REWARDS.dataset([reward("p", "a")]).add_column("quality_taste", [1.0]), "it")
    with pytest.raises(InputError, match=r"columns \['quality_judge'\] are missing or of another type"):
        REWARDS.check(REWARDS.dataset([reward("p", "a")]).add_column("quality_judge", ["good"]), "it")


def test_what_they_say_differs_and_is_on_the_card(tmp_path: Path) -> None:
    store = Store(tmp_path)
    plain, judged = put(store, "plain"), put(store, "judged", **SAID)
    changed = [row for section in compare(plain, judged) for row in section.rows if "changed in" in str(row[0])]
    assert [row[0] for row in changed] == ["changed in `quality_correct`", "changed in `verdicts`"]
    card = (judged.path / "README.md").read_text(encoding="utf-8")
    assert "| correct | 70.0% | 0.5 | 25.0% |" in card
    assert "| `quality_judge` | `float64` | yes, or absent |" in card


def test_the_report_has_a_row_per_criterion(tmp_path: Path) -> None:
    stored = put(Store(tmp_path), "judged", **SAID)
    recipe = Recipe.model_validate(
        {"name": "r", "teachers": [{"name": "a"}, {"name": "b"}], "students": [{"name": "s"}]}, strict=False
    )
    table = criteria_table(recipe, {"rewards-s": stored.manifest}, recipe.students[0])
    assert table.rows == [["correct", "70.0%", "0.500", "25.0%"], ["judge", "30.0%", "–", "100.0%"]]
    assert not criteria_table(recipe, {}, recipe.students[0]).rows
