"""The data of the pages by Gradio's API, for programs: `Client(SPACE).predict(..., api_name="/prompts")`.

Every argument but a prompt may be null or left out, which stands for what the first page shows.
"""

from typing import Any
from urllib.parse import parse_qs

from persyn_hf.space.allocation import allocate
from persyn_hf.space.events import Desk
from persyn_hf.space.explorer import find
from persyn_hf.space.prompt import open_prompt
from persyn_hf.space.scene import Scene
from persyn_hf.space.try_prompt import try_prompt
from persyn_hf.space.views.prompts import filter_of


MANY = 1000  # prompts of one answer


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
        found = find(scene.database, scene.assignment, filter_of(scene), int(page or scene.state["page"]), MANY)
        return {"total": found.total, "page": found.number, "pages": found.last, "rows": found.rows}

    def prompt(self, prompt_id: str, address: str | None = None) -> dict[str, Any]:
        """Return one prompt: its turns, its reference, and what each teacher scored and answered."""
        scene = self._scene(address)
        found = open_prompt(scene.database, scene.assignment, str(prompt_id or ""))
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
        found = try_prompt(self._scene(address), str(prompt or ""))
        return {"teachers": found.teachers, "lead": found.lead, "confidence": found.confidence}

    def _scene(self, address: str | None) -> Scene:
        """Return the scene of an address; what is wrong with it is left out."""
        query = parse_qs(
            str(address or "").partition("?")[2] or str(address or "").lstrip("?"), keep_blank_values=True
        )
        return self._desk.scene(self._desk.read(query)[0])
