"""The list of prompts and the opened one as pages: chips, heads, neighbours, downloads, pins; without a browser."""

import csv
import html
import io
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

import pytest
from space_samples import EVIL, NUMBER, POOL, prompt_id, prompts

from persyn_hf.space import downloads
from persyn_hf.space.collection import Shelf
from persyn_hf.space.database import Database
from persyn_hf.space.events import Desk
from persyn_hf.space.explorer import find
from persyn_hf.space.prompt import on_hub
from persyn_hf.space.views.chips import FILTERS
from persyn_hf.space.views.prompts import ORDERS, filter_of
from persyn_hf.store.stored import Stored


STRONG = "org/assignments-s-strong@v1"
GIVEN = {  # address -> the chips that it makes, in words
    "q=question": ["contains “question”"],
    "teacher=small": ["teacher: small"],
    "best=large": ["best measured: large"],
    "topic=sums": ["topic: sums"],
    "topic=none": ["no topic"],
    "origin=made": ["from made"],
    "source=router": ["decided by router"],
    "agreement=same": ["chosen is a best one"],
    "agreement=other": ["another was better"],
    "tied=tied": ["several best teachers"],
    "tied=sole": ["one best teacher"],
    "correct=wrong": ["answer wrong"],
    "correct=unjudged": ["answer not judged"],
    "lead=0.25&margin=2": ["lead at most 2", "lead at least 0.25"],
    "lead=0": ["lead at least 0"],
    "shortest=1&longest=1500": ["at least 1 tokens", "at most 1,500 tokens"],
    f"differs={STRONG}": ["strong chooses another teacher"],
    f"differs={STRONG}&there=large": ["strong chooses large"],
    "moved=moved&was=small&becomes=large&alpha=0.9": ["best teacher moves from small to large at alpha 0.9"],
    "moved=moved&how=rank&lambda=0.5": ["best teacher moves at alpha 0.4, normalisation rank, lambda 0.5"],
    "was=small": ["best teacher from small at alpha 0.4"],
    "box=0,1,2,3": ["a part of the map"],
    "sort=regret&page=2&alpha=0.7": [],
}


@pytest.fixture(scope="module")
def desk(database: Database) -> Desk:
    return Desk(database.shelf)


def shown(desk: Desk, query: str) -> str:
    page = desk.page(parse_qs(f"view=prompts&split=all&{query}"))
    assert "fault of ours" not in page
    return html.unescape(page)


def chips_of(page: str) -> dict[str, str]:
    """The words of each chip and where it leads."""
    return {
        words: address
        for address, words in re.findall(r'<li><a href="([^"]*)"[^>]*><span class="words">(.*?)</span>', page)
    }


@pytest.mark.parametrize("query", GIVEN)
def test_every_filter_is_a_chip_that_takes_it_away(desk: Desk, query: str) -> None:
    page = shown(desk, query)
    chips = chips_of(page)
    assert list(chips) == GIVEN[query]
    assert bool(chips) == ("Clear all" in page)
    for words, address in chips.items():
        left = list(chips_of(shown(desk, address.removeprefix("?"))))
        assert left == [other for other in chips if other != words]
    if chips:
        clear = re.search(r'class="all" href="([^"]*)"', page)
        assert clear is not None and not {f"{name}=" for name in FILTERS} & set(re.findall(r"\w+=", clear[1]))


def test_every_filter_of_an_address_has_words(desk: Desk) -> None:
    places = {"view", "assignment", "split", "with", "by", "sort", "page", "prompt", "pin", "colour"}
    weights = {"alpha", "how", "lambda", "typed", "__theme"}
    assert set(desk.defaults) - places - weights == set(FILTERS)


def test_an_empty_list_offers_the_way_back(desk: Desk) -> None:
    page = shown(desk, "q=nowhere&teacher=small")
    assert "No prompt passes" in page and "<b>0</b> prompts" in page
    found = re.search(r'<a href="([^"]*)" data-focus="#list">clear all</a>', page)
    assert found is not None and f"<b>{NUMBER}</b> prompts" in shown(desk, found[1].removeprefix("?"))


@pytest.mark.parametrize("sort", ORDERS)
def test_a_head_says_how_the_list_is_sorted_and_turns_it(desk: Desk, sort: str) -> None:
    page = shown(desk, f"sort={sort}")
    heads = re.findall(r'<th role="columnheader"[^>]*?(?: aria-sort="(\w+)")?><a id="sort-\w+" href="([^"]*)"', page)
    assert len(heads) == 4
    now = [(way, address) for way, address in heads if way]
    if "confidence" in sort:
        assert not now
        return
    ((way, address),) = now
    turned = shown(desk, address.removeprefix("?"))
    (back,) = re.findall(r'aria-sort="(\w+)"', turned)
    assert {way, back} == {"ascending", "descending"}
    numbers = [float(text) for text in re.findall(r'data-label="regret">([\d.]+)<', page)]
    if "regret" in sort:
        assert numbers == sorted(numbers, reverse=way == "descending")


@pytest.mark.parametrize(
    "query", ["", "teacher=small&sort=-margin", "tied=tied&agreement=other", "q=nowhere", "lead=0.5"]
)
def test_a_download_holds_what_is_listed_in_its_order(desk: Desk, query: str) -> None:
    state, wrong = desk.read(parse_qs(f"view=prompts&split=pool&{query}"))
    scene = desk.scene(state)
    listed = find(desk.database, scene.assignment, filter_of(scene), 1, NUMBER).rows
    lines = b"".join(downloads.make("prompts.jsonl", scene).content).decode().splitlines()
    assert not wrong
    assert [json.loads(line) for line in lines] == [
        {name: value for name, value in row.items() if name != "number"} for row in listed
    ]
    table = list(csv.DictReader(io.StringIO(b"".join(downloads.make("prompts.csv", scene).content).decode())))
    assert [row["prompt_id"] for row in table] == [row["prompt_id"] for row in listed]
    assert not any(value.startswith(("=", "@")) for row in table for value in row.values())


