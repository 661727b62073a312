"""The view of the prompts that pass a filter."""

from dataclasses import dataclass
from typing import Any

from persyn_hf.space import among
from persyn_hf.space.collection import teachers_of
from persyn_hf.space.explorer import Filter, Page, choices, find
from persyn_hf.space.prompt import unit
from persyn_hf.space.scene import Scene
from persyn_hf.space.views.chips import FILTERS, called, chips


SIZE = 25  # prompts of a page
FORM: tuple[str, ...] = (
    "q",
    "teacher",
    "best",
    "topic",
    "origin",
    "source",
    "agreement",
    "tied",
    "correct",
    "lead",
    "margin",
)
FORM += ("shortest", "longest", "differs", "there", "sort")  # what the form asks for
ORDERS = {
    "place": "as in the data",
    "margin": "smallest lead first",
    "-margin": "largest lead first",
    "regret": "largest regret first",
    "-regret": "smallest regret first",
    "confidence": "least sure first",
    "-confidence": "most sure first",
    "tokens": "longest answer first",
    "-tokens": "shortest answer first",
    "-place": "the data backwards",
}
RISING = ("place", "margin", "confidence", "-regret", "-tokens")  # orders in which the values grow


@dataclass(frozen=True, kw_only=True)
class Head:
    """A column that the list may be sorted by: `sort` is what a click asks for, `now` how it is sorted."""

    words: str
    sort: str
    now: str  # ascending, descending or none


def show(scene: Scene) -> str:
    """Return one page of the list as HTML: of an opened prompt, the page that it is on."""
    page, state = listed(scene), scene.state
    there = teachers_of(scene.shelf.get(state["differs"])) if state["differs"] else []
    return scene.render(
        "prompts",
        page=page,
        note=among.note(scene),
        first=(page.number - 1) * page.size + 1,
        opened=state["prompt"],
        chips=chips(scene),
        clear=state.link({name: state.defaults[name] for name in FILTERS}),
        heads={key: head(state["sort"], words, key) for key, words in COLUMNS.items()},
        options=options(scene),
        pairs=lambda values: [(value, value) for value in values],
        compared=[(ref, called(scene, ref)) for ref in scene.names if ref != scene.assignment.ref],
        there=[teacher.name for teacher in there],
        handed_on=list(state.fields(*FORM, "page", "prompt", "pin")),
        save=state.link(prompt="", page=1),
        orders=ORDERS,
        unit=unit(scene.shelf, scene.assignment),
    )


COLUMNS = {"place": "prompt", "margin": "lead", "regret": "regret", "tokens": "tokens"}


def head(sort: str, words: str, key: str) -> Head:
    """Return the head of a column: a click sorts by it, a second one the other way round."""
    if sort.removeprefix("-") != key:
        return Head(words=words, sort=key, now="none")
    turned = key if sort.startswith("-") else f"-{key}"
    return Head(words=words, sort=turned, now="ascending" if sort in RISING else "descending")


def listed(scene: Scene) -> Page:
    """Return the page of the list that is shown, with the place of an opened prompt; it is looked for once."""
    if "page" not in scene.kept:
        state = scene.state
        number, prompt = int(state["page"]), state["prompt"]
        scene.kept["page"] = find(scene.database, scene.assignment, filter_of(scene), number, SIZE, prompt)
    found: Page = scene.kept["page"]
    return found


def options(scene: Scene) -> dict[str, list[str]]:
    """Return what a prompt can be chosen by, by the name of the filter: none where there is but one to choose."""
    prompts = scene.shelf.input(scene.assignment, "prompts")
    found = {
        "topic": choices(scene.database, prompts, "topic"),
        "origin": choices(scene.database, prompts, "source"),
        "source": choices(scene.database, scene.assignment, "source"),
    }
    return {name: values if len(values) > 1 or scene.state[name] else [] for name, values in found.items()}


def filter_of(scene: Scene) -> Filter:
    """Return the filter that the state of the page describes."""
    state = scene.state
    names = (
        *("teacher", "best", "topic", "origin", "source", "margin", "lead", "agreement", "tied", "correct"),
        *("shortest", "longest", "differs", "there", "sort"),
    )
    given: dict[str, Any] = {name: state[name] for name in names}
    given |= {"among": among.moved_prompts(scene), "within": among.part_of_map(scene)}
    return Filter(text=state["q"], split=scene.split, **given)
