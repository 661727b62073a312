"""Test items among the prompts, as a run tells of them, on the card, and as `persyn overlaps` shows them."""

import json
from pathlib import Path

import pytest

from persyn_hf.cli.main import main
from persyn_hf.store.local import Store


ITEM = (
    "Janet's ducks lay 16 eggs per day. She eats three for breakfast and sells the other 1,300 at the market for $2."
)
COPY = f"Question: {ITEM.lower().replace('1,300', '1300')}\nAnswer:"
RECIPE = """\
name: study
until: prompts
teachers: [{name: a, model: x/a}, {name: b, model: x/b}]
students: [{name: s, model: x/s}]
prompts: {path: ./prompts.jsonl, calibration: 20, dev: 10}
evaluate: {tasks: [{name: held-out, path: ./test.jsonl}, {name: gone, path: ./gone.jsonl, columns: {question: Q}}]}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    prompts = [{"prompt": f"Say {'very ' * (place + 1)}much"} for place in range(39)] + [{"prompt": COPY}]
    items = [{"question": "What is new?", "answer": "this"}, {"question": ITEM, "answer": "2"}]
    for name, rows in (("prompts", prompts), ("test", items), ("gone", [{"question": "?"}])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    path = tmp_path / "study.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def test_a_run_tells_and_the_command_shows(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = str(recipe.parent / "store")

    def persyn(*words: str) -> str:
        assert main([words[0], str(recipe), *words[1:], "--store", store]) == 0
        return " ".join(capsys.readouterr().out.split())

    warning = (
        "warning: prompts that hold an item of `held-out`: 1, of which 1 have all of its words (1 of the 2 items); "
        "look at them: persyn overlaps RECIPE, and leave them out by `prompts: {decontaminate: drop}`"
    )
    unread = "note: the prompts were not compared with the items of `gone`: gone.jsonl has no column `Q`"
    shown = persyn("overlaps")  # before anything is stored
    assert "1 of the 2 items of held-out in 1 of 40 prompts" in shown
    assert f"item: {ITEM} prompt: {' '.join(COPY.split())}" in shown
    assert "100% of the words of item 2 in the prompt" in shown
    assert "note: not compared with gone: gone.jsonl has no column `Q`" in shown
    for told in (persyn("run"), persyn("run")):  # stored, and found again
        assert warning in told
        assert unread in told
        assert "before they could be compared" not in told
    assert persyn("overlaps") == shown
    card = (Store(Path(store)).artifacts()[0].path / "README.md").read_text(encoding="utf-8")
    assert "| held-out | 2 | 1 | 1 | 1 |" in card
    assert "Not compared with: gone (gone.jsonl has no column" in card
    assert str(recipe.parent) not in card

    new = f"{{path: {recipe.parent / 'test.jsonl'}, name: new}}"
    later = ("--set", f"prompts.decontaminate_against=[tasks, {new}]")
    told = persyn("run", *later)
    assert "0 run now, 1 reused" in told
    assert "note: the prompts were stored before they could be compared with the items of new; compare them" in told
    assert "1 of the 2 items of new in 1 of 40 prompts" in persyn("overlaps", *later)

    drop = ("--set", "prompts.decontaminate=drop", "--set", f"prompts.decontaminate_against=[{new}]")
    told = persyn("run", *drop)
    assert "1 run now, 0 reused" in told
    assert "decontaminated 1, kept 39" in told
    assert "warning: prompts that hold" not in told
    assert "of the 10 dev prompts nearly say what a calibration prompt says, so dev judges the router too well" in told
    assert "1 of the 2 items of new in 1 of 40 prompts" in persyn("overlaps", *drop)  # those that were left out

    pinned = ("--set", "inputs.prompts=local/study-prompts@v1", "--set", "until=assign", "--set", "strategies=[mix]")
    assert persyn("overlaps", *pinned) == shown  # prompts of others, which no step reads


def test_what_cannot_be_compared_is_refused(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = str(recipe.parent / "store")
    assert main(["overlaps", str(recipe), "--set", "prompts.decontaminate=none", "--store", store]) == 2
    assert "the recipe has nothing to compare its prompts with; name `evaluate.tasks`" in capsys.readouterr().err
    assert main(["run", str(recipe), "--set", "prompts.decontaminate=drop", "--store", store]) == 2
    said = capsys.readouterr().err
    assert "`prompts.decontaminate: drop` needs the items of `gone`, and gone.jsonl has no column `Q`" in said
    assert "set `decontaminate: warn`" in said
