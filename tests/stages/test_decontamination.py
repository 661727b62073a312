"""`prompts`: what it has in common with test items, and near-duplicates across its splits."""

import json
from pathlib import Path
from typing import Any

import pytest

from persyn_hf.errors import InputError, RecipeError
from persyn_hf.recipe.recipe import Recipe
from persyn_hf.recipe.strict import read_section
from persyn_hf.runner.fingerprint import covered_settings, fingerprint
from persyn_hf.runner.item_sets import with_tasks
from persyn_hf.runner.plan import make_plan
from persyn_hf.schemas import PROMPTS
from persyn_hf.stage import Context, Result
from persyn_hf.stages import prompts


ITEMS = [
    "Janet's ducks lay 16 eggs per day. She eats three for breakfast and sells the other 1,300 at the market for $2.",
    "A robe takes 2 bolts of blue fiber and half that much white fiber. How many bolts in total does it take?",
    "Josh decides to try flipping a house. He buys it for $80,000 and then puts in $50,000 in repairs. What profit?",
]
NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]


def write(path: Path, texts: list[str], column: str = "question") -> str:
    path.write_text("".join(json.dumps({column: text}) + "\n" for text in texts), encoding="utf-8")
    return str(path)


def unlike(place: int) -> str:
    return " ".join(f"{word}{'abcdefghijklmnop'[place % 16]}{'qrstuvwxyz'[place // 16]}" for word in NUMBERS)


def run(tmp_path: Path, texts: list[str], **settings: Any) -> Result:
    path = write(tmp_path / "prompts.jsonl", texts, "prompt")
    given = {"path": path, "calibration": 10, "dev": 5, **settings}
    result = prompts.run(read_section(prompts.Settings, given, "prompts"), Context(seed=0, work_dir=tmp_path))
    PROMPTS.check(result.data, "prompts")
    return result


@pytest.fixture
def texts() -> list[str]:
    """30 prompts; the 8th and the 21st hold the first and the last of the items."""
    found = [unlike(place) for place in range(30)]
    found[7] = f"Question: {ITEMS[0].upper().replace(' ', chr(10)).replace('1,300', '1 300')}"
    found[20] = f"{ITEMS[2].replace('$80,000', '90,000 dollars')} Explain."
    return found


def test_prompts_that_hold_test_items_are_counted_and_kept(tmp_path: Path, texts: list[str]) -> None:
    held = write(tmp_path / "test.jsonl", ITEMS)
    result = run(tmp_path, texts, decontaminate_against=[{"path": held, "name": "held out"}])
    assert len(result.data) == result.counts["kept"] == 30
    assert result.counts["contaminated"] == 2
    measured = result.metrics["decontamination"]
    assert measured["sets"] == {"held out": {"items": 3, "items_found": 2, "prompts": 2, "all_words": 1}}
    assert measured["not_read"] == {}
    by_id = {row["prompt_id"]: row["messages"][0]["content"] for row in result.data}
    found = {by_id[line["prompt_id"]]: (line["item"], line["share"]) for line in measured["found"]["held out"]}
    assert found == {texts[7]: (1, 1.0), texts[20]: (3, found[texts[20]][1])}
    assert 0.5 < found[texts[20]][1] < 1


def test_they_are_dropped_by_setting(tmp_path: Path, texts: list[str]) -> None:
    held = write(tmp_path / "test.jsonl", ITEMS)
    result = run(tmp_path, texts, decontaminate="drop", decontaminate_against=[{"path": held}])
    assert {row["messages"][0]["content"] for row in result.data} == set(texts) - {texts[7], texts[20]}
    assert (result.counts["read"], result.counts["kept"], result.counts["decontaminated"]) == (30, 28, 2)
    assert "contaminated" not in result.counts
    assert result.metrics["decontamination"]["sets"]["test.jsonl"]["prompts"] == 2
    strict = {"decontaminate": "drop", "decontaminate_against": [{"path": held}], "decontaminate_share": 1}
    assert run(tmp_path, texts, **strict).counts["decontaminated"] == 1
    with pytest.raises(InputError, match=r"every prompt of prompts.jsonl holds a test item; give others"):
        run(tmp_path, ITEMS, decontaminate="drop", decontaminate_against=[{"path": held}], calibration=1, dev=0)


