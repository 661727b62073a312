"""The data of the pages by Gradio's API, for programs: `Client(SPACE).predict(..., api_name="/prompts")`.

Every argument but a prompt may be null or left out, which stands for what the first page shows. What is wrong with an
argument is said in one sentence: a program that misspells a filter must not get prompts that it did not ask for.
"""

import functools
from collections.abc import Callable
from typing import Any

from persyn_hf.errors import InputError, PersynError
from persyn_hf.recipe.strict import nearest
from persyn_hf.space.allocation import allocate
from persyn_hf.space.events import Desk
from persyn_hf.space.explorer import find
from persyn_hf.space.prompt import open_prompt
from persyn_hf.space.scene import Scene
from persyn_hf.space.try_prompt import try_prompt
from persyn_hf.space.url_state import DEFAULTS, fields_of
from persyn_hf.space.views.prompts import filter_of
from persyn_hf.text import readable


MANY = 1000  # prompts of one answer
NAMES = ("allocation", "prompts", "prompt", "route")


def answering(call: Callable[..., dict[str, Any]], error: Callable[[str], Exception]) -> Callable[..., dict[str, Any]]:
    """Return a function of `Api` that raises `error`, whose words Gradio hands on, where a `PersynError` is raised."""

    @functools.wraps(call)
    def answer(*given: Any, **named: Any) -> dict[str, Any]:
        try:
            return call(*given, **named)
        except PersynError as fault:
            raise error(str(fault)) from None

    return answer


class Api:
    """The functions that programs may call. `address`: the query string of a page, `?teacher=NAME&tied=tied`."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def allocation(self, address: str | None = None) -> dict[str, Any]:
        """Return how many prompts each teacher gets: {"assignment", "split", "prompts": {teacher: count}}."""
        scene = self._scene(address)
        found = allocate(scene.database, [scene.assignment], "all", scene.split)
        counts = found.groups[0].counts[0].tolist() if found.groups else [0] * len(found.names)
        prompts = dict(zip(found.names, counts, strict=True))
        return {"assignment": scene.assignment.ref, "split": scene.split or "all", "prompts": prompts}

    def prompts(self, address: str | None = None, page: int | None = None) -> dict[str, Any]:
        """Return up to 1000 of the prompts that pass the address' filter: {"total", "page", "pages", "rows"}."""
        scene = self._scene(address)
        if page is not None and (not isinstance(page, int) or isinstance(page, bool) or page < 1):
            raise InputError(f"page is given as {_brief(page)}, and a whole number from 1 is needed")
        number = page or int(scene.state["page"])
        found = find(scene.database, scene.assignment, filter_of(scene), number, MANY)
        return {"total": found.total, "page": found.number, "pages": found.last, "rows": found.rows}

    def prompt(self, prompt_id: str, address: str | None = None) -> dict[str, Any]:
        """Return one prompt: its turns, its reference, and what each teacher scored and answered."""
        scene = self._scene(address)
        found = open_prompt(scene.database, scene.assignment, _text("prompt_id", prompt_id))
        candidates = [
            {
                "teacher": one.teacher.name,
                "chosen": one.chosen,
                "score": one.score,
                **one.measures,
                "answers": one.answers,
            }
            for one in found.candidates
        ]
        about = {name: getattr(found, name) for name in ("prompt_id", "messages", "reference", "topic", "split")}
        return {**about, "decided_by": found.source, "candidates": candidates}

    def route(self, prompt: str, address: str | None = None) -> dict[str, Any]:
        """Return the teachers for a new prompt by the router's scores: {"teachers": [[name, score]], "confidence"}."""
        found = try_prompt(self._scene(address), _text("prompt", prompt))
        return {"teachers": found.teachers, "lead": found.lead, "confidence": found.confidence}

    def _scene(self, address: str | None) -> Scene:
        """Return the scene of an address.

        Raises:
            InputError: something is wrong with the address.
        """
        text = _text("address", "" if address is None else address)
        query = fields_of(text.rpartition("?")[2])
        unknown = [name for name in query if name not in DEFAULTS]
        state, wrong = self._desk.read(query)
        if unknown or wrong:
            meant = "".join(nearest(name, tuple(DEFAULTS)) for name in unknown[:1])
            raise InputError(wrong[0] if wrong else f"no page has a field {_brief(unknown[0])}{meant}")
        return self._desk.scene(state)


def _text(name: str, value: Any) -> str:
    """Return a text, or raise an `InputError` that names the argument."""
    if not isinstance(value, str):
        raise InputError(f"{name} is given as {_brief(value)}, and a text is needed")
    return value


def _brief(value: Any) -> str:
    """Return a value as it may stand in a sentence."""
    text = readable(repr(value))
    return f"`{text[:40]}{'…' if len(text) > 40 else ''}`"
