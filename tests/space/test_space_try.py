"""A prompt that a visitor types is ranked by the router that made the assignment."""

import html
import re
from pathlib import Path
from typing import Any

import pytest
from space_samples import POOL, prompts

from persyn_hf.backends import routers
from persyn_hf.errors import DamagedArtifact
from persyn_hf.space import try_prompt as tried
from persyn_hf.space.collection import open_shelf
from persyn_hf.space.database import Database
from persyn_hf.space.decisions import decisions
from persyn_hf.space.events import Desk
from persyn_hf.space.views.try_prompt import LONGEST
from persyn_hf.store.local import Store


ROUTED = "org/assignments-s-routed@v1"


@pytest.fixture(scope="module")
def desk(store: Store) -> Desk:
    return Desk(open_shelf([], store))


def shown(desk: Desk, **given: str) -> str:
    return desk.show({"view": "try", "assignment": ROUTED} | given)["try"]


def scene(desk: Desk, **given: str) -> Any:
    return desk.scene(desk.read({name: [text] for name, text in ({"assignment": ROUTED} | given).items()})[0])


def test_the_ranking_is_the_routers(desk: Desk) -> None:
    text = "Question 12?"
    router = desk.shelf.input(desk.shelf.get(ROUTED), "router")
    assert router is not None
    scores = routers.load(router.path).scores([[{"role": "user", "content": text}]])[0]
    wanted = sorted(zip(POOL, map(float, scores), strict=True), key=lambda pair: -pair[1])
    found = tried.try_prompt(scene(desk), text)
    assert found.teachers == wanted and found.lead == wanted[0][1] - wanted[1][1]
    page = shown(desk, typed=text)
    rows = re.findall(r'<th scope="row">.*?title="(\w+)".*?<td class="n">(-?\d+\.\d+)', page)
    assert rows == [(name, f"{score:.3f}") for name, score in wanted]
    assert f"{wanted[0][0]} should teach it" in page


def test_the_link_to_prompts_like_it_finds_some_and_only_of_a_like_lead(desk: Desk, database: Database) -> None:
    text = "Question 12?"
    found = tried.try_prompt(scene(desk, split="all"), text)
    assert found.alike is not None and found.lead is not None
    first = found.teachers[0][0]
    table = decisions(desk.database, desk.shelf.get(ROUTED), [])
    margins = [m for (m,) in desk.database.rows(f"SELECT margin FROM {table} WHERE teacher = ?", [first])]
    nearest = sorted(margins, key=lambda margin: abs(margin - found.lead))[: tried.ALIKE]
    assert found.alike == (min(nearest), max(nearest))
    link = html.unescape(
        re.findall(r'href="(\?view=prompts[^"]*teacher=[^"]*)"', shown(desk, typed=text, split="all"))[0]
    )
    state, wrong = desk.read({pair.partition("=")[0]: [pair.partition("=")[2]] for pair in link[1:].split("&")})
    assert not wrong and state["lead"] <= min(nearest) and state["margin"] >= max(nearest)
    assert state["margin"] - max(nearest) < 1e-3 and min(nearest) - state["lead"] < 1e-3


def test_what_cannot_be_tried_says_why(desk: Desk, tmp_path: Path) -> None:
    assert "no router belongs to this assignment" in shown(desk, assignment="org/assignments-s-strong@v1", typed="x")
    assert "1 to 20,000 characters is needed, this one has 20,001" in shown(desk, typed="x" * 20_001)
    empty = shown(desk, typed="   ")
    assert "should teach" not in empty and "error" not in empty and f'maxlength="{LONGEST}"' in empty


def test_a_router_without_its_weights_or_with_others(desk: Desk, changed: Any) -> None:
    router = desk.shelf.input(desk.shelf.get(ROUTED), "router")
    assert router is not None
    head = (router.path / "head.safetensors").resolve()
    tried._loaded.clear()
    changed(head, head.read_bytes()[-8:], b"\x00" * 8)
    with pytest.raises(DamagedArtifact, match=r"head.safetensors is damaged, found \w+, needed \w+"):
        tried.try_prompt(scene(desk), prompts()[9]["messages"][0]["content"])
    link = router.path / routers.FILE
    target = link.readlink()
    link.unlink()
    try:
        assert "only the record of its router is here, not its weights" in shown(desk, typed="x")
    finally:
        link.symlink_to(target)


def test_one_that_needs_pytorch_says_so_where_there_is_none(desk: Desk, changed: Any, monkeypatch: Any) -> None:
    router = desk.shelf.input(desk.shelf.get(ROUTED), "router")
    assert router is not None
    changed((router.path / routers.FILE).resolve(), b'"kind": "ridge"', b'"kind": "llm"')
    monkeypatch.setattr(tried.importlib.util, "find_spec", lambda name: None)
    assert "its router needs PyTorch, which is not installed here" in shown(desk, typed="x")