def test_what_cannot_be_read_is_told_or_refused(tmp_path: Path, texts: list[str]) -> None:
    held = write(tmp_path / "test.jsonl", ITEMS)
    gone, other = str(tmp_path / "gone.jsonl"), {"path": held, "question": "problem", "name": "wrong column"}
    result = run(tmp_path, texts, decontaminate_against=[{"path": gone}, other, {"path": held}])
    assert result.counts["contaminated"] == 2
    unread = result.metrics["decontamination"]["not_read"]
    assert unread["gone.jsonl"].startswith("gone.jsonl does not exist or is no file")
    assert unread["wrong column"].startswith("test.jsonl has no column `problem`")
    assert str(tmp_path) not in json.dumps(result.metrics)
    said = r"`prompts.decontaminate: drop` needs the items of `gone.jsonl`, and gone.jsonl does not exist .*; mend it"
    with pytest.raises(InputError, match=said):
        run(tmp_path, texts, decontaminate="drop", decontaminate_against=[{"path": gone}, {"path": held}])


@pytest.mark.heavy
def test_items_of_the_harness(tmp_path: Path, texts: list[str]) -> None:
    """TruthfulQA's prompt has six examples before the question: the question alone is compared."""
    questions = ["Why is it so that the sky over the sea looks blue at noon?", "Who am I?", *ITEMS[:2]]
    columns = ("Question", "Best Answer", "Correct Answers", "Incorrect Answers")
    rows = [",".join(columns), *(f'"{question}",yes,yes; so,no' for question in questions)]
    path = tmp_path / "TruthfulQA.csv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    texts[3] = "who am i"
    against = [
        {"harness": "truthfulqa_mc2", "path": str(path)},
        {"harness": "truthfulqa_mc2", "path": "/gone.csv", "name": "gone"},
    ]
    result = run(tmp_path, texts, decontaminate_against=against)
    measured = result.metrics["decontamination"]
    assert measured["sets"]["truthfulqa_mc2"] == {"items": 4, "items_found": 2, "prompts": 2, "all_words": 2}
    assert measured["not_read"]["gone"].startswith("gone.csv does not exist or is no file")


def test_near_duplicates_in_several_splits_are_counted(tmp_path: Path) -> None:
    texts = [f"{unlike(place // 2)} {unlike(place // 2 + 40)}{'!' * (place % 2)}" for place in range(40)]
    result = run(tmp_path, texts)
    held: dict[str, set[str]] = {"calibration": set(), "dev": set(), "pool": set()}
    for row in result.data:
        held[row["split"]].add(row["messages"][0]["content"].rstrip("!"))
    dev, pool = len(held["dev"] & held["calibration"]), held["pool"] & (held["dev"] | held["calibration"])
    assert result.metrics["near_duplicates"]["dev_in_calibration"] == dev > 0
    assert result.metrics["near_duplicates"]["pool_in_earlier"] == len(pool) > 0
    assert result.counts["near_duplicates"] == dev + len(pool)
    assert "near_duplicates" not in run(tmp_path, texts, near_duplicates="none").counts


def test_near_duplicates_are_drawn_together(tmp_path: Path) -> None:
    texts = [f"{unlike(place // 2)} {unlike(place // 2 + 40)}{'!' * (place % 2)}" for place in range(30)]
    texts += [unlike(place + 100) for place in range(10)]
    result = run(tmp_path, texts, near_duplicates="together")
    splits: dict[str, set[str]] = {}
    for row in result.data:
        splits.setdefault(row["messages"][0]["content"].rstrip("!"), set()).add(row["split"])
    assert all(len(split) == 1 for split in splits.values())
    assert len(splits) == 25
    assert result.data["split"][:] == ["calibration"] * 10 + ["dev"] * 5 + ["pool"] * 25
    assert "near_duplicates" not in result.counts
    with pytest.raises(
        InputError, match=r"the split dev gets 4 prompts, and `dev` asks for 5; lower it, or give more"
    ):
        run(tmp_path, texts[:30], near_duplicates="together")


