"""Stage `generate`: assigned (prompt, teacher) cells in, sampled and verified responses out (PerSyn, appendix A.1).

Calibration and pool are the same stage with other assignments. Every answer is journalled raw before it is parsed;
what comes out is cut from the journal, so it does not depend on where a run was killed.
"""

import hashlib
import importlib.metadata
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from persyn_hf.backends.chat import Dtype, split_reasoning
from persyn_hf.backends.engines import Engine, Request, Sampling, journalled, seed_from
from persyn_hf.backends.engines.imported import read_responses, to_samples
from persyn_hf.backends.engines.samples import Sample, count, measure, select, to_row
from persyn_hf.backends.engines.transformers import TransformersEngine
from persyn_hf.backends.journal import Entry, Journal
from persyn_hf.backends.verifier import Verifier
from persyn_hf.core.cost import generation_flops
from persyn_hf.errors import InputError, RecipeError
from persyn_hf.recipe import Strict, Teacher
from persyn_hf.schemas import ASSIGNMENTS, PROMPTS, RESPONSES
from persyn_hf.stage import Context, Progress, Result


if TYPE_CHECKING:
    from datasets import Dataset


INPUTS = {"prompts": PROMPTS, "assignments": ASSIGNMENTS}
OUTPUT = RESPONSES

FEW_SAMPLES = 2  # appendix A.1: teachers of 72B and over and Long-CoT teachers are sampled twice
LARGE_B = 72
GRADED_AT_A_TIME = 512


class Columns(Strict):
    """Columns of an imported table of responses."""

    prompt: str = "prompt"
    teacher: str = "teacher"
    response: str = "response"
    quality: str | None = None
    is_correct: str | None = None


class Settings(Strict):
    """How teachers are asked."""

    engine: Literal["transformers", "import"] = "transformers"
    samples: int = Field(default=4, ge=1)  # per cell; at most 2 of large and Long-CoT teachers; 1 at temperature 0
    temperature: float = Field(default=0.6, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=2048, ge=1)
    batch_tokens: int = Field(default=32768, ge=1)  # rows x (prompt + max_tokens) of one batch
    dtype: Dtype = "auto"
    device: str = "auto"
    max_error_rate: float = Field(default=0.5, ge=0, le=1)  # of one teacher's requests
    rerun_errors: bool = False  # ask again where the journal holds an error
    verify: Literal["math", "none"] = "math"
    verify_timeout_s: float = Field(default=5.0, gt=0)  # per response
    path: str | None = None  # import: .parquet, .jsonl or .csv
    columns: Columns = Columns()

    @model_validator(mode="after")
    def _consistent(self) -> "Settings":
        if (self.engine == "import") != (self.path is not None):
            needs = "needs" if self.engine == "import" else "knows no"
            raise ValueError(f"engine `{self.engine}` {needs} `path`, the table of responses")
        return self


def run(settings: Settings, context: Context, prompts: "Dataset", assignments: "Dataset") -> Result:
    """Ask one teacher after another, verify, and select one sample of each cell.

    Rows come out by teacher (in the order of the pool), then prompt, then sample_index.
    """
    from datasets import concatenate_datasets

    cells = _cells(prompts, assignments, context.teachers)
    imported = _read_import(settings, context.teachers)
    workers = min(8, os.cpu_count() or 1)
    data, counts, metrics, cost = [], Counter[str](), {}, {}
    with (
        Journal(context.journal or context.work_dir / "journal.sqlite") as journal,
        Verifier(workers, settings.verify_timeout_s) as verifier,
    ):
        for teacher in context.teachers:
            asked = cells.get(teacher.name, [])
            if not asked:
                continue
            if imported is None:
                samples, cost[teacher.name] = _ask(settings, context, journal, teacher, asked)
            else:
                samples = to_samples(imported, teacher.name, asked)
            errors = [sample.entry.error for sample in samples]
            journalled.check_errors(errors, len(samples), teacher.name, settings.max_error_rate)
            samples = _grade(settings, context.progress, journal, verifier, samples)
            samples = select(samples, f"{context.seed}/{teacher.name}")
            counts.update(count(samples))
            metrics[teacher.name] = measure(samples)
            data.append(OUTPUT.dataset([to_row(teacher.name, sample) for sample in samples]))
    names = ("requested", "answered", "errors", "truncated", "correct", "unjudged")
    return Result(
        data=concatenate_datasets(data) if data else OUTPUT.dataset([]),
        counts={name: counts[name] for name in names},
        metrics={"teachers": metrics},
        cost={"teachers": cost},
    )


def _cells(
    prompts: "Dataset", assignments: "Dataset", teachers: Sequence[Teacher]
) -> dict[str, list[Mapping[str, Any]]]:
    """Prompts of each teacher, in prompt order."""
    pool = [teacher.name for teacher in teachers]
    wanted = list(zip(assignments["prompt_id"], assignments["teacher"], strict=True))
    known = set(prompts["prompt_id"])
    for prompt, name in wanted:
        if name not in pool:
            raise InputError(f"the assignments name the teacher `{name}`, the pool holds {', '.join(pool)}; add it")
        if prompt not in known:
            raise InputError(f"the assignments name the prompt {prompt}, which is not among the prompts; assign anew")
    assigned: dict[str, set[str]] = {}
    for prompt, name in wanted:
        assigned.setdefault(prompt, set()).add(name)
    cells: dict[str, list[Mapping[str, Any]]] = {name: [] for name in pool}
    for row in prompts:
        for name in assigned.get(row["prompt_id"], ()):
            cells[name].append(row)
    return cells