def test_the_way_through_the_list_crosses_its_pages(desk: Desk) -> None:
    ids = [row["prompt_id"] for row in all_of(desk, "sort=-margin")]
    for place in (0, 23, 24, 25, 49, NUMBER - 1):
        page = shown(desk, f"sort=-margin&prompt={ids[place]}")
        assert f"{place + 1} of {NUMBER}" in page
        assert 'class="opened"><td role="cell" class="what"><a id="row-' in page, "it is on the page that is listed"
        for move, at in (("previous", place - 1), ("next", place + 1)):
            found = re.search(rf'id="{move}-prompt" href="([^"]*)"', page)
            to = parse_qs(found[1].removeprefix("?"))["prompt"] if found else []
            assert to == ids[at : at + 1] if at >= 0 else not to
    close = re.search(r'id="close-prompt" href="([^"]*)" data-focus="(#row-\d+)"', page)
    assert close is not None
    after = shown(desk, close[1].removeprefix("?"))
    assert f'id="{close[2][1:]}"' in after and 'id="opened"' not in after and "51 to 60 of 60" in after


def all_of(desk: Desk, query: str) -> list[dict[str, Any]]:
    scene = desk.scene(desk.read(parse_qs(f"view=prompts&split=all&{query}"))[0])
    return find(desk.database, scene.assignment, filter_of(scene), 1, NUMBER).rows


def test_an_unknown_prompt_is_said_beside_the_list(desk: Desk) -> None:
    page = shown(desk, "prompt=none&teacher=small")
    assert "holds no prompt `none`" in page and 'id="close-prompt"' in page and page.count('<tr role="row">') > 5
    assert 'id="next-prompt"' not in page


def test_a_prompt_that_the_filter_leaves_out_opens_without_neighbours(desk: Desk) -> None:
    row = next(row for row in all_of(desk, "") if row["teacher"] != "small")
    page = shown(desk, f"teacher=small&prompt={row['prompt_id']}")
    assert "not in the list" in page and f"<code>{row['prompt_id']}</code>" in page and 'id="next-prompt"' not in page


def pins(page: str) -> Iterator[tuple[str, str, str]]:
    yield from re.findall(
        r'class="button pin" id="pin-\d" href="([^"]*)"[^>]*aria-label="(Pin|Unpin) the answer of (\w+)"', page
    )


def test_two_answers_are_pinned_at_most(desk: Desk) -> None:
    address = f"prompt={prompt_id(9)}"
    for name, needed in zip(POOL, ([POOL[0]], POOL[:2], POOL[1:]), strict=True):
        to = {teacher: link for link, words, teacher in pins(shown(desk, address)) if words == "Pin"}
        address = to[name].removeprefix("?")
        page = shown(desk, address)
        assert parse_qs(address)["pin"] == [",".join(needed)]
        assert [teacher for _, words, teacher in pins(page) if words == "Unpin"] == needed
        assert ("Pin a second answer" in page) == (len(needed) == 1) == ('class="sides"' not in page)
    unpin = {teacher: link for link, words, teacher in pins(page) if words == "Unpin"}
    assert "pin=large" in unpin["thinker"] and "pin=thinker" in unpin["large"]


@pytest.mark.parametrize("number", range(len(EVIL)))
def test_pinned_answers_are_escaped(desk: Desk, number: int) -> None:
    page = desk.page(parse_qs(f"view=prompts&split=all&prompt={prompt_id(number)}&pin=small,large"))
    pinned = re.findall(r'<div class="text written" dir="auto">(.*?)</div>', page, re.DOTALL)
    assert [html.unescape(text) for text in pinned] == [EVIL[number]] * 2 and not any("<" in text for text in pinned)
    assert "Both are the same, sign by sign." in page


def test_a_long_answer_is_shown_and_pinned_in_part(desk: Desk) -> None:
    page = shown(desk, f"prompt={prompt_id(7)}&pin=small,large")
    assert page.count("The first 20,000 of 1,000,000 characters") == 3 and len(page) < 200_000


def test_the_row_on_the_hub_is_linked_where_it_is_there(database: Database, persyn: Stored) -> None:
    shelf = database.shelf
    fetched = Database(Shelf(items=shelf.items, fetched=frozenset(["org/prompts@v1", persyn.ref])))
    place = [row["prompt_id"] for row in prompts() if row["split"] == "pool"].index(prompt_id(31))
    rows = f"pool?p=0&row={place}"
    assert on_hub(fetched, persyn, prompt_id(31)) == [
        ("org/prompts@v1", f"https://huggingface.co/datasets/org/prompts/viewer/default/{rows}"),
        (persyn.ref, f"https://huggingface.co/datasets/org/assignments-s-persyn/viewer/default/{rows}"),
    ]
    assert on_hub(database, persyn, prompt_id(31)) == [] == on_hub(fetched, persyn, "none")
    page = Desk(fetched.shelf).page(parse_qs(f"view=prompts&prompt={prompt_id(31)}"))
    assert (
        f'href="https://huggingface.co/datasets/org/prompts/viewer/default/{html.escape(rows)}" target="_blank"'
        in page
    )
