"""Probe a pool: ask a few hundred cells of the calibration prompts, and say whether routing is worth it.

The cells are asked by the ordinary stages, as the two rounds of a successive halving. The recipe that runs them is the
user's with `-probe` after its name, and ends with the scores of the first student. Prompts, seeds and settings are the
same, so the answers are those that the recipe itself would ask for, and it finds them in the journal.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from rich.console import Console

from persyn_hf.backends.routers import RouterSettings
from persyn_hf.backends.routers.cross_validation import FOLDS, coordinates, cross_validated
from persyn_hf.backends.routers.featured import texts_of
from persyn_hf.backends.routers.features import fit_features
from persyn_hf.core.arrays import BoolArray, FloatArray
from persyn_hf.core.probe import Probe, complete
from persyn_hf.core.probe import probe as find
from persyn_hf.core.rewards import reward_matrix
from persyn_hf.errors import InputError, RecipeError
from persyn_hf.recipe import names
from persyn_hf.recipe.recipe import Calibration, Recipe
from persyn_hf.recipe.strict import read_section
from persyn_hf.runner.preflight import preflight
from persyn_hf.runner.run import look_up, manifests_of, run_recipe
from persyn_hf.stages import train_router
from persyn_hf.store.local import Store, Stored


if TYPE_CHECKING:
    from datasets import Dataset

CELLS = 300  # that are asked by default
ROUNDS = 2  # after the first, every teacher on a few prompts, the hopeless ones are dropped
EACH = 10 * ROUNDS  # cells per teacher at least: the first round needs ten prompts
FEWEST = 5  # prompts that cross-validation can do anything with
ASKED = ("prompts", "assignments", "responses", "rewards")  # artifacts that the probe makes for itself


class Findings(NamedTuple):
    """What was asked, and what came out."""

    pool: list[str]
    cells: list[int]  # that each teacher was asked
    kept: list[bool]  # whether it was asked to the end
    found: Probe


def probe(recipe: Recipe, store: Store, console: Console, cells: int | None, worth: float) -> Findings:
    """Ask `cells` cells, those that are in the journal already for nothing, and judge the pool by them.

    Args:
        cells: by default `CELLS`, and more for a pool of over 15 teachers, as each needs `EACH`.
        worth: the gain in reward from which routing is worth it.

    Raises:
        PersynError: the user has something to mend, such as too few cells for the pool.
    """
    pool = [teacher.name for teacher in recipe.teachers]
    cells = max(CELLS, EACH * len(pool)) if cells is None else cells
    if cells < EACH * len(pool):
        raise RecipeError(
            f"--cells {cells} is too few for {len(pool)} teachers, of which each is asked {EACH} prompts or more "
            f"before one is dropped; take at least --cells {EACH * len(pool)}"
        )
    first = _derive(recipe, "prompts")
    preflight(recipe, [item.step for item in look_up(recipe, store) if item.stored is None], store).refuse()
    drawn = run_recipe(first, store, console)[-1].stored
    assert drawn is not None  # the step ran
    number = drawn.manifest.counts.get("rows_calibration", 0) * len(pool)
    derived = _derive(recipe, "score", _calibration(cells, number))
    done = run_recipe(derived, store, console)
    stored = {item.step.key: item.stored for item in done if item.stored is not None}
    asked = _asked(manifests_of(derived, store, done)[names.matrix_assignments()].metrics, pool, number)
    kept = asked >= asked.max() - 1  # a round's cells may end within a prompt
    conversations, rewards = _rewards(store, drawn, stored[names.matrix_rewards(recipe.students[0])], pool)
    found = _judge(recipe, conversations, rewards, kept, worth)
    return Findings(pool, asked.tolist(), kept.tolist(), found)


def _derive(recipe: Recipe, until: str, calibration: Calibration | None = None) -> Recipe:
    """Return the recipe that asks the cells: without dev and pool, strategies, and all that comes after the scores."""
    for name in recipe.inputs:
        if name.partition("-")[0] in ASKED:
            raise RecipeError(
                f"`inputs` pins `{name}`, and a probe draws and asks prompts of its own; leave the pin out, or probe "
                "with --set inputs={}"
            )
    own: dict[str, Any] = {
        "name": f"{recipe.name}-probe",
        "version": None,
        "until": until,
        "students": recipe.students[:1],
        "strategies": (),
        "inputs": {},
        "calibration": calibration or Calibration(),
        "prompts": {**recipe.prompts, "dev": 0, "pool": 0},
    }
    return recipe.model_copy(update=own)


def _calibration(cells: int, number: int) -> Calibration:
    """Return the rounds that ask `cells` of `number` cells in all; every cell where there are no more."""
    if cells >= number:
        return Calibration()
    return Calibration(strategy="successive_halving", share=cells / number, rounds=ROUNDS)


def _asked(metrics: dict[str, Any], pool: list[str], number: int) -> np.ndarray:
    """Return how many cells each teacher was asked; all of them where no part was chosen."""
    if "labelling" not in metrics:
        return np.full(len(pool), number // len(pool))
    return np.array([metrics["labelling"]["cells"][name] for name in pool])


def _rewards(store: Store, prompts: Stored, rewards: Stored, pool: list[str]) -> tuple[list[Any], FloatArray]:
    """Return the conversations that have rewards, and their reward matrix (N, n)."""
    ids, matrix = reward_matrix(store.read_dataset(rewards)[:], pool, None)
    rows: Dataset = store.read_dataset(prompts)
    messages = dict(zip(rows["prompt_id"][:], rows["messages"][:], strict=True))
    return [messages[prompt_id] for prompt_id in ids], matrix


def _judge(recipe: Recipe, conversations: list[Any], rewards: FloatArray, kept: BoolArray, worth: float) -> Probe:
    """Cross-validate the cheap routers, over the recipe's encoder if it has one, and find what they gain."""
    given = read_section(train_router.Settings, recipe.train_router, "train_router")
    features = "embeddings" if given.encoder else "tfidf"
    settings: RouterSettings = given.model_copy(update={"kind": "ridge", "features": features})
    rows = complete(rewards, kept)
    if rows.sum() < FEWEST:
        raise InputError(
            f"{rows.sum()} prompts have rewards of all teachers that were kept, at least {FEWEST} are needed; raise "
            "--cells, or look for failures in the rewards"
        )
    texts = texts_of([conversation for conversation, whole in zip(conversations, rows, strict=True) if whole])
    points = coordinates(fit_features(settings, texts).transform(texts))
    rng = np.random.default_rng(recipe.seed)
    scores = cross_validated(points, rewards[rows][:, kept], settings, rng)
    return find(rewards, kept, scores, points @ points.T, FOLDS, worth, rng)
