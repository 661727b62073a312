"""A prompt that a visitor types: what the router of an assignment makes of it, where it runs here."""

import functools
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from persyn_hf.backends import routers
from persyn_hf.errors import InputError, PersynError
from persyn_hf.space.decisions import decisions
from persyn_hf.space.scene import Scene
from persyn_hf.store.stored import Stored


LONGEST = 20_000  # characters of a prompt
HEAVY = ("llm",)  # kinds of routers that are language models


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """The teachers by score for a prompt, best first. `confidence`: of prompts of a like lead; None: unknown."""

    teachers: list[tuple[str, float]]
    lead: float | None
    confidence: float | None


def can_try(scene: Scene) -> str:
    """Return "" where the router can be tried, else why it cannot."""
    router = scene.shelf.input(scene.assignment, "router")
    if router is None:
        return "no router belongs to this assignment, or it is not here"
    settings = router.manifest.settings
    needs_torch = settings.get("kind") in HEAVY or settings.get("features") == "embeddings"
    if needs_torch and not (importlib.util.find_spec("torch") and importlib.util.find_spec("transformers")):
        return "its router needs PyTorch, which this Space has not installed"
    if not (router.path / routers.FILE).is_file():
        return "only the record of its router is here, not its weights"
    return ""


def try_prompt(scene: Scene, text: str) -> Ranked:
    """Return the ranking of the teachers for a prompt.

    Raises:
        InputError: the router does not run here, or the prompt is empty or too long.
    """
    why_not = can_try(scene)
    if why_not:
        raise InputError(f"the router cannot be tried: {why_not}; look at the prompts that are stored")
    if not text.strip() or len(text) > LONGEST:
        raise InputError(f"a prompt of 1 to {LONGEST:,} characters is needed, this one has {len(text):,}; change it")
    router = scene.shelf.input(scene.assignment, "router")
    assert router is not None  # `can_try` found it
    model = _load(router)
    scores = model.scores([[{"role": "user", "content": text}]])[0]
    order = np.argsort(-scores, kind="stable")
    teachers = [(model.teachers[place], float(scores[place])) for place in order]
    lead = teachers[0][1] - teachers[1][1] if len(teachers) > 1 else None
    return Ranked(teachers=teachers, lead=lead, confidence=_confidence(scene, lead))


@functools.lru_cache(maxsize=2)
def _load(router: Stored) -> routers.Router:
    """Return a router from its folder, on the processor.

    Raises:
        InputError: its files are not what they should be.
    """
    try:
        return routers.load(Path(router.path), device="cpu")
    except PersynError:
        raise
    except (OSError, ValueError, KeyError, json.JSONDecodeError) as error:
        raise InputError(f"{router.ref} could not be loaded ({error}); fetch it again") from None


def _confidence(scene: Scene, lead: float | None) -> float | None:
    """Return the confidence of the stored prompt whose lead is nearest: it depends on nothing but the lead."""
    if lead is None:
        return None
    table = decisions(scene.database, scene.assignment, [])
    select = f"SELECT confidence FROM {table} WHERE confidence IS NOT NULL AND margin IS NOT NULL"
    rows = scene.database.rows(f"{select} ORDER BY abs(margin - ?) LIMIT 1", [lead])
    return rows[0][0] if rows else None
