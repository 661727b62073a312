"""List the settings of a recipe from its JSON Schema, each with what one must know of it in words."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from persyn_hf.recipe.strict import BOUNDS, FAR
from persyn_hf.reference.anew import runs_anew
from persyn_hf.reference.schema import WORDS, Node


TYPES = {"integer": "whole number", "number": "number", "string": "text", "object": "mapping"}
NULL = {"type": "null"}

# Settings that take the keys of another section, which has the reference of them.
SAME_KEYS = {
    "teachers.server": "generate.server",
    "teachers.vllm": "generate.vllm",
    "train_router.candidates": "train_router",
}

IT_DEPENDS = {
    "inputs": "what reads the artifact",
    "teachers.server": "as the keys of `generate.server`",
    "teachers.vllm": "as the keys of `generate.vllm`",
}

# Settings and sections that run something anew in some recipes only, and in which.
DROPPED = "with `decontaminate: drop`: "
WHERE = {
    "teachers.price": "where a budget is in money: ",
    "prompts.decontaminate_against": DROPPED,
    "prompts.decontaminate_share": DROPPED,
}

# What a phase of the plan is called here: its stage, and where that runs more than once, on which prompts.
PHASES = {
    "label": "`assign` (calibration)",
    "assign_all": "`assign` (calibration)",
    "generate_all": "`generate` (calibration)",
    "assign": "`assign` (pool)",
    "generate": "`generate` (pool)",
    "score_chosen": "`score` (pool)",
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One key of a recipe, or a section that holds more of them.

    path: dotted, as in `score.alpha`; entries of lists are not numbered: `teachers.params_b`.
    """

    path: str
    node: Node

    @property
    def is_section(self) -> bool:
        """Say whether it holds other settings."""
        return self.path not in SAME_KEYS and _keys(self.node) is not None

    @property
    def section(self) -> str:
        """Return the path of the section that holds it; empty for the recipe itself."""
        return self.path.rpartition(".")[0]

    @property
    def meaning(self) -> str:
        """Return its description."""
        return str(self.node["description"])

    @property
    def kind(self) -> str:
        """Return its type and its bounds: `number, at least 0 and at most 1, or null`."""
        return _kind(self.node) + (", or null" if _is_nullable(self.node) else "")

    @property
    def default(self) -> str:
        """Return its default as a recipe would have it; empty where the recipe must give a value."""
        if "default" not in self.node:
            return "{}" if self.node.get("type") == "object" else ""
        default = self.node["default"]
        return default if default and isinstance(default, str) else json.dumps(default, ensure_ascii=False)

    @property
    def anew(self) -> str:
        """Say which steps run anew when it is changed: nothing, or a stage and what follows from it."""
        first, *later = self._phases() or ["nothing"]
        return self.it_depends or self._where + (f"{first} and what follows" if later else first)

    @property
    def anew_in_full(self) -> str:
        """Say the same, with the names of all steps."""
        return self.it_depends or self._where + ", ".join(self._phases()) or "nothing"

    @property
    def it_depends(self) -> str:
        """Say what runs anew where that depends on what is in the setting; empty where it does not."""
        return IT_DEPENDS.get(self.path, "")

    @property
    def _where(self) -> str:
        return WHERE.get(self.path) or WHERE.get(self.section, "")

    def _phases(self) -> list[str]:
        return list(dict.fromkeys(phase_name(phase) for phase in runs_anew(self.path)))


def list_settings(schema: Node) -> dict[str, Setting]:
    """Return the settings and sections of a recipe by path, in the order of the schema."""
    return {setting.path: setting for setting in _walk(schema, "")}


def phase_name(phase: str) -> str:
    """Return what a phase of the plan is called: "`score`", "`assign` (pool)"."""
    return PHASES.get(phase, f"`{phase}`")


def _walk(node: Node, prefix: str) -> Iterator[Setting]:
    for key, inside in node["properties"].items():
        setting = Setting(path=f"{prefix}{key}", node=inside)
        yield setting
        keys = _keys(inside)
        if setting.is_section and keys is not None:
            yield from _walk(keys, f"{setting.path}.")


def _keys(node: Node) -> Node | None:
    """Return the node that has the keys of a section, or of the entries of a list; None where there are none."""
    entry = node.get("items", node)
    return next((form for form in entry.get("anyOf", [entry]) if "properties" in form), None)


def _is_nullable(node: Node) -> bool:
    return isinstance(node.get("type"), list) or NULL in node.get("anyOf", ())


def _kind(node: Node, many: bool = False) -> str:
    """Say the type of a node, of `many` of them in the plural: "list of whole numbers, at least 0"."""
    plural = "s" if many else ""
    if "anyOf" in node:
        return " or ".join(_kind(form, many) for form in node["anyOf"] if form != NULL)
    if "const" in node or "enum" in node:
        words = [word for word in node.get("enum", [node.get("const")]) if word is not None]
        return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]
    if "prefixItems" in node:
        return f"pair{plural} of {_kind(node['prefixItems'][0], True)}"
    kind = node["type"][0] if _is_nullable(node) else node["type"]
    if kind == "array":
        return f"list{plural} of {_kind(node['items'], True)}"
    if kind == "boolean":
        return "true or false"
    values = node.get("additionalProperties")
    if kind == "object" and isinstance(values, dict):
        return f"mapping{plural} of names to {_kind(values, True)}{' or null' if _is_nullable(values) else ''}"
    return f"{TYPES[kind]}{plural}{_bounds(node)}"


def _bounds(node: Node) -> str:
    """Say the bounds of a node, as the errors of `strict` do; those that only keep numbers in hand are left out."""
    limits = {short: node[long] for short, long in WORDS.items() if abs(node.get(long, FAR)) < FAR}
    said = " and ".join(f"{word} {limits[key]:,}" for key, word in BOUNDS.items() if key in limits)
    return f", {said}" if said else ""
