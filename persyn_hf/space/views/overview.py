"""The first view: whose data it is, the verdicts, and who gets how many prompts."""

from typing import Any

from persyn_hf.space import pages
from persyn_hf.space.allocation import Group, allocate, summary
from persyn_hf.space.collection import asks_several
from persyn_hf.space.decisions import decisions
from persyn_hf.space.explorer import Filter, find
from persyn_hf.space.scene import SOON, Scene
from persyn_hf.space.verdicts import verdicts
from persyn_hf.store.stored import Stored


MANY = 8  # teachers of which a stack of bars can be read
SHOWN = 12  # of more teachers, those that get the most have a bar of their own
FILTER_OF = {"split": "split", "topic": "topic", "origin": "origin", "source": "source"}  # breakdown -> its filter


def show(scene: Scene) -> str:
    """Return the overview as HTML."""
    shown, state = [scene.assignment, *scene.others], scene.state
    allocation = allocate(scene.database, shown, "all", scene.split)
    if not allocation.groups or not allocation.groups[0].counts[0].sum():
        here = ", ".join(f"{split} ({count:,})" for split, count in _splits(scene.assignment).items())
        return pages.message(
            "No prompt is in this split", f"{scene.assignment.ref} holds no {scene.split} prompts; it holds {here}."
        )
    everything = allocation.groups[0]
    counts = dict(zip(allocation.names, everything.counts[0].tolist(), strict=True))
    return scene.render(
        "overview",
        name=scene.names[scene.assignment.ref],
        sentence=sentence(scene, sum(counts.values())),  # answers; a prompt may go to several teachers
        verdicts=verdicts(scene, {name: counts[name] for name in scene.pool}),
        rows=[
            {
                "ref": item.ref,
                "name": scene.names[item.ref],
                "prompts": int(everything.counts[place].sum()),
                "shares": dict(zip(allocation.names, everything.shares[place].tolist(), strict=True)),
                "ties": ties(scene, item),
                "addresses": {teacher: _listed(scene, item, teacher) for teacher in allocation.names},
                "effective": effective,
                "differs": differing(scene, item),
            }
            for place, (item, (effective, _)) in enumerate(zip(shown, summary(everything.shares), strict=True))
        ],
        many=len(allocation.names) > MANY,
        ranked=_ranked(dict(zip(allocation.names, everything.shares[0].tolist(), strict=True))),
        shown=SHOWN,
        broken_down=_broken_down(scene),
        filter_of=FILTER_OF,
        can_compare=[ref for ref in scene.names if ref != scene.assignment.ref],
        save=state.only(view="allocation", by=state["by"]),
    )


def _ranked(shares: dict[str, float]) -> list[dict[str, Any]]:
    """Return the teachers with their shares, the largest first."""
    return [{"teacher": name, "share": share} for name, share in sorted(shares.items(), key=lambda item: -item[1])]


def sentence(scene: Scene, rows: int) -> dict[str, Any]:
    """Return what the first sentence says: student, prompts and their origin, teachers, and how they are chosen."""
    manifest = scene.assignment.manifest
    source = scene.shelf.input(scene.assignment, "prompts")
    settings = source.manifest.settings if source is not None else {}
    rewards = scene.shelf.rewards(scene.assignment)
    once = not asks_several(scene.assignment)
    return {
        "student": (manifest.student or {}).get("name"),
        "prompts": rows if once else _prompts(scene),
        "answers": None if once else rows,
        "split": scene.split,
        "data": str(settings.get("dataset") or settings.get("path") or "").partition("#")[0],
        "recipe": manifest.recipe,
        "teachers": len(scene.pool),
        "alpha": _alpha(scene, rewards),
    }


def _prompts(scene: Scene) -> int:
    return find(scene.database, scene.assignment, Filter(split=scene.split), size=1).prompts


def _alpha(scene: Scene, rewards: list[Stored]) -> float | None:
    """Return the weight of learnability that the assignment was chosen by, None where it plays no part."""
    settings = scene.assignment.manifest.settings
    if settings.get("kind") not in ("persyn", "oracle"):
        return None
    own = settings.get("alpha")
    return own if own is not None else rewards[0].manifest.settings.get("alpha") if rewards else None


def _listed(scene: Scene, item: Stored, teacher: str) -> str:
    """Return the address of the prompts that an assignment sends to a teacher."""
    return scene.state.prompts(assignment=item.ref, teacher=teacher)


def ties(scene: Scene, item: Stored) -> dict[str, float]:
    """Return, per teacher, the share of all prompts that it answers while another teacher is exactly as good.

    Empty where the rewards are too many to be read for a first view.
    """
    if not scene.reads_soon or not scene.shelf.rewards(item):
        return {}
    table = decisions(scene.database, item, ["rewards"])
    rows = scene.database.rows(
        f"SELECT teacher, count(*) FILTER (regret = 0 AND ties > 1) / sum(count(*)) OVER () FROM {table} "
        "WHERE $1 IN ('', split) GROUP BY teacher",
        [scene.split],
    )
    return {teacher: share for teacher, share in rows if share}


def differing(scene: Scene, item: Stored) -> int | None:
    """Return how many prompts go to another teacher than under another assignment; None: not to be counted."""
    if item.ref == scene.assignment.ref or sum(_splits(item).values()) > SOON:
        return None
    if not scene.shelf.same_prompts(item, scene.assignment):
        return None
    return find(scene.database, scene.assignment, Filter(split=scene.split, differs=item.ref), size=1).total


def _broken_down(scene: Scene) -> dict[str, Any] | None:
    """Return the groups of prompts by teacher: what the state asks for, else by topic where that is soon done."""
    by = scene.state["by"]
    if by == "all":
        if not scene.reads_soon:
            return None
        by = "topic"
    found = allocate(scene.database, [scene.assignment], by, scene.split)
    if scene.state["by"] == "all" and len(found.groups) < 2:
        return None
    groups = [_row(group, found.names) for group in found.groups]
    most = max((cell["share"] for group in groups for cell in group["cells"]), default=0) or 1
    return {"by": by, "groups": groups, "most": most, "left_out": found.left_out}


def _row(group: Group, names: list[str]) -> dict[str, Any]:
    """Return one row of the heat map: its name, how many prompts, and the count and share per teacher."""
    cells = zip(names, group.counts[0].tolist(), group.shares[0].tolist(), strict=True)
    return {
        "name": group.name,
        "prompts": int(group.counts[0].sum()),
        "cells": [{"teacher": name, "count": count, "share": share} for name, count, share in cells],
    }


def _splits(item: Stored) -> dict[str, int]:
    """Return the rows of an assignment per split."""
    found: dict[str, int] = {}
    for rows in item.manifest.rows.values():
        for split, count in rows.items():
            found[split] = found.get(split, 0) + count
    return found
