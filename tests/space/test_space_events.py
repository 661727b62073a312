"""What the events of the page answer, without a browser."""

import html
from typing import Any
from urllib.parse import parse_qs

import pytest
from space_samples import UNSHOWN

from persyn_hf.space.database import Database
from persyn_hf.space.events import Desk
from persyn_hf.space.url_state import DEFAULTS, typed


@pytest.mark.parametrize(("query", "words"), UNSHOWN)
def test_an_address_that_cannot_be_shown_says_why(database: Database, query: str, words: str) -> None:
    shown = Desk(database.shelf).page(parse_qs(query))
    assert words in html.unescape(shown) and "<script>" not in shown


@pytest.mark.parametrize("name", DEFAULTS)
def test_values_that_no_control_sends_are_the_default_or_one_sentence(database: Database, name: str) -> None:
    desk = Desk(database.shelf)
    for value in (None, "x", [None]):
        view = {"alpha": "whatif", "how": "whatif", "lambda": "whatif", "with": "allocation", "by": "allocation"}
        state = desk.defaults | {"view": view.get(name, "prompts")} | {name: value}
        shown = html.unescape("".join(desk.show(state).values()))
        assert shown and "fault of ours" not in shown


@pytest.mark.parametrize("value", [None, 7, 10**400, "x", ["y"], [None], {"a": 1}, True, float("nan"), -1e300])
def test_every_value_has_the_type_of_its_default_and_its_bounds(value: Any) -> None:
    state = typed(dict.fromkeys(DEFAULTS, value), DEFAULTS)
    for name, default in DEFAULTS.items():
        assert state[name] == default or type(state[name]) in ((type(default),) if default is not None else (int,))
    assert 0 <= state["alpha"] <= 1 <= state["page"]
