"""Look up which samples a run would have to pay for: neither in the journal, nor under way in batches."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from persyn_hf.backends.engines.batch.notes import Notes
from persyn_hf.backends.engines.open_engine import open_local
from persyn_hf.backends.journal_reading import JournalReader
from persyn_hf.core.arrays import IntArray
from persyn_hf.errors import PersynError
from persyn_hf.forecast.cells import Cells
from persyn_hf.recipe.roles import Teacher
from persyn_hf.runner.fingerprint import described
from persyn_hf.stages.generate import Settings, num_samples
from persyn_hf.stages.generate.requests import cell_requests
from persyn_hf.stages.generate.settings import engine_options


if TYPE_CHECKING:
    from datasets import Dataset


def count_missing(
    cells: Cells,
    settings: Settings,
    seed: int,
    teachers: Sequence[Teacher],
    journal: JournalReader,
    prompts: "Dataset",
    notes: list[str],
) -> tuple[IntArray, IntArray, IntArray]:
    """Count samples per cell (P, n): to pay for, of these asked at once whatever is right, and under way.

    The second differs with `stop_when_correct`, which asks the next sample only where none is right so far. Of a
    teacher that cannot be looked up nothing is certain. What is under way in batches is paid for, though the journal
    lacks it.
    """
    missing = np.tile([num_samples(settings, teacher) for teacher in teachers], (len(cells.ids), 1)).astype(np.int64)
    first = np.minimum(missing, 1) if settings.stop_when_correct else missing.copy()
    under_way = np.zeros_like(missing)
    touched = cells.certain | (cells.further > 0)[:, None] | cells.in_rounds
    for column, teacher in enumerate(teachers):
        rows = np.flatnonzero(touched[:, column])
        try:
            found, sent = _look_up(settings, seed, teacher, journal, prompts, cells, rows, notes)
        except PersynError as error:
            notes.append(f"{teacher.name} cannot be looked up in the journal: {error}")
            first[:, column] = 0
            continue
        for row, open_samples in found.items():
            missing[row, column] = len(open_samples)
            under_way[row, column] = sent[row]
            first[row, column] = int(0 in open_samples) if settings.stop_when_correct else len(open_samples)
    for column, earlier in _same_models(teachers).items():  # the journal has their answers once
        shared = cells.certain[:, column] & cells.certain[:, earlier].any(axis=1)
        more = max(
            0, num_samples(settings, teachers[column]) - max(num_samples(settings, teachers[e]) for e in earlier)
        )
        missing[shared, column] = np.minimum(missing[shared, column], more)
        first[shared, column] = 0
    return missing, first, under_way


def _same_models(teachers: Sequence[Teacher]) -> dict[int, list[int]]:
    """Return, for each teacher (its place) that is the same model as earlier ones, the places of these."""
    own = {"name", "family", "params_b", "long_cot", "samples"}
    models = [{key: value for key, value in described(teacher).items() if key not in own} for teacher in teachers]
    same = {column: [e for e in range(column) if models[e] == models[column]] for column in range(len(models))}
    return {column: earlier for column, earlier in same.items() if earlier}


def _look_up(
    settings: Settings,
    seed: int,
    teacher: Teacher,
    journal: JournalReader,
    prompts: "Dataset",
    cells: Cells,
    rows: Sequence[int] | IntArray,
    notes: list[str],
) -> tuple[dict[int, list[int]], dict[int, int]]:
    """Return the samples to pay for, and how many are under way, by the prompts (rows) of which anything is known.

    `notes` gets a sentence where batches hold answers that this engine does not collect.
    """
    batches = [note for note in Notes.beside(journal.path) if note.model == teacher.model]
    if teacher.model is None or (journal.is_empty and not batches):  # then no tokenizer need be loaded
        return {}, {}
    options = engine_options(settings, teacher)
    with open_local(**options, log_dir=Path(), state_dir=Path()) as engine:
        known = journal.prompts_of(engine.model)
        asked = [int(row) for row in rows if batches or cells.ids[row] in known]
        requests = {row: cell_requests(settings, seed, engine, teacher, prompts[row]) for row in asked}
        sent = {key for note in batches if note.service == engine.collects_from for key in note.keys}
        elsewhere = {key for note in batches for key in note.keys} - sent
    everything = [request for some in requests.values() for request in some]
    there = journal.answered((r.key for r in everything), errors="errors" not in settings.rerun)
    if "truncated" in settings.rerun:
        there |= journal.finished_shorter([request for request in everything if request.key not in there])
    if twice := len({request.key for request in everything} & elsewhere - there):
        notes.append(f"{twice:,} answers of {teacher.name} are under way in batches that its engine does not collect")
    left = {row: [request for request in some if request.key not in there] for row, some in requests.items()}
    to_pay = {row: [request.sample_index for request in some if request.key not in sent] for row, some in left.items()}
    return to_pay, {row: len(some) - len(to_pay[row]) for row, some in left.items()}
