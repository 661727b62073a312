"""The files that a page offers: the allocation as CSV and PNG, the listed prompts as CSV and JSON lines."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from persyn_hf.errors import InputError
from persyn_hf.space.allocation import Allocation, Group, allocate, harmless
from persyn_hf.space.explorer import FIELDS, every
from persyn_hf.space.scene import Scene
from persyn_hf.space.views.prompts import filter_of


BY_IN_WORDS = {"topic": "topic", "split": "split", "origin": "source of the prompt", "source": "who decided"}
BLOCK = 5_000  # prompts that are written together


@dataclass(frozen=True, kw_only=True)
class File:
    """A file that is made as it is sent."""

    name: str
    media: str
    content: Iterator[bytes]


def make(name: str, scene: Scene) -> File:
    """Return the file of a name for what a page shows.

    Raises:
        InputError: there is no such file, or nothing to put into it.
    """
    if name not in FILES:
        raise InputError(f"there is no file `{name[:40]}`, there are {', '.join(FILES)}")
    media, contents = FILES[name]
    stem, _, ending = name.partition(".")
    content = contents(scene)
    return File(name=f"{_named(scene, stem)}.{ending}", media=media, content=content)


def _named(scene: Scene, stem: str) -> str:
    """Return the name of a file without its ending: what it holds, whose, of which split, broken down by what."""
    name, state = scene.names[scene.assignment.ref], scene.state
    parts = [stem, name.student, name.label, scene.split or "all", *([state["by"]] if state["by"] != "all" else [])]
    return "-".join("".join(sign if sign.isascii() and sign.isalnum() else "_" for sign in part) for part in parts)


def _allocated(scene: Scene) -> Allocation:
    return allocate(scene.database, [scene.assignment, *scene.others], scene.state["by"], scene.split)


def _allocation_csv(scene: Scene) -> Iterator[bytes]:
    """Return an allocation as CSV, a row per group, assignment and teacher."""
    found = _allocated(scene)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["group", "assignment", "teacher", "family", "params_b", "long_cot", "prompts", "share"])
    for group in found.groups:
        for ref, counts, shares in zip(found.refs, group.counts.tolist(), group.shares.tolist(), strict=True):
            for teacher, number, share in zip(found.teachers, counts, shares, strict=True):
                about = [teacher.name, teacher.family, teacher.params_b, teacher.long_cot]
                writer.writerow([harmless(group.name), ref, *map(harmless, about), number, f"{share:.6f}"])
    yield text.getvalue().encode()


def _allocation_png(scene: Scene) -> Iterator[bytes]:
    """Return the bars that are seen, one panel per group, under a title that says what they are."""
    from matplotlib import rc_context

    from persyn_hf.report.figures import draw_allocation

    found, name = _allocated(scene), scene.names[scene.assignment.ref]
    if not found.groups:
        raise InputError("no prompt is in this split; choose another")
    labels = _labels(scene, found)
    panels = {
        "" if group.name == "all" and len(found.groups) == 1 else group.name: _shares(group, found, labels)
        for group in found.groups
    }
    split, by = f"the {scene.split}'s prompts" if scene.split else "all prompts", scene.state["by"]
    title = f"Who teaches {name.student}: shares of {split}{f', by {BY_IN_WORDS[by]}' if by != 'all' else ''}"
    stream = io.BytesIO()
    with rc_context({"text.parse_math": False}):  # a topic may hold a dollar sign
        figure = draw_allocation(found.teachers, panels, title=title, label=f"share of {split}")
        figure.savefig(stream, format="png", dpi=150, metadata={"Title": title})
    return iter([stream.getvalue()])


def thumbnail(scene: Scene) -> bytes:
    """Return the picture that a link shows, as PNG.

    Raises:
        InputError: no prompt is in the split.
    """
    from persyn_hf.space.thumbnail import draw

    found, name = allocate(scene.database, [scene.assignment], "all", scene.split), scene.names[scene.assignment.ref]
    if not found.groups:
        raise InputError("no prompt is in this split; choose another")
    (counts,), (shares,) = found.groups[0].counts.tolist(), found.groups[0].shares.tolist()
    prompts = f"{sum(counts):,} prompts{f' of the {scene.split}' if scene.split else ''}"
    about = f"{name.label}: {prompts}, {len(found.names)} teacher{'s' if len(found.names) > 1 else ''}"
    return draw(name.student, about, found.teachers, dict(zip(found.names, shares, strict=True)))


def _labels(scene: Scene, found: Allocation) -> list[str]:
    """Return what the bars are called, with the student where it is not the same for all."""
    names = [scene.names[ref] for ref in found.refs]
    same = len({name.student for name in names}) == 1
    return [name.label if same else f"{name.label} ({name.student})" for name in names]


def _shares(group: Group, found: Allocation, labels: list[str]) -> dict[str, dict[str, float]]:
    rows = zip(labels, group.counts.tolist(), group.shares.tolist(), strict=True)
    return {label: dict(zip(found.names, shares, strict=True)) for label, counts, shares in rows if sum(counts)}


def _rows(scene: Scene) -> Iterator[list[dict[str, Any]]]:
    return every(scene.database, scene.assignment, filter_of(scene), BLOCK)


def _prompts_csv(scene: Scene) -> Iterator[bytes]:
    """Yield the prompts that pass the filter as CSV."""
    columns = ["prompt_id", *(name for name in FIELDS if name not in ("number", "prompt_id")), "text"]
    for place, rows in enumerate(_rows(scene)):
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if not place:
            writer.writerow(columns)
        writer.writerows([harmless(row[column]) for column in columns] for row in rows)
        yield text.getvalue().encode()


def _prompts_jsonl(scene: Scene) -> Iterator[bytes]:
    """Yield the prompts that pass the filter as JSON lines."""
    for rows in _rows(scene):
        lines = [{name: value for name, value in row.items() if name != "number"} for row in rows]
        yield "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()


FILES: dict[str, tuple[str, Callable[[Scene], Iterator[bytes]]]] = {
    "allocation.csv": ("text/csv", _allocation_csv),
    "allocation.png": ("image/png", _allocation_png),
    "prompts.csv": ("text/csv", _prompts_csv),
    "prompts.jsonl": ("application/x-ndjson", _prompts_jsonl),
}
