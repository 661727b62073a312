"""What differs between two artifacts of one kind: how they were made, what was counted and measured, and their rows.

Rows are matched by their key and compared column by column: of each row no more than a few hashes of 8 bytes are in
memory. The hashes are not made to withstand an attacker; what has been tampered with is found by `verify`.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from persyn_hf.errors import StoreError
from persyn_hf.formats import UNKNOWN
from persyn_hf.schemas import SCHEMAS, Schema
from persyn_hf.store.manifest import Manifest, is_card
from persyn_hf.store.row_hashes import column_hashes, row_keys, shared, sums_by, value_counts
from persyn_hf.store.stored import Stored


MANY = 40  # lines of one table
WIDTH = 48  # characters of one cell
SHORT = 12  # digits of a digest that are shown

ALLOCATED = ("assignments", "sft")  # kinds whose rows say which teacher a prompt went to
# Measurements that stand elsewhere, are yardsticks, or curves.
ASIDE = ("allocation", "alpha", "reliability", "global_best", "oracle", "random")


@dataclass(frozen=True, kw_only=True)
class Section:
    """One table: what (a dotted key, a teacher, a column), and what the old and the new artifact say."""

    title: str
    rows: tuple[tuple[str, str, str], ...]
    note: str = ""


def compare(old: Stored, new: Stored) -> list[Section]:
    """The tables in which the two differ; none where nothing does. Rows are read where they may differ.

    Raises:
        StoreError: they are of different kinds.
    """
    if old.kind != new.kind:
        raise StoreError(
            f"{old.ref} is of kind `{old.kind}` and {new.ref} of kind `{new.kind}`; only artifacts of one kind can be "
            "compared"
        )
    sections = list(_manifests(old.manifest, new.manifest))
    files = _data_files(old.manifest), _data_files(new.manifest)
    if files[0] != files[1]:
        schema = SCHEMAS[old.kind]
        sections += _rows(old, new, schema) if isinstance(schema, Schema) else [_changes("files", *files)]
    return [section for section in sections if section.rows or section.note]


def _manifests(old: Manifest, new: Manifest) -> Iterator[Section]:
    parts: tuple[tuple[str, Any, Any], ...] = (
        ("made by", _made_by(old), _made_by(new)),
        ("settings", old.settings, new.settings),
        ("teachers", _by_name(old.teachers), _by_name(new.teachers)),
        ("student", old.student or {}, new.student or {}),
        ("inputs", _inputs(old), _inputs(new)),
        ("packages", old.packages, new.packages),
        ("counts", old.counts, new.counts),
        ("measurements", _measured(old.metrics), _measured(new.metrics)),
    )
    for title, before, after in parts:
        yield _changes(title, before, after)


def _made_by(manifest: Manifest) -> dict[str, Any]:
    names = ("stage", "recipe", "seed", "code_version", "schema_version")
    return {name: getattr(manifest, name) for name in names}


def _by_name(teachers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    order = {"order": ", ".join(str(teacher["name"]) for teacher in teachers)} if teachers else {}
    return order | {teacher["name"]: {key: teacher[key] for key in teacher if key != "name"} for teacher in teachers}


def _inputs(manifest: Manifest) -> dict[str, str]:
    return {keyword: f"{item.ref} {item.digest[:SHORT]}" for keyword, item in manifest.inputs.items()}


def _measured(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Measurements worth a line: no tables of their own, no yardsticks, an interval with its value."""
    found: dict[str, Any] = {}
    for key, value in metrics.items():
        if isinstance(value, Mapping) and {"value", "low", "high"} <= value.keys():
            interval = "" if value["low"] is None else f" ({_text(value['low'])} to {_text(value['high'])})"
            found[key] = f"{_text(value['value'])}{interval}"
        elif isinstance(value, Mapping) and key not in ASIDE:
            found[key] = _measured(value)
        elif key not in ASIDE and not isinstance(value, list):
            found[key] = value
    return found