def test_prompts_behind_draw_from_go_to_the_pool_whatever_they_say(tmp_path: Path) -> None:
    texts = [unlike(place) for place in range(20)]
    before = run(tmp_path, texts, near_duplicates="together", draw_from=20)
    after = run(tmp_path, [*texts, *(f"{text}!" for text in texts)], near_duplicates="together", draw_from=20)
    held = [[row["prompt_id"] for row in found.data if row["split"] != "pool"] for found in (before, after)]
    assert held[0] == held[1]
    assert after.data["split"][:].count("pool") == 25


BASE: dict[str, Any] = {
    "name": "r",
    "teachers": [{"name": "a", "model": "x/a"}, {"name": "b", "model": "x/b"}],
    "students": [{"name": "s", "model": "x/s"}],
    "until": "prompts",
}


def test_fingerprints_depend_on_what_decides_rows_only(tmp_path: Path) -> None:
    held = write(tmp_path / "test.jsonl", ITEMS)
    source = {"path": write(tmp_path / "p.jsonl", ["one"], "prompt")}

    def covered(evaluate: dict[str, Any], **settings: Any) -> tuple[dict[str, Any], str]:
        (step,) = make_plan(Recipe.model_validate(BASE | {"prompts": source | settings, "evaluate": evaluate}))
        return covered_settings(step), fingerprint(step, 0, {})

    tasks = {"tasks": [{"name": "held", "path": held}]}
    plain, first = covered({})
    assert not {key for key in plain if key.startswith(("decontaminate", "near"))}
    others = [
        covered(tasks),
        covered(tasks, decontaminate="none", near_duplicates="none"),
        covered(tasks, decontaminate_share=0.8, decontaminate_against=[{"harness": "mmlu"}]),
    ]
    assert {print_of for _, print_of in others} == {first}
    dropped, second = covered(tasks, decontaminate="drop")
    assert dropped["decontaminate_against"][0]["path"].startswith("test.jsonl#")
    write(tmp_path / "test.jsonl", ITEMS[:2])
    assert len({first, second, covered(tasks, decontaminate="drop")[1]}) == 3
    assert covered({}, near_duplicates="together")[1] != first


def test_the_plan_names_the_tasks_of_the_recipe(tmp_path: Path) -> None:
    tasks = [
        {"name": "own", "path": "/tmp/x.jsonl", "columns": {"question": ["Body", "Question"], "answer": "Answer"}},
        {"name": "truth", "harness": "truthfulqa_mc2", "path": "/tmp/t.csv"},
        {"name": "hellaswag"},
    ]
    against = [{"harness": "mmlu"}, "tasks"]
    recipe = Recipe.model_validate(
        BASE | {"evaluate": {"tasks": tasks}, "prompts": {"decontaminate_against": against}}
    )
    first, own, truth, hellaswag = with_tasks(recipe)["decontaminate_against"]
    assert first == {"harness": "mmlu"}
    assert (own.title, own.harness, own.path, own.question) == ("own", None, "/tmp/x.jsonl", ["Body", "Question"])
    assert (truth.title, truth.harness, truth.path) == ("truth", "truthfulqa_mc2", "/tmp/t.csv")
    assert (hellaswag.title, hellaswag.harness, hellaswag.path) == ("hellaswag", "hellaswag", None)
    assert with_tasks(Recipe.model_validate(BASE)) == {}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"decontaminate_against": [{}]}, "a set needs one of `path`, `dataset` and `harness`, found none"),
        ({"decontaminate_against": [{"path": "a", "dataset": "b"}]}, "has either `path` or `dataset`, found both"),
        ({"decontaminate_against": ["tasks", "tasks"]}, "two sets are named `tasks`; leave one out"),
        ({"decontaminate_against": ["mmlu"]}, "decontaminate_against"),
        ({"decontaminate_share": 0}, "decontaminate_share: must be above 0 and at most 1, got 0"),
        ({"near_duplicates": "together", "columns": {"split": "s"}}, "take out it or `columns.split`"),
    ],
)
def test_bad_settings(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read_section(prompts.Settings, {"path": "a.jsonl", **settings}, "prompts")
    assert said in str(caught.value)
