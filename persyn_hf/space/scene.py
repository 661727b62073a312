"""What a view is made from: the state of the page and the artifacts that it asks for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from persyn_hf.space import pages
from persyn_hf.space.collection import Shelf, teachers_of
from persyn_hf.space.database import Database
from persyn_hf.space.naming import Name
from persyn_hf.space.url_state import State
from persyn_hf.space.whatif_data import Measured
from persyn_hf.store.stored import Stored


ALL = "all"  # instead of the name of a split
SOON = 300_000  # measured cells that are read within a few tenths of a second, so that a first view may show them


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One page that was asked for. `names`: of all assignments that are shown, by reference."""

    database: Database
    state: State
    assignment: Stored
    names: Mapping[str, Name]
    load: Callable[[], Measured]  # what other weights are computed from; it is read once
    kept: dict[str, Any] = field(default_factory=dict)  # what several parts of the page look for

    @property
    def shelf(self) -> Shelf:
        return self.database.shelf

    @property
    def split(self) -> str:
        """The split that is shown; "" for all of them, as the queries take it."""
        return "" if self.state["split"] == ALL else str(self.state["split"])

    @property
    def others(self) -> list[Stored]:
        """The assignments that stand beside the one that is shown, without it."""
        return [self.shelf.get(ref) for ref in dict.fromkeys(self.state["with"]) if ref != self.assignment.ref]

    @cached_property
    def pool(self) -> list[str]:
        """The names of the teachers, in the order of the pool."""
        return [teacher.name for teacher in teachers_of(self.assignment)]

    @cached_property
    def looks(self) -> dict[str, dict[str, Any]]:
        """How each teacher is drawn, by name, in the order of the pool; those of `others` are among them."""
        shown = [self.assignment, *self.others]
        return pages.looks(list({t.name: t for item in shown for t in teachers_of(item)}.values()))

    @property
    def reads_soon(self) -> bool:
        """Whether all rewards of the assignment are few enough to be read for a first view."""
        rewards = self.shelf.rewards(self.assignment)
        return (
            sum(count for item in rewards for rows in item.manifest.rows.values() for count in rows.values()) <= SOON
        )

    def render(self, template: str, /, **values: Any) -> str:
        """Return a template filled with the values; `state` in it makes addresses."""
        return pages.render(template, scene=self, state=self.state, looks=self.looks, **values)
