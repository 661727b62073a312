"""What the events of the page answer, without a browser."""

import html
from urllib.parse import parse_qsl

import pytest
from space_samples import UNSHOWN

from persyn_hf.space.database import Database
from persyn_hf.space.events import Desk


@pytest.mark.parametrize(("query", "words"), UNSHOWN)
def test_an_address_that_cannot_be_shown_says_why(database: Database, query: str, words: str) -> None:
    desk = Desk(database.shelf)
    values, fault = desk.read(dict(parse_qsl(query)))
    shown = fault or "".join(str(part) for part in desk.show(values).values())
    assert words in html.unescape(shown) and "<script>" not in shown
