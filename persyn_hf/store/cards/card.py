"""Cards: the README.md of an artifact, filled from its manifest. A field that is not filled is an error.

The templates are `dataset_cards/<kind>.md`; each extends `_base.md` and adds the words of its kind.
"""

import re
from collections.abc import Sequence
from urllib.parse import quote

from persyn_hf.contract import ModelSchema, Schema
from persyn_hf.recipe.packaged import folder
from persyn_hf.schemas import SCHEMAS
from persyn_hf.store.cards import costs, headlines, licences, markdown
from persyn_hf.store.cards.front_matter import front_matter
from persyn_hf.store.manifest import Manifest


# What a picture shows, for readers who do not see it.
ALT = {
    "allocation": "One bar per teacher: the share of the prompts that it gets",
    "responses": "Bars per teacher: the share of its answers that are right, and that were cut off",
    "rewards": "Bars per teacher: mean quality, learnability and reward of its answers",
    "hits": "Hit@1, Hit@3 and Hit@5 of the router beside random choice and the best single teacher",
    "accuracy": "One bar per task: the accuracy with its 95 % interval",
    "loss": "The training loss over the optimiser steps",
    "reliability": "Predicted preference of one teacher over another, against the share that was preferred",
    "learning-curve": "Share of the gap to the oracle closed, against the number of calibration prompts",
}


def render_card(manifest: Manifest, tag: str, evaluations: Sequence[Manifest] = ()) -> str:
    """Return the card of an artifact: YAML front matter for the Hub, then what it is and how it was made.

    Args:
        manifest: as it will be stored; nothing else is known of the artifact, so any store can write its card
            anew.
        tag: the tag that the card names where it shows how to load the artifact.
        evaluations: manifests of a student's evaluations, to be shown on its card.

    Raises:
        jinja2.UndefinedError: a template names a field that is not given.
    """
    import jinja2

    manifest, *evaluations = (Manifest.model_validate_json(each.to_json()) for each in (manifest, *evaluations))
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, not HTML: the filters below escape for it
    )
    environment.filters |= {name: getattr(markdown, name) for name in ("cell", "code", "text", "literal")}
    environment.filters["python"] = repr  # on one line whatever it holds, so it ends no code block
    schema = SCHEMAS[manifest.kind]
    card = environment.get_template(f"{schema.kind}.md").render(
        front_matter=front_matter(manifest, evaluations),
        manifest=manifest,
        schema=schema,
        is_model=isinstance(schema, ModelSchema),
        ref=f"{manifest.repo}@{tag}",
        tag=tag,
        headline=headlines.headline(manifest),
        pictures=_pictures(manifest),
        configs=list(manifest.rows),
        split=next((split for splits in manifest.rows.values() for split in splits), "train"),
        columns=_columns(schema),
        rows=markdown.grid(manifest.rows),
        settings=markdown.flat(manifest.settings, "setting"),
        models=headlines.models(manifest),
        counts=markdown.flat(manifest.counts, "count", "number"),
        metrics=markdown.sections(manifest.metrics),
        evaluated=headlines.evaluations(evaluations),
        evaluations=evaluations,
        ledger=costs.ledger(
            manifest.cost, headlines.counted_here(manifest), "judge" if manifest.kind == "rewards" else "teacher"
        ),
        counterfactual=costs.counterfactual(manifest.cost),
        cost=markdown.sections({key: item for key, item in manifest.cost.items() if key not in costs.SHOWN}),
        packages=markdown.text(", ".join(f"{name} {version}" for name, version in sorted(manifest.packages.items()))),
        inputs=_inputs(manifest),
        licences=licences.section(manifest.licences),
        languages=", ".join(map(markdown.code, manifest.languages)) or "not known",
    )
    return re.sub(r"\n{3,}", "\n\n", card).rstrip() + "\n"


def _template(name: str) -> str | None:
    """Return the text of a template of `dataset_cards/`, None where there is none of this name."""
    path = folder("dataset_cards") / name
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _pictures(manifest: Manifest) -> list[str]:
    """Return every picture that the artifact holds, as Markdown with a text for readers who do not see it."""
    stems = {name: name.rpartition("/")[2].removesuffix(".png") for name in manifest.files if name.endswith(".png")}
    return [f"![{ALT.get(stem, markdown.text(stem))}]({quote(name)})" for name, stem in stems.items()]


def _columns(schema: Schema | ModelSchema) -> str:
    """Return the column contract of a kind as a Markdown table; "none" for models."""
    if isinstance(schema, ModelSchema):
        return "none"
    rows = [
        (
            markdown.code(column.name),
            markdown.code(column.dtype),
            "yes, or absent" if column in schema.optional else "yes" if column.nullable else "no",
            column.meaning.replace("|", "\\|"),
        )
        for column in (*schema.columns, *schema.optional)
    ]
    return markdown.table(("column", "dtype", "may be null", "meaning"), rows)


def _inputs(manifest: Manifest) -> str:
    """Return what the artifact was made from as a Markdown table with links to the Hub; empty without inputs."""
    rows = []
    for keyword, item in manifest.inputs.items():
        repo, _, tag = item.ref.partition("@")
        is_model = isinstance(SCHEMAS.get(keyword), ModelSchema) or (manifest.kind, keyword) == ("router", "base")
        link = markdown.hub_link(repo, tag, dataset=not is_model)
        rows.append((markdown.code(keyword), link, markdown.code(tag), markdown.code(item.digest[:16])))
    return markdown.table(("input", "artifact", "tag", "content digest"), rows) if rows else ""
