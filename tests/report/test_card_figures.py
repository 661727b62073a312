"""Cards and pictures of a real run of the tiny world: each kind renders, loads as it says, and measures as it says."""

import ast
import contextlib
import io
import re
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import DatasetCard, ModelCard

from persyn_hf.contract import ModelSchema
from persyn_hf.recipe.roles import Teacher
from persyn_hf.report import card_figures as drawing
from persyn_hf.report.card_figures import card_figures
from persyn_hf.report.figures import draw_allocation, save_figure
from persyn_hf.schemas import SCHEMAS
from persyn_hf.store.cards.card import render_card
from persyn_hf.store.cards.licences import HUB_LICENCES
from persyn_hf.store.local import Store
from persyn_hf.store.stored import Stored


PICTURES = {
    "assignments": "allocation",
    "sft": "allocation",
    "responses": "responses",
    "rewards": "rewards",
    "router": "hits",
    "evaluation": "accuracy",
    "student": "loss",
}
POOL = [
    Teacher(name="small", family="one", params_b=1),
    Teacher(name="large", family="one", params_b=70),
    Teacher(name="thinks", family="two", params_b=7, long_cot=True),
]


@pytest.fixture(scope="module")
def store(finished: tuple[Path, float]) -> Store:
    return Store(finished[0])


def text_of(stored: Stored) -> str:
    return (stored.path / "README.md").read_text(encoding="utf-8")


def blocks(card: str) -> Iterator[str]:
    return (found[1] for found in re.finditer(r"^```python\n(.*?)^```", card, re.DOTALL | re.MULTILINE))


def test_every_kind_has_a_card_that_the_hub_takes_and_its_picture(store: Store) -> None:
    assert {item.kind for item in store.artifacts()} == set(SCHEMAS)
    for item in store.artifacts():
        text = text_of(item)
        assert text == render_card(item.manifest, item.tag)
        is_model = isinstance(SCHEMAS[item.kind], ModelSchema)
        data = (ModelCard if is_model else DatasetCard)(text).data
        assert data.license in HUB_LICENCES and data.language == ["en"]
        assert text.count("## Results\n\n|") == 1, "a table comes first"
        pictures = [name for name in item.manifest.files if name.startswith("figures/")]
        assert pictures == ([f"figures/{PICTURES[item.kind]}.png"] if item.kind in PICTURES else [])
        for name in pictures:
            assert re.search(rf"!\[[^]]{{20,}}\]\({name}\)", text)
            picture = (item.path / name).read_bytes()
            assert picture.startswith(b"\x89PNG") and len(picture) < 60_000
            assert struct.unpack(">I", picture[16:20])[0] == 700, "wide enough to be read at 600 pixels"


