"""The events of the page: the state of the controls goes in, what changes on the page comes out."""

import base64
import json
import sys
import traceback
from typing import Any, get_args

from persyn_hf.core.rewards import How
from persyn_hf.errors import InputError, PersynError, reason
from persyn_hf.space import pages, url_state, views, whatif
from persyn_hf.space.allocation import By, allocate, as_csv, splits
from persyn_hf.space.collection import Shelf, teachers_of
from persyn_hf.space.database import Database
from persyn_hf.space.explorer import Agreement, Correct, Filter, Sort, topics
from persyn_hf.space.url_state import DEFAULTS, VIEWS


ALL = "all"  # instead of the name of a split
CHOICES = {
    "by": get_args(By),
    "sort": get_args(Sort),
    "agreement": get_args(Agreement),
    "correct": get_args(Correct),
    "how": get_args(How),
}
BESIDE = 5  # assignments that are compared with the first one at the start


class Desk:
    """The answers to the events of one shelf. `values` are those of all controls, by the names of `DEFAULTS`."""

    def __init__(self, shelf: Shelf) -> None:
        """Choose what is shown first: a routed assignment, if there is one, next to some others, on the pool."""
        self.shelf = shelf
        self.database = Database(shelf)
        refs = [item.ref for item in shelf.assignments]
        routed = [item.ref for item in shelf.assignments if item.manifest.settings.get("kind") == "persyn"]
        first = (routed or refs)[0]
        others = [ref for ref in refs if ref != first]
        self.refs = refs
        self.defaults = DEFAULTS | {"assignment": first, "with": others[:BESIDE]}
        names = splits(self.database, shelf.assignments)
        self.splits = names
        self.defaults["split"] = "pool" if "pool" in names else ALL
        self._measured: dict[tuple[str, str], whatif.Measured] = {}

    def read(self, query: dict[str, str]) -> tuple[dict[str, Any], str]:
        """Return the state that an address asks for and "", or the default state and what is wrong, as HTML."""
        try:
            state = url_state.read(query, self.defaults)
            for ref in [state["assignment"], *state["with"]]:
                self.shelf.get(ref)
            return self._checked(state, {"teacher": ("", *self.teachers(state["assignment"]))}), ""
        except PersynError as error:
            return dict(self.defaults), pages.message("This address cannot be shown", str(error), "error")

    def show(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return what changes on the page: the view that is open, by name; for prompts also `page` and `opened`."""
        values = url_state.typed(values, self.defaults)
        view = values["view"] if values["view"] in VIEWS else self.defaults["view"]
        try:
            return self._show(view, _named(self._checked(values, {})))
        except PersynError as error:
            return {view: pages.message("This cannot be shown", str(error), "error")}
        except Exception as error:  # the page must say so: it would stay as it was otherwise
            traceback.print_exc(file=sys.stderr)
            return {view: pages.message("This went wrong, which is a fault of ours", reason(error), "error")}

    def _checked(self, state: dict[str, Any], more: dict[str, tuple[str, ...]]) -> dict[str, Any]:
        """Return a state, if each word of it is one of those that there are; `more` are choices beside the usual ones.

        Raises:
            InputError: names the first one that is not.
        """
        for name, choices in ({"split": (ALL, *self.splits), **CHOICES} | more).items():
            if state[name] not in choices:
                named = ", ".join(filter(None, choices))
                raise InputError(f"there is no {name} `{state[name][:40]}`; choose one of {named}")
        return state

    def _show(self, view: str, values: dict[str, Any]) -> dict[str, Any]:
        """Return what changes on the page, or raise where that cannot be shown."""
        database, assignment = self.database, self.shelf.get(values["assignment"])
        split = values["split"]
        if view == "allocation":
            chosen = [assignment, *(self.shelf.get(ref) for ref in values["with"] if ref != assignment.ref)]
            return {view: views.allocation_view(database, chosen, values["by"], split)}
        if view == "prompts":
            wanted, opened = filter_of(values), values["prompt"]
            text, page = views.explorer_view(database, assignment, wanted, int(values["page"] or 1), opened)
            shown = views.prompt_view(database, assignment, opened) if opened else ""
            return {view: text, "page": page.number, "opened": shown}
        if view == "whatif":
            settings = float(values["alpha"]), values["how"], float(values["lambda"] or 0)
            return {view: views.whatif_view(database, assignment, self._load(values), *settings)}
        made = {"router": views.quality_view, "cost": views.cost_view, "lineage": views.lineage_view}
        return {view: made[view](database, assignment)}

    def _load(self, values: dict[str, Any]) -> whatif.Measured:
        """Return what the sliders recompute from; it is kept for one assignment and split at a time."""
        key = (values["assignment"], values["split"])
        if key not in self._measured:
            self._measured = {key: whatif.load(self.database, self.shelf.get(key[0]), key[1])}
        return self._measured[key]

    def topics(self, ref: str) -> list[str]:
        """Return the topics of an assignment's prompts."""
        return topics(self.database, self.shelf.get(ref))

    def teachers(self, ref: str) -> list[str]:
        """Return the names of an assignment's teachers, in the order of the pool."""
        return [teacher.name for teacher in teachers_of(self.shelf.get(ref))]

    def save(self, values: dict[str, Any], kind: str) -> str:
        """Return the allocation that is shown as JSON of a file's name and data address, for the browser to save."""
        values = _named(self._checked(url_state.typed(values, self.defaults), {}))
        chosen = [self.shelf.get(ref) for ref in dict.fromkeys([values["assignment"], *values["with"]])]
        allocation = allocate(self.database, chosen, values["by"] if kind == "csv" else "all", values["split"])
        data = as_csv(allocation).encode() if kind == "csv" else views.picture(self.database, allocation)
        media = "text/csv" if kind == "csv" else "image/png"
        return json.dumps([f"allocation.{kind}", f"data:{media};base64,{base64.b64encode(data).decode()}"])


def _named(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values with an empty split where all splits are asked for, as the queries take it."""
    return values | {"split": "" if values["split"] == ALL else values["split"]}


def filter_of(values: dict[str, Any]) -> Filter:
    """Return the filter that the controls of the prompts describe."""
    words = {name: values[name] or "" for name in ("teacher", "split", "topic", "agreement", "correct")}
    numbers = {name: values[name] for name in ("margin", "shortest", "longest")}
    given: dict[str, Any] = {**words, **numbers}
    return Filter(text=values["q"] or "", sort=values["sort"], **given)
