"""Compare two artifacts of one kind: how they were made, what was counted and measured, and their rows.

Rows are matched by the key of their schema and compared column by column. A small example, two `assignments` with the
key (prompt_id, teacher):

- The old one holds (p1, A) and (p2, A), the new one (p2, A) with other scores and (p3, B).
- The key (p2, A) is in both, so 1 row was removed, 1 was added, 1 has changed, and the change is in `scores`.
- A prompt that goes to another teacher is a row removed and a row added, because the teacher is part of the key. So
  the allocation is compared once more by prompt: of the one prompt in both, p2, none has another teacher. The shares
  of the rows went from 100 % for A to 50 % each.

Of each row no more than a few hashes of 8 bytes are in memory (`row_hashes`). The hashes do not withstand an attacker:
what has been tampered with is found by `verify`.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from persyn_hf.contract import Schema
from persyn_hf.errors import StoreError
from persyn_hf.formats import UNKNOWN
from persyn_hf.schemas import SCHEMAS
from persyn_hf.store.manifest import Manifest, is_card
from persyn_hf.store.row_hashes import column_hashes, row_keys, shared, sums_by, value_counts
from persyn_hf.store.stored import Stored
from persyn_hf.text import one_line


MANY = 40  # lines of one table
WIDTH = 48  # characters of one cell
SHORT = 12  # digits of a digest that are shown

ALLOCATED = ("assignments", "sft")  # kinds whose rows say which teacher a prompt went to
# Measurements that stand elsewhere, are yardsticks, or curves.
ASIDE = ("allocation", "alpha", "reliability", "global_best", "oracle", "random")


@dataclass(frozen=True, kw_only=True)
class Section:
    """One table of differences. A row: what differs (a dotted key, a teacher, a column), the old and the new value."""

    title: str
    rows: tuple[tuple[str, str, str], ...]
    note: str = ""


def compare(old: Stored, new: Stored) -> list[Section]:
    """Return the tables in which two artifacts differ, none where nothing does. Rows are read only where files differ.

    Raises:
        StoreError: they are of different kinds.
        DamagedArtifact: a data file cannot be read.
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
    """Yield a table for each part of the manifests: settings, teachers, inputs, counts, measurements and others."""
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
    """Return the fields of a manifest that say by which stage, recipe and code the artifact was made."""
    names = ("stage", "recipe", "seed", "code_version", "schema_version")
    return {name: getattr(manifest, name) for name in names}


def _by_name(teachers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the teachers by name, and their order as one more entry."""
    order = {"order": ", ".join(str(teacher["name"]) for teacher in teachers)} if teachers else {}
    return order | {teacher["name"]: {key: teacher[key] for key in teacher if key != "name"} for teacher in teachers}


def _inputs(manifest: Manifest) -> dict[str, str]:
    """Return the reference and the beginning of the digest of every input, by its keyword."""
    return {keyword: f"{item.ref} {item.digest[:SHORT]}" for keyword, item in manifest.inputs.items()}


def _measured(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the measurements worth a line: no tables of their own, no yardsticks, an interval with its value."""
    measurements: dict[str, Any] = {}
    for key, value in metrics.items():
        if isinstance(value, Mapping) and {"value", "low", "high"} <= value.keys():
            interval = "" if value["low"] is None else f" ({_text(value['low'])} to {_text(value['high'])})"
            measurements[key] = f"{_text(value['value'])}{interval}"
        elif isinstance(value, Mapping) and key not in ASIDE:
            measurements[key] = _measured(value)
        elif key not in ASIDE and not isinstance(value, list):
            measurements[key] = value
    return measurements


def _changes(title: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Section:
    """Return the table of what differs between two nested dicts, keys dotted, in the order of the new one."""
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
    """Yield the values of a nested dict with their keys dotted: `{"a": {"b": 1}}` gives ("a.b", 1)."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _text(value: Any) -> str:
    """Return a value as text on one line."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "null"}[value]
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else one_line(value)


def _texts(old: Any, new: Any) -> tuple[str, str]:
    """Return two values as cells: in full digits where fewer are the same, long ones cut to where they differ."""
    texts = (_text(old), _text(new)) if _text(old) != _text(new) else (repr(old), repr(new))
    long = max(map(len, texts)) > WIDTH
    start = max(len(os.path.commonprefix(texts)) - WIDTH // 2, 0) if long else 0
    old_cut, new_cut = (
        ("..." if start else "") + text[start : start + WIDTH] + ("..." if len(text) > start + WIDTH else "")
        for text in texts
    )
    return old_cut, new_cut


def _data_files(manifest: Manifest) -> dict[str, str]:
    """Return the beginning of the digest of every data file, by its path."""
    return {path: digest[:SHORT] for path, digest in manifest.files.items() if not is_card(path)}


def _rows(old: Stored, new: Stored, schema: Schema) -> Iterator[Section]:
    """Yield the tables of rows that were removed, added or changed, and of where the prompts went."""
    import numpy as np

    keys = [row_keys(item, schema.key) for item in (old, new)]
    at_old, at_new = shared(keys[0], keys[1])
    changed, any_changed = [], np.zeros(len(at_old), dtype=bool)
    for column in (*schema.names, *(column.name for column in schema.optional)):
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
    """Return the table of each teacher's share of the rows, and how many prompts have another teacher."""
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
    """Return a teacher's share as a percentage, `UNKNOWN` where it has no rows."""
    return f"{shares[teacher]:.1%}" if teacher in shares else UNKNOWN
