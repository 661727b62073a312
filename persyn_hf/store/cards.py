"""Cards: the README.md of an artifact, filled from its manifest. A field that is not filled is an error.

The templates are `dataset_cards/<kind>.md`; each extends `_base.md` and adds the words of its kind.
"""

import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

from persyn_hf.schemas import SCHEMAS, ModelSchema, Schema
from persyn_hf.store import cost_tables, tables
from persyn_hf.store.manifest import Manifest


_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def render_card(manifest: Manifest, tag: str) -> str:
    """The card of an artifact: YAML front matter for the Hub, then what it is and how it was made.

    Args:
        manifest: as it will be stored; nothing else is known of the artifact, so any store can write its card anew.
        tag: shown where the card says how to load.

    Raises:
        jinja2.UndefinedError: a template names a field that is not given.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, not HTML: the filters below escape for it
    )
    environment.filters |= {"cell": tables.cell, "code": tables.code, "text": tables.text}
    schema = SCHEMAS[manifest.kind]
    card = environment.get_template(f"{schema.kind}.md").render(
        front_matter=_front_matter(schema, manifest),
        manifest=manifest,
        schema=schema,
        is_model=isinstance(schema, ModelSchema),
        ref=f"{manifest.repo}@{tag}",
        tag=tag,
        configs=list(manifest.rows),
        columns=_columns(schema),
        rows=tables.grid(manifest.rows),
        settings=tables.flat(manifest.settings, "setting"),
        models=_models(manifest),
        counts=tables.flat(manifest.counts, "count", "number"),
        metrics=tables.sections(manifest.metrics),
        ledger=cost_tables.ledger(manifest.cost),
        counterfactual=cost_tables.counterfactual(manifest.cost),
        cost=tables.sections({key: item for key, item in manifest.cost.items() if key not in cost_tables.SHOWN}),
        packages=", ".join(f"{name} {version}" for name, version in sorted(manifest.packages.items())) or "not known",
    )
    return re.sub(r"\n{3,}", "\n\n", card).rstrip() + "\n"


def _template(name: str) -> str | None:
    path = resources.files("persyn_hf.dataset_cards") / name
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _front_matter(schema: Schema | ModelSchema, manifest: Manifest) -> str:
    from huggingface_hub import DatasetCardData, ModelCardData

    licences = set(manifest.licences.values())
    license = licences.pop() if len(licences) == 1 else None
    language = list(manifest.languages) or None
    tags = ["persyn", f"persyn-{schema.kind}", "arxiv:2510.10925"]
    name = manifest.repo.partition("/")[2]
    if isinstance(schema, Schema):
        tags.append("synthetic")
        data: Any = DatasetCardData(
            language=language, license=license, pretty_name=name, tags=tags, configs=configs(manifest)
        )
        return str(data.to_yaml())
    base = (manifest.student or {}).get("model")
    data = ModelCardData(
        base_model=base if base and _HUB_ID.fullmatch(base) else None,
        datasets=[
            item.ref.partition("@")[0]
            for keyword, item in manifest.inputs.items()
            if not isinstance(SCHEMAS.get(keyword), ModelSchema)
        ]
        or None,
        language=language,
        library_name="transformers",
        license=license,
        model_name=name,
        tags=tags,
    )
    return str(data.to_yaml())


def configs(manifest: Manifest) -> list[dict[str, Any]]:
    """The `configs:` of the front matter, by which `load_dataset` and the Hub's viewer find the files.

    With several configs one more, the default, takes them all, so that plain `load_dataset` leaves nothing out.
    """
    listed = [_config(name, name, splits) for name, splits in sorted(manifest.rows.items())]
    if len(listed) < 2:
        return listed
    name = "all"
    while name in manifest.rows:
        name = f"_{name}"
    together = _config(name, "*", {split: 0 for splits in manifest.rows.values() for split in splits})
    return [{**together, "default": True}, *listed]


def _config(name: str, folder: str, splits: Mapping[str, int]) -> dict[str, Any]:
    files = [{"split": split, "path": f"data/{folder}/{split}-*.parquet"} for split in sorted(splits)]
    return {"config_name": name, "data_files": files}


def _columns(schema: Schema | ModelSchema) -> str:
    if isinstance(schema, ModelSchema):
        return "none"
    rows = [
        (
            tables.code(column.name),
            tables.code(column.dtype),
            "yes" if column.nullable else "no",
            column.meaning.replace("|", "\\|"),
        )
        for column in schema.columns
    ]
    return tables.table(("column", "dtype", "may be null", "meaning"), rows)


def _models(manifest: Manifest) -> str:
    """The teachers, in the order of every list of scores, and the student."""
    models = [("teacher", teacher) for teacher in manifest.teachers]
    models += [("student", manifest.student)] if manifest.student else []
    rows = []
    for role, model in models:
        source = tables.code(model["model"]) if model.get("model") else "none given"
        rows.append((role, tables.text(model.get("name", "")), source, tables.cell(model.get("revision"))))
    return tables.table(("role", "name", "model", "revision"), rows) if rows else ""
