"""What a recipe will do and cost, before it runs."""

from collections.abc import Mapping, Sequence

from persyn_hf.recipe import Recipe
from persyn_hf.report.tables import Table
from persyn_hf.store.manifest import Manifest


def forecast(
    recipe: Recipe, steps: Sequence[tuple[str, str]], states: Mapping[str, str], manifests: Mapping[str, Manifest]
) -> list[Table]:
    """The steps with their state, and the requests that each kind of strategy sends to the teachers."""
    requests = _requests(recipe, manifests)
    unknown = "" if requests else "what will be generated is known once `prompts` has run, or with `prompts.pool` set"
    table = Table(
        name="steps",
        title=f"Steps of {recipe.name}",
        header=["step", "stage", "state"],
        rows=[[key, stage, states[key]] for key, stage in steps],
        note=unknown,
    )
    return [table, requests] if requests else [table]


def _requests(recipe: Recipe, manifests: Mapping[str, Manifest]) -> Table | None:
    """(prompt, teacher) cells per strategy run alone; each is sampled `generate.samples` times."""
    sizes = {split: recipe.prompts.get(split) for split in ("calibration", "pool")}
    if "prompts" in manifests:
        sizes = {split: manifests["prompts"].counts.get(f"rows_{split}", 0) for split in sizes}
    if any(size is None for size in sizes.values()):
        return None
    num_teachers, calibration, pool = len(recipe.teachers), int(sizes["calibration"] or 0), int(sizes["pool"] or 0)
    everything = num_teachers * (calibration + pool)
    rows = []
    for strategy in recipe.strategies:
        if strategy.kind == "oracle":
            cells = everything
        elif strategy.kind in ("strong", "family_strong", "mix"):
            cells = calibration + pool
        else:
            cells = num_teachers * calibration + pool
        rows.append([strategy.name, f"{cells:,}", f"{everything:,}", f"{everything / max(1, cells):.1f}x"])
    return Table(
        name="requests",
        title=f"(prompt, teacher) cells to generate per strategy, were it run alone ({num_teachers} teachers)",
        header=["strategy", "cells", "generate-then-select", "fewer"],
        rows=rows,
        note="each cell is sampled `generate.samples` times; cells that strategies share are paid for once",
    )
