"""Reading YAML of any content into plain values: mappings with text as keys, lists, text, numbers, booleans, null.

A recipe is written by hand or by a program, and may come from somebody else. So everything that YAML can say and a
recipe cannot mean is refused here, in one sentence that names the place: dates, binary data, sets, a key that stands
twice, aliases that loop or multiply, numbers and nesting without bounds, characters that no text holds.
"""

import math
import re
from typing import Any

import yaml

from persyn_hf.errors import RecipeError


LONGEST = 128 * 1024  # characters of one file; PyYAML takes about a second for it
MANY = 20_000  # values of one file, those behind an alias counted wherever it stands
DEEP = 40  # levels of nesting
LARGEST = 2**63 - 1


class _Loader(yaml.SafeLoader):
    """YAML as PyYAML reads it (1.1), but for numbers and dates, which are those of YAML 1.2.

    1e-5 is a number, as in JSON; 030 is thirty and not twenty-four; 1:10 and a date (2024-11-25) are text.
    """


INT, FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, regex) for tag, regex in resolvers if tag not in (INT, FLOAT, "tag:yaml.org,2002:timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _regex in (
    (INT, r"[-+]?(?:[0-9][0-9_]*|0x[0-9a-fA-F_]+|0o[0-7_]+)\Z"),
    (
        FLOAT,
        r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?\Z|[-+]?\.(?:inf|Inf|INF)\Z|\.(?:nan|NaN|NAN)\Z",
    ),
):
    _Loader.add_implicit_resolver(_tag, re.compile(_regex), list("-+.0123456789"))


def _whole_number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node).replace("_", "").lower()
    sign, digits = (text[0], text[1:]) if text[:1] in ("-", "+") else ("", text)
    base = {"0x": 16, "0o": 8}.get(digits[:2], 10)
    return int(sign + (digits if base == 10 else digits[2:]), base)


_Loader.add_constructor(INT, _whole_number)


class _Dumper(yaml.SafeDumper):
    """Puts quotes around all text that YAML 1.1 or the loader above takes for something else."""

    def choose_scalar_style(self) -> str:
        """Choose double quotes where a text breaks its line: within single ones a break is read back as a space."""
        style = str(super().choose_scalar_style())  # it also finds out what the text holds
        return '"' if self.analysis is not None and self.analysis.multiline else style


_Dumper.yaml_implicit_resolvers = {
    first: [*yaml.SafeDumper.yaml_implicit_resolvers.get(first, []), *resolvers]
    for first, resolvers in (yaml.SafeDumper.yaml_implicit_resolvers | _Loader.yaml_implicit_resolvers).items()
}


def flow(value: Any) -> str:
    """Return a value as YAML on one line, which `read_yaml` reads as it was."""
    dumped: str = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=True, sort_keys=False, width=10**9, allow_unicode=True
    )
    return dumped.removesuffix("\n...\n").rstrip("\n")


def read_yaml(text: str, where: str) -> Any:
    """Return the value that a YAML text holds, in plain types.

    Args:
        text: the YAML.
        where: what it is, for messages: "the recipe my.yaml".

    Raises:
        RecipeError: it is no YAML, or says what a recipe cannot mean.
    """
    if len(text) > LONGEST:
        raise RecipeError(f"{where} has {len(text):,} characters, at most {LONGEST:,} are read; is it a recipe?")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is not None:
            _check_nodes(node, where)
        value = None if node is None else loader.construct_document(node)
    except RecipeError:
        raise
    except RecursionError:
        raise RecipeError(f"{where} cannot be read: it is nested too deep; at most {DEEP} levels are read") from None
    except Exception as error:  # PyYAML lets through whatever int(), date() and others raise
        reason = " ".join(str(error).replace('in "<unicode string>", ', "").split())
        raise RecipeError(f"{where} cannot be read: {reason[:300] or type(error).__name__}") from None
    return _plain(value, where, "")


def _check_nodes(root: yaml.Node, where: str) -> None:
    """Refuse what multiplies, loops or stands twice, before anything is made of it."""
    sizes: dict[int, int] = {}
    above: set[int] = set()

    def count(node: yaml.Node) -> int:
        if id(node) in above:
            raise RecipeError(
                f"{where}: an alias in line {node.start_mark.line + 1} is a part of itself; leave it out"
            )
        if id(node) in sizes:
            return sizes[id(node)]
        if len(above) >= DEEP:
            raise RecipeError(f"{where} is nested too deep: at most {DEEP} levels are read, see line {_line(node)}")
        above.add(id(node))
        if isinstance(node, yaml.MappingNode):
            _check_keys(node, where)
        inner = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        total = 1 + (sum(map(count, inner)) if isinstance(node, yaml.CollectionNode) else 0)
        if total > MANY:
            raise RecipeError(
                f"{where} holds more than {MANY:,} values, aliases counted wherever they stand; see line {_line(node)}"
            )
        above.discard(id(node))
        sizes[id(node)] = total
        return total

    count(root)


def _check_keys(node: yaml.MappingNode, where: str) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        name = key.value if isinstance(key, yaml.ScalarNode) else ""
        if name in seen and name != "<<":
            raise RecipeError(f"{where}: the key `{name[:60]}` stands twice, again in line {_line(key)}; keep one")
        seen.add(name)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _plain(value: Any, where: str, key: str) -> Any:
    """Return a copy in plain types; `key` is the dotted place of the value."""
    place = f"{where}: `{key}`" if key else where
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        if any(sign == "\0" or "\ud800" <= sign <= "\udfff" for sign in value):
            raise RecipeError(
                f"{place} holds a null character or half a surrogate pair, which is no text; write it anew"
            )
        return value
    if isinstance(value, int) and abs(value) > LARGEST:
        raise RecipeError(
            f"{place} is a number of {value.bit_length()} bits, at most 63 are read; write a smaller one"
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise RecipeError(f"{place} is {value}, a finite number is needed; leave the key out for no limit")
    if isinstance(value, int | float):
        return value
    if isinstance(value, list):
        return [
            _plain(item, where, f"{key}.{place_in}" if key else str(place_in)) for place_in, item in enumerate(value)
        ]
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, str):
                raise RecipeError(f"{place}: the key {name!r:.60} is no text; put it in quotes")
        return {
            _plain(name, where, f"{key}.?" if key else "?"): _plain(item, where, f"{key}.{name}" if key else name)
            for name, item in value.items()
        }
    kind = type(value).__name__
    raise RecipeError(f"{place} is a YAML {kind}, a recipe holds text, numbers, lists and mappings; put it in quotes")
