"""Cards are built from the artifact: change one, the other changes; data cannot break them."""

import re

import pytest
from huggingface_hub import DatasetCard, ModelCard
from store_samples import DATASETS, MODELS, dataset_of, fields, link, model_folder, rows_of

from persyn_hf.schemas import PROMPTS, RESPONSES, SCHEMAS
from persyn_hf.store import tables
from persyn_hf.store.cards import render_card
from persyn_hf.store.manifest import Manifest


def manifest_of(kind, **more):
    rows = {"a": {"dev": 3, "pool": 4}, "b_1": {"pool": 2}} if kind in [schema.kind for schema in DATASETS] else {}
    known = {"kind": kind, "schema_version": 1, "repo": "me/x", "rows": rows, "digest": "d" * 64}
    return Manifest(**{**fields(created_at="2026-01-01T00:00:00+00:00"), **known, **more})


def card(kind="responses", license="mit", language="en", tag="v3", **more):
    known = {"recipe": "my-recipe", "licences": {"prompts": license}, "languages": (language,)}
    return render_card(manifest_of(kind, **{**known, **more}), tag)


@pytest.mark.parametrize("kind", SCHEMAS)
def test_every_kind_has_a_full_card(kind):
    inputs = {"prompts": {"ref": "me/p@v1", "digest": "0" * 64}}
    text = card(kind, inputs=inputs)
    for needed in ("me/x@v3", "my-recipe", "`samples` | 4", "`sampling.temperature` | 0.6", "Seed 7", "`org/a`"):
        assert needed in text
    for needed in ("`dropped_error` | 1", "`unjudged` | 2", "gpu_seconds", "me/p@v1", "`0000000000000000`"):
        assert needed in text
    for needed in (
        "## Limits\n\n- ",
        "arXiv",
        "2510.10925",
        "Multi-Teacher Distillation",
        "load_artifact",
        "| a | 3 | 0.5 |",
    ):
        assert needed in text
    assert "{{" not in text and "{%" not in text and "\n\n\n" not in text
    schema = SCHEMAS[kind]
    for column in getattr(schema, "columns", ()):
        assert f"| `{column.name}` | `{column.dtype}` |" in text


def test_front_matter_of_a_dataset():
    data = DatasetCard(card()).data
    assert (data.license, data.language, data.pretty_name) == ("mit", ["en"], "x")
    assert "persyn" in data.tags
    assert data.configs[0] == {
        "config_name": "all",
        "default": True,
        "data_files": [
            {"split": "dev", "path": "data/*/dev-*.parquet"},
            {"split": "pool", "path": "data/*/pool-*.parquet"},
        ],
    }
    assert [config["config_name"] for config in data.configs] == ["all", "a", "b_1"]
    assert "license" not in DatasetCard(card(license=None)).data.to_dict()


def test_a_teacher_named_all_keeps_its_name():
    configs = DatasetCard(card(rows={"all": {"dev": 1}, "b": {"dev": 1}})).data.configs
    assert [config["config_name"] for config in configs] == ["_all", "all", "b"]


def test_front_matter_of_a_model():
    inputs = {"sft": {"ref": "me/sft@v1", "digest": "0" * 64}, "router": {"ref": "me/r@v1", "digest": "0" * 64}}
    data = ModelCard(card("student", inputs=inputs)).data
    assert (data.base_model, data.datasets, data.library_name) == ("org/student", ["me/sft"], "transformers")
    local = ModelCard(card("student", student={"name": "s", "model": "folder#0123"})).data
    assert local.base_model is None and local.datasets is None


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {"samples": 5}},
        {"seed": 8},
        {"counts": {"rows": 13}},
        {"metrics": {"accuracy": 0.26}},
        {"cost": {"gpu_seconds": 2}},
        {"code_version": 2},
        {"packages": {"datasets": "6"}},
        {"teachers": ["b_1", "a"]},
        {"inputs": {"prompts": {"ref": "me/p@v2", "digest": "0" * 64}}},
        {"digest": "e" * 64},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_card_changes_with_what_it_tells(change):
    assert card(**change) != card()


def test_text_from_data_cannot_break_the_card():
    nasty = "x | y\n| `z` <script>alert(1)</script> [a](http://b) # h\\"
    text = card(
        teachers=[{"name": nasty, "model": nasty}],
        settings={nasty: nasty},
        metrics={nasty: {nasty: {nasty: nasty}}},
        counts={nasty: 1},
        licences={nasty: nasty},
        recipe=nasty,
    )
    assert "<script>" not in text and not re.search(r"(?<!\\)\]\(http://b", text)
    block: list[str] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            block.append(line)
            continue
        widths = {len(row.replace("\\\\", "").replace("\\|", "").split("|")) for row in block}
        assert len(widths) <= 1, block
        block = []


def test_a_field_that_is_not_filled_is_an_error(monkeypatch):
    import jinja2

    from persyn_hf.store import cards

    monkeypatch.setattr(cards, "_template", lambda name: "{{ manifest.repo }} {{ nobody_gave_this }}")
    with pytest.raises(jinja2.UndefinedError, match="nobody_gave_this"):
        card()


def test_tables_of_any_shape():
    assert tables.sections({}) == "none"
    assert tables.sections({"a": 1, "b": None, "c": True, "d": [1, 2.5], "e": 12345}) == (
        "| measure | value |\n| --- | --- |\n"
        "| `a` | 1 |\n| `b` | – |\n| `c` | yes |\n| `d` | 1, 2.5 |\n| `e` | 12,345 |"
    )
    assert tables.sections({"t": {"x": {"n": 1}, "y": {"n": 2, "m": 0.123456}}}) == (
        "### t\n\n|  | n | m |\n| --- | --- | --- |\n| x | 1 |  |\n| y | 2 | 0.1235 |"
    )
    assert tables.sections({"deep": {"t": {"x": {"n": 1}}, "k": 3}}).startswith(
        "### deep\n\n| measure | value |\n| --- | --- |\n| `k` | 3 |\n\n#### t\n\n|  | n |"
    )
    assert "| 0 | 5 |" in tables.sections({"list": [{"a": 5}]})


def test_the_stored_card_is_the_rendered_one(store, tmp_path):
    prompts = store.put(repo="me/p", schema=PROMPTS, data=dataset_of(PROMPTS, rows_of(PROMPTS, 3)), fields=fields())
    stored = store.put(
        repo="me/x",
        schema=RESPONSES,
        data=dataset_of(RESPONSES, rows_of(RESPONSES, 9)),
        fields=fields(inputs=link(prompts), licences={"prompts": "cc-by-4.0"}, languages=["zh"]),
        figures={"figures/shares.png": b"a picture"},
    )
    text = (stored.path / "README.md").read_text(encoding="utf-8")
    assert text == render_card(stored.manifest, "v1")
    assert stored.digest in text and prompts.digest[:16] in text
    assert (stored.path / "figures" / "shares.png").read_bytes() == b"a picture"
    data = DatasetCard(text).data
    assert (data.license, data.language) == ("cc-by-4.0", ["zh"])
    model = store.put(repo="me/m", schema=MODELS[1], data=model_folder(tmp_path / "m"), fields=fields())
    assert "AutoModelForCausalLM" in (model.path / "README.md").read_text(encoding="utf-8")