def _ask(
    settings: Settings, context: Context, journal: Journal, teacher: Teacher, prompts: Sequence[Mapping[str, Any]]
) -> tuple[list[Sample], dict[str, Any]]:
    """Answers of one teacher, from the journal where it has them, and what they cost."""
    if teacher.model is None:
        raise RecipeError(
            f"the teacher `{teacher.name}` has no `model`; name one, "
            "or import its responses with `generate.engine: import`"
        )
    with TransformersEngine(
        teacher.model,
        teacher.revision,
        batch_tokens=settings.batch_tokens,
        dtype=settings.dtype,
        device=settings.device,
        system_prompt=teacher.system_prompt,
    ) as engine:
        requests = [request for row in prompts for request in _requests(settings, context.seed, engine, teacher, row)]
        new = journalled.answer(
            requests,
            engine,
            journal,
            context.progress,
            teacher=teacher.name,
            batch_tokens=settings.batch_tokens,
            max_error_rate=settings.max_error_rate,
            rerun_errors=settings.rerun_errors,
        )
        params_b = teacher.params_b or engine.params_b
    entries = journal.read(request.key for request in requests)
    rows = {row["prompt_id"]: row for row in prompts}
    samples = []
    for request in requests:
        entry = entries[request.key]
        response, reasoning = split_reasoning(entry.text, request.prompt.text)
        prompt = rows[request.prompt_id]
        samples.append(
            Sample(prompt=prompt, index=request.sample_index, entry=entry, response=response, reasoning=reasoning)
        )
    return samples, _cost(list(entries.values()), new, params_b)


def _requests(
    settings: Settings, seed: int, engine: Engine, teacher: Teacher, prompt: Mapping[str, Any]
) -> list[Request]:
    """The samples asked of one cell. Greedy answers depend on no seed, so they are shared by runs of any seed."""
    prepared = engine.prepare(prompt["messages"])
    greedy = settings.temperature == 0
    sampling = Sampling(
        temperature=settings.temperature,
        top_p=1.0 if greedy else settings.top_p,
        top_k=0,
        max_tokens=settings.max_tokens,
        seed=0,
    )
    return [
        Request(
            prompt_id=prompt["prompt_id"],
            model=engine.model,
            engine=engine.kind,
            sample_index=index,
            prompt=prepared,
            sampling=sampling if greedy else replace(sampling, seed=seed_from(seed, prompt["prompt_id"], index)),
        )
        for index in range(1 if greedy else num_samples(settings, teacher))
    ]


def num_samples(settings: Settings, teacher: Teacher) -> int:
    """Responses per cell: the teacher's own number, else the paper's rule; 1 where decoding is greedy."""
    if settings.temperature == 0:
        return 1
    if teacher.samples is not None:
        return teacher.samples
    few = teacher.long_cot or (teacher.params_b or 0) >= LARGE_B
    return min(settings.samples, FEW_SAMPLES) if few else settings.samples


def _read_import(settings: Settings, teachers: Sequence[Teacher]) -> dict[tuple[str, str], Any] | None:
    """The imported table by (prompt_id, teacher); it may name a teacher or its model. None: nothing is imported."""
    if settings.path is None:
        return None
    imported = read_responses(Path(settings.path), settings.columns.model_dump())
    names = {teacher.model: teacher.name for teacher in teachers} | {
        teacher.name: teacher.name for teacher in teachers
    }
    found = sorted({teacher for _, teacher in imported})
    if not set(names) & set(found):
        raise InputError(
            f"{settings.path} holds responses of {', '.join(found[:5])}, but none of the recipe's teachers "
            f"({', '.join(teacher.name for teacher in teachers)}); name the teachers, or their models, as column "
            f"`{settings.columns.teacher}` does"
        )
    return {(prompt, names.get(teacher, teacher)): rows for (prompt, teacher), rows in imported.items()}


def _grade(
    settings: Settings, progress: Progress, journal: Journal, verifier: Verifier, samples: list[Sample]
) -> list[Sample]:
    """Judge what has a reference and no verdict yet; verdicts are kept in the journal."""
    if settings.verify == "none":
        return samples
    grader = f"math-verify {importlib.metadata.version('math-verify')}, {settings.verify_timeout_s} s"
    open_rows = [
        row
        for row, sample in enumerate(samples)
        if sample.prompt["reference"] is not None and sample.entry.error is None and sample.is_correct is None
    ]
    if open_rows:
        progress.start("verify", len(open_rows))
    judged = list(samples)
    for start in range(0, len(open_rows), GRADED_AT_A_TIME):
        rows = open_rows[start : start + GRADED_AT_A_TIME]
        pairs = [(str(samples[row].prompt["reference"]), samples[row].response) for row in rows]
        keys = [hashlib.sha256(json.dumps([grader, *pair]).encode()).hexdigest() for pair in pairs]
        known = journal.recall(keys)
        todo = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in known}
        fresh = dict(zip(todo, verifier.grade(list(todo.values())), strict=True))
        journal.keep(fresh)
        for row, key in zip(rows, keys, strict=True):
            judged[row] = replace(samples[row], is_correct={**known, **fresh}[key])
        progress.advance(len(rows))
    return judged


def _cost(entries: Sequence[Entry], new: int, params_b: float | None) -> dict[str, Any]:
    """What this step's answers have cost, whenever they were paid for; `new` ones were generated by this run."""
    prompt_tokens = sum(entry.num_prompt_tokens for entry in entries if entry.error is None)
    completion_tokens = sum(entry.num_tokens for entry in entries)
    return {
        "requests": len(entries),
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "seconds": sum(entry.seconds for entry in entries),
        "flops": None if params_b is None else generation_flops(params_b, prompt_tokens + completion_tokens),
        "new": new,
        "reused": len(entries) - new,
    }
