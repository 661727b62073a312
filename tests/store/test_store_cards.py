"""Cards are built from the artifact: change one, the other changes."""

import copy

import pytest
from card_samples import EVALUATED, card, evaluation
from huggingface_hub import DatasetCard, ModelCard
from store_samples import MODELS, dataset_of, fields, link, model_folder, rows_of

from persyn_hf.recipe.roles import Student, Teacher
from persyn_hf.runner.fingerprint import described
from persyn_hf.schemas import PROMPTS, RESPONSES, SCHEMAS
from persyn_hf.store.cards import markdown as tables
from persyn_hf.store.cards.card import render_card
from persyn_hf.store.manifest import Manifest


@pytest.mark.parametrize("kind", SCHEMAS)
def test_every_kind_has_a_full_card(kind):
    inputs = {"prompts": {"ref": "me/p@v1", "digest": "0" * 64}}
    text = card(kind, inputs=inputs)
    for needed in ("me/x@v3", "my-recipe", "`samples` | 4", "`sampling.temperature` | 0.6", "Seed 7"):
        assert needed in text
    for needed in ("`dropped_error` | 1", "`unjudged` | 2", "gpu_seconds", "`0000000000000000`", "`mit`"):
        assert needed in text
    for needed in (
        "[org/a](https://huggingface.co/org/a/tree/main)",
        "[me/p](https://huggingface.co/datasets/me/p/tree/v1)",
        "## Limits\n\n- ",
        "arXiv",
        "2510.10925",
        "Multi-Teacher Distillation",
        "load_artifact",
        "| a | 0.5 | 3 |",
    ):
        assert needed in text
    assert "{{" not in text and "{%" not in text and "\n\n\n" not in text
    schema = SCHEMAS[kind]
    for column in getattr(schema, "columns", ()):
        assert f"| `{column.name}` | `{column.dtype}` |" in text


def test_front_matter_of_a_dataset():
    data = DatasetCard(card()).data
    assert (data.license, data.language, data.pretty_name) == ("mit", ["en"], "x")
    assert (data.size_categories, data.task_categories) == (["n<1K"], ["text-generation"])
    assert {"persyn", "persyn-responses", "synthetic"} <= set(data.tags)
    assert data.configs[0] == {
        "config_name": "all",
        "default": True,
        "data_files": [
            {"split": "dev", "path": "data/*/dev-*.parquet"},
            {"split": "pool", "path": "data/*/pool-*.parquet"},
        ],
    }
    assert [config["config_name"] for config in data.configs] == ["all", "a", "b_1"]
    assert DatasetCard(card(rows={"a": {"dev": 400, "pool": 600}})).data.size_categories == ["1K<n<10K"]


def test_a_language_that_the_hub_refuses_is_told_in_words_only():
    text = card(languages=("English", "de"))
    assert DatasetCard(text).data.language == ["de"]
    assert "Language: `English`, `de`." in text


def test_a_teacher_named_all_keeps_its_name():
    configs = DatasetCard(card(rows={"all": {"dev": 1}, "b": {"dev": 1}})).data.configs
    assert [config["config_name"] for config in configs] == ["_all", "all", "b"]


def test_front_matter_of_a_model():
    inputs = {"sft": {"ref": "me/sft@v1", "digest": "0" * 64}, "rewards": {"ref": "me/r@v1", "digest": "0" * 64}}
    data = ModelCard(card("student", inputs=inputs)).data
    assert (data.base_model, data.base_model_relation) == ("org/student", "finetune")
    assert (data.datasets, data.library_name, data.pipeline_tag) == (["me/sft"], "transformers", "text-generation")
    local = ModelCard(card("student", student={"name": "s", "model": "folder#0123"})).data
    assert local.base_model is None and local.datasets is None and "base_model_relation" not in local.to_dict()
    adapter = ModelCard(card("student", files={"adapter_config.json": "0"})).data
    assert adapter.base_model_relation == "adapter"
    cheap = ModelCard(card("router", settings={"kind": "knn", "backbone": "Qwen/Qwen2.5-1.5B"})).data
    assert (cheap.base_model, cheap.library_name, cheap.pipeline_tag) == (None, "persyn-hf", "text-classification")
    llm = ModelCard(card("router", settings={"kind": "llm", "backbone": "org/b"}, files={"config.json": "0"})).data
    assert (llm.base_model, llm.library_name) == ("org/b", "transformers")


