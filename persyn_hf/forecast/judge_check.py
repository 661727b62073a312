"""`persyn judge-check`: does the judge of a recipe agree with verdicts that are known?

The rows of a file are judged as a run judges answers, through the same journal. Several answers to one prompt are
compared with one another; in `mode: pairwise` nothing else can be compared.
"""

import math
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from persyn_hf.backends.judging.rubrics import read_rubric
from persyn_hf.backends.source_cells import read_prompt
from persyn_hf.backends.source_rows import rows_of_file
from persyn_hf.core.statistics import Interval
from persyn_hf.core.verdict_agreement import Agreement, verdict_agreement
from persyn_hf.errors import InputError, RecipeError
from persyn_hf.recipe.recipe import Recipe
from persyn_hf.recipe.strict import nearest
from persyn_hf.report.tables import Table
from persyn_hf.runner.payees import check_judges, check_prices, payees_of
from persyn_hf.runner.plan import make_plan
from persyn_hf.runner.step import Step
from persyn_hf.schemas import prompt_id
from persyn_hf.stage import Context, Limits, Progress
from persyn_hf.stages.score.criteria import Judged, Quality
from persyn_hf.stages.score.judging import judge
from persyn_hf.store.local import Store


# The columns of a file, where no other is named: the first that is there.
COLUMNS = {
    "prompt": ("prompt", "messages", "question", "instruction"),
    "response": ("response", "answer", "output", "completion"),
    "verdict": ("verdict", "score", "rating", "label", "is_correct", "preference"),
    "reference": ("reference",),
}
WORDS = {"true": 1.0, "false": 0.0, "right": 1.0, "wrong": 0.0, "yes": 1.0, "no": 0.0}
FEW = 50  # rows with both verdicts; with fewer, intervals span nearly everything


@dataclass(frozen=True, kw_only=True)
class Known:
    """A row of the file: an answer and the verdict that is known of it."""

    judged: Judged
    verdict: float


@dataclass(frozen=True, kw_only=True)
class Check:
    """What a check has found."""

    rows: int  # that were judged
    skipped: int  # rows of the file that hold no prompt, answer or verdict
    unread: int  # answers to which the judge gave no verdict
    quality: Quality
    agreement: Agreement
    within: bool  # only answers to the same prompt are compared


def check_judge(
    recipe: Recipe,
    path: Path,
    store: Store,
    number: int,
    columns: Mapping[str, str | None],
    progress: Progress,
    limits: Limits,
) -> Check:
    """Have the judge of a recipe judge some rows of a file, and compare.

    Args:
        number: rows at most; whole prompts are drawn by the recipe's seed.
        columns: the column of each of `COLUMNS`, where it has another name.

    Raises:
        InputError: the file cannot be read, lacks a column, or holds no row with a verdict.
        RecipeError: the recipe has no judge, or it cannot be asked.
    """
    steps = [step for step in make_plan(recipe) if step.stage == "score"]
    step, settings = _judging(steps)
    check_judges([step])
    check_prices(recipe, [step], limits)
    rubric = read_rubric(settings.rubric, settings.mode, settings.scale)
    found = list(_known(path, columns, rubric.needs_reference))
    rows = _draw([row for row in found if row is not None], number, step.seed)
    if not rows:
        raise InputError(
            f"{path}: none of its {len(found)} rows has a prompt, an answer and a verdict; nothing to check"
        )
    with store.lock(), tempfile.TemporaryDirectory() as folder:
        context = Context(
            seed=step.seed,
            work_dir=Path(folder),
            journal=store.journal,
            recipe=recipe.full_name,
            limits=limits,
            payees=payees_of(make_plan(recipe), limits),
            progress=progress,
        )
        quality = judge(settings, context, [row.judged for row in rows])
    within = settings.mode == "pairwise"
    pairs = [(row, value) for row, value in zip(rows, quality.values, strict=True) if value is not None]
    binary = {row.verdict for row in rows} <= {0.0, 1.0}
    agreement = verdict_agreement(
        [row.verdict for row, _ in pairs],
        [value for _, value in pairs],
        [row.judged.prompt["prompt_id"] for row, _ in pairs],
        np.random.default_rng(step.seed),
        within=within,
        middle=sum(rubric.scale) / 2 if binary and not within else None,
    )
    return Check(
        rows=len(rows),
        skipped=found.count(None),
        unread=len(rows) - len(pairs),
        quality=quality,
        agreement=agreement,
        within=within,
    )


