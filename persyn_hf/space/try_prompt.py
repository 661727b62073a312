"""A prompt that a visitor types: what the router of an assignment makes of it, where it runs here."""

import importlib.util
import json
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from persyn_hf.backends import routers
from persyn_hf.errors import InputError
from persyn_hf.space.decisions import decisions
from persyn_hf.space.scene import Scene
from persyn_hf.store.stored import Stored


LONGEST = 20_000  # characters of a prompt
ALIKE = 25  # stored prompts with a like lead
_loaded: dict[tuple[Path, float | None], routers.Router] = {}  # the one that was tried last
_loading = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """The teachers by their scores for a prompt, the best first.

    `confidence`: that of the stored prompt with the nearest lead; None: unknown. `alike`: the least and the largest
    lead of the stored prompts of the split that go to the same teacher by a lead like this; None: there are none.
    """

    teachers: list[tuple[str, float]]
    lead: float | None
    confidence: float | None
    alike: tuple[float, float] | None


def can_try(scene: Scene) -> str:
    """Return "" where the router can be tried, else why it cannot."""
    router = scene.shelf.input(scene.assignment, "router")
    if router is None:
        return "no router belongs to this assignment, or it is not here"
    if not (router.path / routers.FILE).is_file():
        return "only the record of its router is here, not its weights"
    if _needs_torch(router) and not all(map(importlib.util.find_spec, ("torch", "transformers"))):
        return "its router needs PyTorch, which is not installed here"
    return ""


def try_prompt(scene: Scene, text: str) -> Ranked:
    """Return the ranking of the teachers for a prompt.

    Raises:
        InputError: the router does not run here, or the prompt is empty or too long.
        DamagedArtifact: a file of the router is not what its manifest says.
    """
    why_not = can_try(scene)
    if why_not:
        raise InputError(f"the router cannot be tried: {why_not}; look at the prompts that are stored")
    if not text.strip() or len(text) > LONGEST:
        raise InputError(f"a prompt of 1 to {LONGEST:,} characters is needed, this one has {len(text):,}; change it")
    router = scene.shelf.input(scene.assignment, "router")
    assert router is not None  # `can_try` found it
    model = _load(router, scene.assignment.manifest.settings.get("alpha"))
    scores = model.scores([[{"role": "user", "content": text}]])[0]
    ranked = [(model.teachers[place], float(scores[place])) for place in np.argsort(-scores, kind="stable")]
    teachers = [(name, score) for name, score in ranked if name in scene.pool]
    lead = teachers[0][1] - teachers[1][1] if len(teachers) > 1 else None
    confidence, alike = _like_it(scene, teachers[0][0], lead)
    return Ranked(teachers=teachers, lead=lead, confidence=confidence, alike=alike)


def _needs_torch(router: Stored) -> bool:
    """Tell whether a router is, or reads, a language model."""
    try:
        saved = json.loads((router.path / routers.FILE).read_text(encoding="utf-8"))
    except ValueError:
        return False  # loading it says what is wrong
    return isinstance(saved, dict) and (saved.get("kind") == "llm" or saved.get("features") == "embeddings")


def _load(router: Stored, alpha: float | None) -> routers.Router:
    """Return a router from its folder, on the processor, once its files were compared with their digests."""
    with _loading:
        key = (router.path, alpha)
        if key not in _loaded:
            router.check(as_written=False)
            model = routers.load(router.path, device="cpu", alpha=alpha)
            _loaded.clear()
            _loaded[key] = model
        return _loaded[key]


def _like_it(scene: Scene, teacher: str, lead: float | None) -> tuple[float | None, tuple[float, float] | None]:
    """Return `confidence` and `alike` of `Ranked`: confidence depends on nothing but the lead."""
    if lead is None:
        return None, None
    table = decisions(scene.database, scene.assignment, [])
    select = f"SELECT confidence FROM {table} WHERE confidence IS NOT NULL AND margin IS NOT NULL"
    known = scene.database.rows(f"{select} ORDER BY abs(margin - ?) LIMIT 1", [lead])
    near = (
        f"SELECT margin FROM {table} WHERE teacher = $1 AND margin IS NOT NULL AND $2 IN ('', split) "
        f"ORDER BY abs(margin - $3) LIMIT {ALIKE}"
    )
    low, high = scene.database.rows(f"SELECT min(margin), max(margin) FROM ({near})", [teacher, scene.split, lead])[0]
    return (known[0][0] if known else None), (None if low is None else (low, high))