def test_evaluation_results_are_told_to_the_hub_and_to_the_reader():
    text = card("student", evaluations=[evaluation()])
    data = ModelCard(text).data
    result, other = data.eval_results
    assert (data.model_name, data.metrics) == ("x", ["accuracy", "inst_level_strict_acc"])
    assert (result.task_type, result.dataset_name, result.metric_type) == ("text-generation", "gsm8k", "accuracy")
    assert result.metric_value == 0.5123
    assert (other.dataset_name, other.metric_type, other.metric_name) == ("ifeval", *["inst_level_strict_acc"] * 2)
    assert result.source_url == "https://huggingface.co/datasets/me/eval"
    link = "[me/eval](https://huggingface.co/datasets/me/eval)"
    assert "| task | metric | score | 95 % interval | items | unjudged | answers |" in text
    assert f"| gsm8k | accuracy | 51.2% | 48.0% to 54.0% | 1,319 | 2 | {link} |" in text
    assert f"| ifeval | inst\\_level\\_strict\\_acc | 25.0% | 20.0% to 30.0% | 541 | 0 | {link} |" in text
    assert "| empty | accuracy | – | – to – | 3 | 3 |" in text
    assert "Not asked" not in text
    noted = {"gsm8k": EVALUATED["gsm8k"] | {"too_long": 3, "cut": 1200}, "t": EVALUATED["empty"] | {"too_long": 0}}
    told = card("student", evaluations=[evaluation(metrics=noted)])
    assert (
        "Not asked, as prompt and answer do not fit: gsm8k 3. Answers cut at the limit of tokens: gsm8k 1,200." in told
    )
    assert "model_validate({'max_tokens': 64, 'tasks': [{'name': 'gsm8k'}]})" in text
    assert "To measure it again" not in card("student")


CHANGES = {
    "stage": "assign",
    "kind": "sft",
    "schema_version": 2,
    "repo": "me/y",
    "settings": {"samples": 5},
    "seed": 8,
    "fingerprint": "e" * 64,
    "inputs": {"prompts": {"ref": "me/p@v2", "digest": "0" * 64}},
    "teachers": ["b_1", "a"],
    "student": {"name": "s2"},
    "counts": {"rows": 13},
    "metrics": {"accuracy": 0.26},
    "cost": {"gpu_seconds": 2},
    "packages": {"datasets": "6"},
    "created_at": "2027-01-01T00:00:00+00:00",
    "code_version": 2,
    "recipe": "other-recipe",
    "licences": {"prompts": "isc"},
    "languages": ("zh",),
    "rows": {"a": {"dev": 4}},
    "files": {"figures/allocation.png": "0"},  # a data file is told by the digest that it changes
    "digest": "e" * 64,
}


@pytest.mark.parametrize("field", Manifest.model_fields)
@pytest.mark.parametrize("kind", SCHEMAS)
def test_the_card_changes_with_every_field_of_the_manifest(kind, field):
    """A new field fails here until a card shows it."""
    if field == "rows" and kind in [schema.kind for schema in MODELS]:
        assert card(kind) == card(kind, rows={}), "models have no rows"
        return
    assert card(**{"kind": kind, field: "pairs" if kind == CHANGES[field] else CHANGES[field]}) != card(kind)


MODEL_CHANGES = {
    "name": "z",
    "model": "org/z",
    "revision": "abc",
    "family": "gemma",
    "params_b": 7.5,
    "long_cot": True,
    "samples": 3,
    "temperature": 0.0,
    "top_p": 0.9,
    "max_tokens": 100,
    "chat_template_kwargs": {"enable_thinking": False},
    "system_prompt": "Be short.",
    "engine": "server",
    "server": {"extra": {"top_k": 5}},
    "vllm": {"args": ["--enforce-eager"]},
    "chat_template": "template.jinja",
}
NOT_TOLD = {(Teacher, "price"), (Teacher, "license"), (Student, "license"), (Student, "params_b")}  # told elsewhere


@pytest.mark.parametrize(
    ("kind", "field"), [(kind, field) for kind in (Teacher, Student) for field in kind.model_fields]
)
def test_the_card_changes_with_every_field_of_a_model(kind, field):
    if (kind, field) in NOT_TOLD:
        assert field not in described(kind(name="a"))
        return
    one, other = kind(name="a", model="org/a"), kind(**{"name": "a", "model": "org/a", field: MODEL_CHANGES[field]})

    def told(model):
        return card(**({"teachers": [described(model)]} if kind is Teacher else {"student": described(model)}))

    assert told(one) != told(other)


def test_the_card_changes_with_an_evaluation():
    changed = copy.deepcopy(EVALUATED)
    changed["gsm8k"]["high"] = 0.55
    texts = [card("student", evaluations=each) for each in ([], [evaluation()], [evaluation(metrics=changed)])]
    assert len(set(texts)) == 3


def test_a_field_that_is_not_filled_is_an_error(monkeypatch):
    import jinja2

    from persyn_hf.store.cards import card as cards

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