def test_datasets_load_as_their_cards_say(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every config, all together, and row by row; columns that hold nothing keep their types."""
    from datasets import load_dataset

    monkeypatch.setenv("PERSYN_STORE", str(store.root))
    for name in ("responses", "prompts"):
        item = store.get(f"tiny/smoke-{name}@v1")
        loading = [block for block in blocks(text_of(item)) if "import persyn_hf\n" not in block]  # the rest uses it
        code = "\n".join(loading).replace('repo, tag = "tiny/', f'repo, tag = "{tmp_path}/')
        (tmp_path / f"smoke-{name}").symlink_to(item.path)
        names: dict[str, Any] = {}
        exec(code, names)  # noqa: S102
        everything = names["data"]
        counted = {split: len(rows) for split, rows in everything.items()}
        assert counted == {key.removeprefix("rows_"): n for key, n in item.manifest.counts.items() if "rows_" in key}
        assert next(iter(names["rows"])) in names["load_dataset"](names["repo"], split=names["rows"].split)
        for config in item.manifest.rows:
            for rows in load_dataset(str(item.path), config).values():
                assert rows.features == SCHEMAS[item.kind].features  # type: ignore[union-attr]


def test_a_student_measures_what_its_card_says(
    store: Store, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERSYN_STORE", str(store.root))
    monkeypatch.chdir(tmp_path)
    student = store.get("tiny/smoke-student-qwen-student-persyn@v1")
    evaluation = store.get("tiny/smoke-evaluation-qwen-student-persyn@v1").manifest
    text = render_card(student.manifest, "v1", [evaluation])
    (result,) = ModelCard(text).data.eval_results
    assert result.metric_value == round(evaluation.metrics["tiny-test"]["accuracy"], 4)
    assert f"| tiny-test | accuracy | {evaluation.metrics['tiny-test']['accuracy']:.1%} |" in text
    (code,) = (block for block in blocks(text) if "evaluate" in block)
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        exec(re.sub(r"'test\.jsonl#\w+'", repr(str(root / "recipes/tiny/test.jsonl")), code), {})  # noqa: S102
    assert ast.literal_eval(told.getvalue()) == evaluation.metrics
    assert not list(tmp_path.iterdir()), "it leaves nothing behind"


def test_families_by_colour_the_larger_the_darker_and_long_cot_hatched() -> None:
    figure = drawing._allocation({"allocation": {"small": 0.5, "large": 0.3, "thinks": 0.2}}, POOL)
    small, large, thinks = figure.axes[0].patches
    assert [patch.get_width() for patch in (small, large, thinks)] == [0.5, 0.3, 0.2]
    assert sum(large.get_facecolor()[:3]) < sum(small.get_facecolor()[:3])
    assert [patch.get_hatch() for patch in (small, large, thinks)] == [None, None, "///"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["small", "large", "thinks (Long-CoT)"]


def test_what_was_not_measured_is_left_out() -> None:
    line = {"accuracy": None, "truncated": 0.0, "quality": None, "mean_logprob": -0.5, "reward": None}
    metrics = {"teachers": {teacher.name: line for teacher in POOL}}
    assert [axes.get_xlabel() for axes in drawing._responses(metrics, POOL).axes] == ["truncated"]
    assert [axes.get_xlabel() for axes in drawing._rewards(metrics, POOL).axes] == ["log-prob per token"]
    for kind, nothing in (
        ("prompts", {}),
        ("pairs", {"mean_label": 0.5}),
        ("student", {"loss": [[1, 0.5]]}),
        ("evaluation", {"task": {"accuracy": None}}),
        ("rewards", {"teachers": {"small": dict.fromkeys(line)}}),
    ):
        assert card_figures(kind, nothing, POOL) == {}, kind


def test_two_reports_have_the_same_bytes(tmp_path: Path) -> None:
    """Hatches and clips have names in an SVG, which matplotlib draws anew each time unless it is told not to."""
    pool = [Teacher(name="a"), Teacher(name="b", long_cot=True)]
    shares = {"persyn": {"a": 0.4, "b": 0.6}, "mix": {"a": 0.5, "b": 0.5}}
    one, other = (save_figure(draw_allocation(pool, {"": shares}), tmp_path / name) for name in ("one", "other"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]
    assert [path.suffix for path in one] == [".png", ".svg"]


@pytest.mark.parametrize("largest", [1e6, 1e100])
def test_numbers_of_any_size_are_drawn(largest: float) -> None:
    lines = {
        name: {"quality": value, "mean_logprob": -1.0, "reward": 0.5} for name, value in (("a", largest), ("b", 0))
    }
    with warnings.catch_warnings(action="error"):
        assert card_figures("rewards", {"teachers": lines}, [Teacher(name="a"), Teacher(name="b")])


def test_a_large_pool_stays_small_and_the_bytes_are_the_same_each_time() -> None:
    pool = [
        Teacher(name=f"Teacher-{i}-Instruct", family=f"f{i % 7}", params_b=i + 1, long_cot=i > 15) for i in range(19)
    ]
    line = {"quality": 0.123, "mean_logprob": -0.5, "reward": 0.9}
    metrics = {"teachers": {teacher.name: line for teacher in pool}}
    assert len(card_figures("rewards", metrics, pool)["figures/rewards.png"]) < 60_000
    first, second = (card_figures("sft", {"allocation": {"small": 0.25}}, POOL) for _ in range(2))
    assert first == second != {}
