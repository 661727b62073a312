"""Make the JSON Schema of a recipe, by which editors complete, explain and check one.

It says what each key may hold by itself. What contradicts another key is found by `persyn validate` only. Files that
others extend are recipes in part, so a key is needed only where an entry of a list would lack it.
"""

import importlib
from typing import Any, get_args

from pydantic import BaseModel

from persyn_hf.backends.routers.settings import RouterSettings, Trained
from persyn_hf.recipe.recipe import STAGES, Recipe
from persyn_hf.recipe.roles import NAME
from persyn_hf.runner.plan import BY_CALIBRATION, BY_SCORE, BY_STRATEGY


Node = dict[str, Any]  # a JSON Schema, or a part of one

WORDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


def recipe_schema() -> Node:
    """Return the JSON Schema (draft 2020-12) of a recipe, with the stages' sections and without references."""
    root = _schema_of(Recipe)
    keys = root["properties"]
    for stage in STAGES:
        settings = importlib.import_module(f"persyn_hf.stages.{stage}").Settings
        section = _schema_of(settings) | {"description": keys[stage]["description"]}
        for decided_by in (BY_STRATEGY, BY_CALIBRATION, BY_SCORE):
            for decided in decided_by.get(stage, ()):
                del section["properties"][decided]
        keys[stage] = section
    _short_forms(keys)
    text = "The files that this one goes on top of, a path or a list of paths. They count from this file."
    paths = [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]
    extends = {"anyOf": paths, "default": [], "description": text}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A recipe of persyn-hf",
        **root,
        "properties": {"extends": extends, **keys},
        "if": {"required": ["name"], "not": {"required": ["extends"]}},
        "then": {"required": ["teachers", "students"]},
    }


def _short_forms(keys: Node) -> None:
    """Add what the models' own validators make of other forms, and what lower floors do not know of higher ones."""
    for key in ("server", "vllm"):
        teacher, own = keys["teachers"]["items"]["properties"], keys["generate"]["properties"][key]
        teacher[key] = own | {"description": teacher[key]["description"]}
    rerun = keys["generate"]["properties"]["rerun"]
    rerun["anyOf"] = [rerun["items"], {"type": rerun.pop("type"), "items": rerun.pop("items")}]
    strategy = keys["strategies"]["items"]
    kinds = strategy["properties"]["kind"]["enum"]
    strategy["properties"]["router"]["enum"] = [*keys["train_router"]["properties"]["kind"]["enum"], None]
    candidate = _schema_of(RouterSettings)
    del candidate["properties"]["candidates"]
    candidate |= {"required": ["kind"]}
    candidate["properties"]["kind"]["enum"] = list(get_args(Trained))
    keys["train_router"]["properties"]["candidates"]["items"] = {
        "anyOf": [{"enum": list(get_args(Trained))}, candidate]
    }
    entries = [keys["teachers"], keys["students"], keys["strategies"], keys["evaluate"]["properties"]["tasks"]]
    names = [entry["items"]["properties"]["name"] for entry in entries]
    for name in [keys["name"], keys["namespace"], keys["version"], *names]:
        name["pattern"] = f"^{NAME.pattern}$"
    keys["strategies"]["items"] = {"anyOf": [{"enum": kinds}, strategy]}


def _schema_of(model: type[BaseModel]) -> Node:
    schema = model.model_json_schema()
    return _plain(schema, schema.pop("$defs", {}), entry=False)


def _plain(node: Node, models: Node, entry: bool) -> Node:
    """Return a node of pydantic's with its references replaced by `models`, and said as shortly as may be.

    entry: it is an entry of a list, which is given whole. Elsewhere a key that is missing may come from another file.
    """
    if "$ref" in node:
        node = models[node["$ref"].rpartition("/")[2]] | {key: node[key] for key in node if key != "$ref"}
    made = {WORDS.get(key, key): value for key, value in node.items() if key not in ("title", "anyOf", "required")}
    if entry and "required" in node:
        made["required"] = node["required"]
    if "properties" in made:
        made.pop("default", None)  # each key has its own
        made["properties"] = {key: _plain(value, models, False) for key, value in made["properties"].items()}
    for key, inside in (("items", True), ("additionalProperties", False)):
        if isinstance(made.get(key), dict):
            made[key] = _plain(made[key], models, inside)
    if "prefixItems" in made:
        made["prefixItems"] = [_plain(item, models, True) for item in made["prefixItems"]]
    return _one_of(made, [_plain(form, models, entry) for form in node.get("anyOf", ())])


def _one_of(node: Node, forms: list[Node]) -> Node:
    """Return a node that has one of `forms`: a number or an integer is a number, and null is one type more."""
    if {"type": "number"} in forms:
        forms = [form for form in forms if form != {"type": "integer"}]
    null = {"type": "null"}
    others = [form for form in forms if form != null]
    if len(others) != 1:
        return node | ({"anyOf": forms} if forms else {})
    (one,) = others
    if null in forms:
        one = one | ({"enum": [*one["enum"], None]} if "enum" in one else {}) | {"type": [one["type"], "null"]}
    return one | node
