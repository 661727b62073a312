"""The view of the prompts that pass a filter."""

from typing import Any

from persyn_hf.space.explorer import Filter, find
from persyn_hf.space.scene import Scene


def show(scene: Scene) -> str:
    """Return one page of the list as HTML."""
    page = find(scene.database, scene.assignment, filter_of(scene), int(scene.state["page"]))
    return scene.render("prompts", page=page, opened=scene.state["prompt"])


def filter_of(scene: Scene) -> Filter:
    """Return the filter that the state of the page describes."""
    state = scene.state
    names = (
        *("teacher", "best", "topic", "origin", "source", "margin", "lead", "agreement", "tied", "correct"),
        *("shortest", "longest", "differs", "there", "sort"),
    )
    given: dict[str, Any] = {name: state[name] for name in names}
    return Filter(text=state["q"], split=scene.split, **given)
