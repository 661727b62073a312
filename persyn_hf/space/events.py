"""What the events of the page call: the state of the controls in, what changes on the page out."""

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
from persyn_hf.space.url_state import DEFAULTS


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
    """Answers for one shelf. `values` are those of all controls, by the names of `DEFAULTS`."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self.database = Database(shelf)
        refs = [item.ref for item in shelf.assignments]
        routed = [item.ref for item in shelf.assignments if item.manifest.settings.get("kind") == "persyn"]
        first = (routed or refs)[0]
        others = [ref for ref in refs if ref != first]
        self.refs = refs
        self.defaults = DEFAULTS | {"assignment": first, "with": others[:BESIDE]}
        found = splits(self.database, shelf.assignments)
        self.splits = found
        self.defaults["split"] = "pool" if "pool" in found else ALL
        self._measured: dict[tuple[str, str], whatif.Measured] = {}

    def read(self, query: dict[str, str]) -> tuple[dict[str, Any], str]:
        """The state that an address asks for, and what is wrong with it."""
        try:
            found = url_state.read(query, self.defaults)
            for ref in [found["assignment"], *found["with"]]:
                self.shelf.get(ref)
            known = {"split": (ALL, *self.splits), "teacher": ("", *self.teachers(found["assignment"])), **CHOICES}
            for name, choices in known.items():
                if found[name] not in choices:
                    named = ", ".join(filter(None, choices))
                    raise InputError(f"there is no {name} `{found[name][:40]}`; choose one of {named}")
            return found, ""
        except PersynError as error:
            return dict(self.defaults), pages.message("This address cannot be shown", str(error), "error")

    def show(self, values: dict[str, Any]) -> dict[str, Any]:
        """What changes on the page: the view that is open, by name; of the prompts `page` and `opened`, too."""
        view = values["view"]
        try:
            return self._show(view, _named(values))
        except PersynError as error:
            return {view: pages.message("This cannot be shown", str(error), "error")}
        except Exception as error:  # the page must say so: it would stay as it was otherwise
            traceback.print_exc(file=sys.stderr)
            return {view: pages.message("This went wrong, which is a fault of ours", reason(error), "error")}

    def _show(self, view: str, values: dict[str, Any]) -> dict[str, Any]:
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
        """What the sliders recompute from, kept for one assignment and split at a time."""
        key = (values["assignment"], values["split"])
        if key not in self._measured:
            self._measured = {key: whatif.load(self.database, self.shelf.get(key[0]), key[1])}
        return self._measured[key]

    def topics(self, ref: str) -> list[str]:
        return topics(self.database, self.shelf.get(ref))

    def teachers(self, ref: str) -> list[str]:
        return [teacher.name for teacher in teachers_of(self.shelf.get(ref))]

    def save(self, values: dict[str, Any], kind: str) -> str:
        """The allocation that is shown as a file's name and data, for the browser to save."""
        values = _named(values)
        chosen = [self.shelf.get(ref) for ref in dict.fromkeys([values["assignment"], *values["with"]])]
        found = allocate(self.database, chosen, values["by"] if kind == "csv" else "all", values["split"])
        data = as_csv(found).encode() if kind == "csv" else views.picture(self.database, found)
        media = "text/csv" if kind == "csv" else "image/png"
        return json.dumps([f"allocation.{kind}", f"data:{media};base64,{base64.b64encode(data).decode()}"])


def _named(values: dict[str, Any]) -> dict[str, Any]:
    """With an empty split where all are asked for, as the queries take it."""
    return values | {"split": "" if values["split"] == ALL else values["split"]}


def filter_of(values: dict[str, Any]) -> Filter:
    words = {name: values[name] or "" for name in ("teacher", "split", "topic", "agreement", "correct")}
    numbers = {name: values[name] for name in ("margin", "shortest", "longest")}
    given: dict[str, Any] = {**words, **numbers}
    return Filter(text=values["q"] or "", sort=values["sort"], **given)
