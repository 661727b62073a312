"""One page after another: the address goes in, the HTML comes out."""

import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import Any, get_args

from persyn_hf.core.rewards import How
from persyn_hf.errors import PersynError, reason
from persyn_hf.space import downloads, pages, url_state, views
from persyn_hf.space.allocation import By, splits
from persyn_hf.space.collection import Shelf, teachers_of
from persyn_hf.space.database import Database
from persyn_hf.space.explorer import Agreement, Correct, Sort, Tied
from persyn_hf.space.naming import names_of
from persyn_hf.space.projection import Colour
from persyn_hf.space.scene import ALL, Scene
from persyn_hf.space.url_state import DEFAULTS, VIEWS, State
from persyn_hf.space.whatif_data import Measured, load


CHOICES: dict[str, Any] = {
    "view": tuple(VIEWS),
    "by": get_args(By),
    "sort": get_args(Sort),
    "agreement": get_args(Agreement),
    "tied": get_args(Tied),
    "correct": get_args(Correct),
    "how": get_args(How),
    "moved": ("", "moved"),
    "colour": get_args(Colour),
    "__theme": ("", "light", "dark", "system"),
}
TEACHERS = ("teacher", "best", "was", "becomes")  # names in an address that stand for teachers of the assignment
BESIDE = 5  # assignments that are compared with the first one at the start


class Desk:
    """The answers to what visitors of one shelf ask for."""

    def __init__(self, shelf: Shelf) -> None:
        """Choose what is shown first: a routed assignment, if there is one, next to some others, on the pool."""
        self.shelf = shelf
        self.database = Database(shelf)
        self.names = names_of(shelf.assignments)
        self.refs = [item.ref for item in shelf.assignments]
        routed = [item.ref for item in shelf.assignments if item.manifest.settings.get("kind") == "persyn"]
        first = (routed or self.refs)[0]
        alike = [ref for ref in self.refs if ref != first and shelf.same_prompts(shelf.get(ref), shelf.get(first))]
        same = [ref for ref in alike if self.names[ref].student == self.names[first].student]
        others = [*same, *(ref for ref in alike if ref not in same)]
        self.splits = splits(self.database, shelf.assignments)
        split = "pool" if "pool" in self.splits else ALL
        self.defaults = DEFAULTS | {"assignment": first, "with": others[:BESIDE], "split": split}
        self._measured: dict[tuple[str, str], Measured] = {}
        self._lock = threading.Lock()
        self._thumbnails: dict[tuple[str, str], bytes] = {}
        self._drawing = threading.Lock()

    def read(self, query: Mapping[str, list[str]]) -> tuple[State, list[str]]:
        """Return the state that an address asks for, and what is wrong with it: that much of it is left out."""
        about = {"assignment": self.refs, "with": self.refs, "differs": ["", *self.refs], "split": [ALL, *self.splits]}
        state, wrong = url_state.read(query, self.defaults, CHOICES | about)
        among = self.teachers(state["assignment"])
        there = self.teachers(state["differs"]) if state["differs"] else []
        pools = {**dict.fromkeys(TEACHERS, ["", *among]), "there": ["", *there], "pin": among}
        return url_state.read(query, self.defaults, CHOICES | about | pools)

    def page(self, query: Mapping[str, list[str]], origin: str = "") -> str:
        """Return the whole page of an address.

        Args:
            query: name -> texts, from the address.
            origin: where the page is served, for addresses that must be whole: `https://host/`.
        """
        asked, wrong = self.read(query)
        state, note = self._where_measured(asked)
        parts = self._parts(state)
        name = self.names[state["assignment"]]
        students: dict[str, list[tuple[str, str]]] = {}
        for ref, other in self.names.items():
            students.setdefault(other.student, []).append((ref, other.label))
        return pages.render(
            "page",
            state=state,
            parts=parts,
            wrong=wrong,
            note=note,
            name=name,
            students=students,
            splits=[ALL, *self.splits],
            views=VIEWS,
            origin=origin,
            assets=pages.assets(),
        )

    def show(self, values: Mapping[str, Any]) -> dict[str, str]:
        """Return the HTML of a view for the values of a program, by the view's name; null stands for a default."""
        state = State(url_state.typed(values, self.defaults), self.defaults)
        found = self.shelf.items.keys() & {state["assignment"]}
        if not found or any(state[name] not in allowed for name, allowed in CHOICES.items()):
            state, wrong = self.read({name: [text] for name, text in state.fields()})
            return {"wrong": pages.messages(wrong)} | self._parts(state)
        return self._parts(state)

    def scene(self, state: State) -> Scene:
        """Return what a view is made from."""
        assignment = self.shelf.get(state["assignment"])
        return Scene(
            database=self.database,
            state=state,
            assignment=assignment,
            names=self.names,
            load=lambda: self._load(assignment.ref, "" if state["split"] == ALL else state["split"]),
        )

    def thumbnail(self, state: State) -> bytes:
        """Return the picture that a link to a page shows, as PNG; one per assignment and split is kept.

        Raises:
            InputError: no prompt is in the split.
        """
        with self._drawing:
            key = (state["assignment"], state["split"])
            if key not in self._thumbnails:
                self._thumbnails[key] = downloads.thumbnail(self.scene(state))
            return self._thumbnails[key]

    def teachers(self, ref: str) -> list[str]:
        """Return the names of an assignment's teachers, in the order of the pool."""
        return [teacher.name for teacher in teachers_of(self.shelf.get(ref))]

    def _parts(self, state: State) -> dict[str, str]:
        """Return the HTML of the view, and of the prompt that is opened in it; what cannot be shown says why."""
        scene, view = self.scene(state), state["view"]
        parts = {view: _said(lambda: views.VIEW_OF[view](scene))}
        if view == "prompts" and state["prompt"]:
            parts["opened"] = _said(lambda: views.prompt.show(scene))
        return parts

    def _where_measured(self, state: State) -> tuple[State, str]:
        """Return the state, or, where weights can be tried on other splits only, that of all splits, and a message."""
        split = state["split"]
        if state["view"] != "whatif" or split == ALL:
            return state, ""
        if self._can_load(state["assignment"], split) or not self._can_load(state["assignment"], ""):
            return state, ""
        words = "All splits are shown instead; the strategy `oracle` of a recipe measures the pool."
        whole = State({**state.values, "split": ALL}, state.defaults)
        return whole, pages.message(f"No {split} prompt has measured rewards", words)

    def _can_load(self, ref: str, split: str) -> bool:
        try:
            return bool(self._load(ref, split).ids)
        except PersynError:
            return False

    def _load(self, ref: str, split: str) -> Measured:
        """Return what other weights are computed from; it is kept for one assignment and split at a time."""
        with self._lock:
            key = (ref, split)
            if key not in self._measured:
                self._measured = {key: load(self.database, self.shelf.get(ref), split)}
            return self._measured[key]


def _said(make: Callable[[], str]) -> str:
    """Return what is made, or a message where it cannot be."""
    try:
        return make()
    except PersynError as error:
        return pages.message("This cannot be shown", str(error), "error")
    except Exception as error:  # the page must say so: nothing would be shown otherwise
        traceback.print_exc(file=sys.stderr)
        return pages.message("This went wrong, which is a fault of ours", reason(error), "error")