def check_table(check: Check) -> Table:
    """Make the table of a check: a row per measure, with its 95 % interval."""
    found, among = check.agreement, "two answers to one prompt" if check.within else "two answers"
    lines = [
        (
            "right order",
            found.ordered,
            f"of {among} the better gets more; a tie is half",
        ),
        ("Kendall's tau-b", found.tau, "1: the same order, 0: none of it"),
        ("accuracy", found.accuracy, "above the middle of the scale is right"),
        ("Cohen's kappa", found.kappa, "accuracy beyond chance; 0 is chance"),
    ]
    rows = [[name, *_cells(value), meaning] for name, value, meaning in lines if value is not None]
    notes = [f"{check.rows - check.unread:,} of {check.rows:,} answers have a verdict"]
    if check.skipped:
        notes.append(f"{check.skipped:,} rows hold no prompt, answer or verdict")
    if check.rows - check.unread < FEW:
        notes.append(f"fewer than {FEW}: little can be said")
    for name, place in check.quality.metrics.get("position", {}).items():
        if place["pairs"]:
            notes.append(f"{name}: both orders agree in {place['consistent']:.0%} of {place['pairs']:,} pairs")
    alpha = check.quality.metrics.get("agreement", {}).get("alpha")
    if alpha is not None:
        notes.append(f"Krippendorff's alpha of the panel {alpha:.3f}")
    return Table(
        name="judge_check",
        title="The judge against verdicts that are known",
        header=["measure", "value", "95 % interval", "meaning"],
        rows=rows,
        note="; ".join(notes),
    )


def _cells(value: Interval) -> list[str]:
    if math.isnan(value.value):
        return ["–", "–"]
    return [f"{value.value:.3f}", f"{value.low:.3f} to {value.high:.3f}"]


def _judging(steps: Sequence[Step]) -> tuple[Step, Any]:
    """Return a step of `score` that a judge judges, and the judge's settings."""
    for step in steps:
        settings = getattr(step.settings, "judge", None)
        if settings is not None:
            return step, settings
    raise RecipeError("the recipe has no judge to check; set `score: {quality: judge, judge: {model: ...}}`")


def _known(path: Path, names: Mapping[str, str | None], with_reference: bool) -> Iterator[Known | None]:
    """Yield the rows of a file; None for one that holds no prompt, answer or verdict."""
    needed = [key for key in COLUMNS if key != "reference" or with_reference]
    chosen: dict[str, str] = {}

    def choose(present: Sequence[str]) -> list[str]:
        for key in needed:
            wanted = names.get(key)
            found = next((name for name in ((wanted,) if wanted else COLUMNS[key]) if name in present), None)
            if found is None:
                lacking = f"`{wanted}`{nearest(wanted, present)}" if wanted else " or ".join(COLUMNS[key])
                hint = "" if wanted else f"; name it by --{key} (there are: {', '.join(present)})"
                raise InputError(f"{path} has no column {lacking}{hint}")
            chosen[key] = found
        return list(chosen.values())

    for row in rows_of_file(path, "judge-check", choose):
        messages, answer = read_prompt(row, chosen["prompt"]), row.get(chosen["response"])
        verdict = _verdict(row.get(chosen["verdict"]))
        if isinstance(messages, str) or not isinstance(answer, str) or not answer.strip() or verdict is None:
            yield None
            continue
        reference = row.get(chosen["reference"]) if with_reference else None
        prompt = {
            "prompt_id": prompt_id(messages),
            "messages": messages,
            "reference": None if reference is None else str(reference),
        }
        yield Known(judged=Judged(prompt, {"response": answer}, None), verdict=verdict)


def _verdict(cell: Any) -> float | None:
    """Read a verdict that is known: a number, true or false, or a word for these; None for anything else."""
    if isinstance(cell, str):
        word = cell.strip().lower()
        try:
            cell = WORDS[word] if word in WORDS else float(word)
        except ValueError:
            return None
    if not isinstance(cell, bool | int | float) or not math.isfinite(cell):
        return None
    return float(cell)


def _draw(rows: Sequence[Known], number: int, seed: int) -> list[Known]:
    """Draw prompts with all their rows, while these are `number` at most; rows stay in the order of the file."""
    sizes: dict[str, int] = {}
    for row in rows:
        name = row.judged.prompt["prompt_id"]
        sizes[name] = sizes.get(name, 0) + 1
    order = sorted(sizes)
    random.Random(seed).shuffle(order)
    kept, left = set[str](), number
    for name in order:
        if sizes[name] <= left:
            kept.add(name)
            left -= sizes[name]
    return [row for row in rows if row.judged.prompt["prompt_id"] in kept]