def _changes(title: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Section:
    """What differs between two nested dicts, keys dotted, in the order of the new one."""
    before, after = dict(_dotted(old)), dict(_dotted(new))
    keys = list(dict.fromkeys([*after, *before]))
    rows = [
        (key, *_texts(before.get(key, UNKNOWN), after.get(key, UNKNOWN)))
        for key in keys
        if key not in before or key not in after or before[key] != after[key]
    ]
    note = f"and {len(rows) - MANY} more" if len(rows) > MANY else ""
    return Section(title=title, rows=tuple(rows[:MANY]), note=note)


def _dotted(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _text(value: Any) -> str:
    """On one line."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "null"}[value]
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else " ".join(str(value).split())


def _texts(old: Any, new: Any) -> tuple[str, str]:
    """Both, in full digits where fewer are the same; long texts from shortly before they begin to differ."""
    texts = (_text(old), _text(new)) if _text(old) != _text(new) else (repr(old), repr(new))
    long = max(map(len, texts)) > WIDTH
    start = max(len(os.path.commonprefix(texts)) - WIDTH // 2, 0) if long else 0
    old_cut, new_cut = (
        ("..." if start else "") + text[start : start + WIDTH] + ("..." if len(text) > start + WIDTH else "")
        for text in texts
    )
    return old_cut, new_cut


def _data_files(manifest: Manifest) -> dict[str, str]:
    return {path: digest[:SHORT] for path, digest in manifest.files.items() if not is_card(path)}


def _rows(old: Stored, new: Stored, schema: Schema) -> Iterator[Section]:
    """Rows that came, went or changed, by their key; then where the prompts went."""
    import numpy as np

    keys = [row_keys(item, schema.key) for item in (old, new)]
    at_old, at_new = shared(keys[0], keys[1])
    changed, any_changed = [], np.zeros(len(at_old), dtype=bool)
    for column in schema.names:
        if column not in schema.key:
            differs = column_hashes(old, column)[at_old] != column_hashes(new, column)[at_new]
            any_changed |= differs
            if differs.any():
                changed.append((f"changed in `{column}`", "", f"{int(differs.sum()):,}"))
    num_old, num_new, both = len(keys[0]), len(keys[1]), len(at_old)
    rows = [("in all", f"{num_old:,}", f"{num_new:,}")] if num_old != num_new else []
    counted = {"removed": num_old - both, "added": num_new - both, "changed": int(any_changed.sum())}
    rows += [(name, "", f"{count:,}") for name, count in counted.items() if count]
    same = "the rows are the same; they stand in another order or in other files"
    matched = f"{both:,} rows are in both, matched by {', '.join(schema.key)}"
    yield Section(title="rows", rows=(*rows, *changed), note=matched if rows else same)
    if schema.kind in ALLOCATED:
        yield _allocation(old, new)


def _allocation(old: Stored, new: Stored) -> Section:
    counts = [value_counts(item, "teacher") for item in (old, new)]
    shares = [{name: count / total.total() for name, count in total.most_common()} for total in counts]
    rows = [
        (name, _share(shares[0], name), _share(shares[1], name))
        for name in dict.fromkeys([*shares[1], *shares[0]])
        if shares[0].get(name) != shares[1].get(name)
    ]
    went = [sums_by(column_hashes(item, "prompt_id"), column_hashes(item, "teacher")) for item in (old, new)]
    at_old, at_new = shared(went[0][0], went[1][0])
    moved = int((went[0][1][at_old] != went[1][1][at_new]).sum())
    note = f"{moved:,} of the {len(at_old):,} prompts in both ({moved / max(len(at_old), 1):.1%}) have another teacher"
    return Section(title="allocation (share of the rows)", rows=tuple(rows), note=note if rows or moved else "")


def _share(shares: Mapping[str, float], teacher: str) -> str:
    return f"{shares[teacher]:.1%}" if teacher in shares else UNKNOWN
