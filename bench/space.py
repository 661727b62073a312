"""Time and memory of the Space on large artifacts: `python bench/space.py [--rows N ...]`.

Made by this script for 10K, 100K and 1M prompts: an assignment with the scores of 15 teachers, prompts, the rewards
of all 15 teachers (15M rows at 1M prompts), and the answers of the chosen ones. Each size is measured in three fresh
processes, of which the median counts (of memory the most), as a visitor meets it: the first view; the list of
prompts, opened instead of it; the first filter by rewards, which reads them all; later filters; a search in the text;
a page far behind; one prompt opened; the first sight of the slider, which draws its sample; a move of it; the router.

Bounds at the largest size: what is only looked up (the first view, later filters, a move) within 2, 1 and 0.2 s; what
reads a column of all rewards (the list, one prompt, the first slider) within 4 s, and the first filter, which joins
them, within 6 s; the peak of resident memory, libraries and all, within 530 MB. Growth: none of them takes more than
ten times as long for ten times the rows.
"""

import argparse
import gc
import json
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from persyn_hf.contract import Schema
from persyn_hf.schemas import ASSIGNMENTS, PROMPTS, RESPONSES, REWARDS
from persyn_hf.space.collection import Shelf
from persyn_hf.store.manifest import Input, Manifest
from persyn_hf.store.stored import Stored


TEACHERS = 15
RUNS = 3
BLOCK = 20_000  # prompts written together
SIZES = (10_000, 100_000, 1_000_000)
WORDS = np.array(
    ["how", "many", "apples", "does", "Sam", "have", "if", "Tom", "gives", "seven", "and", "takes", "half"]
)
BOUNDS = {"first view": 2.0, "list": 4.0, "first filter": 6.0, "filter": 1.0, "open": 4.0}
BOUNDS |= {"first what if": 4.0, "what if": 0.2}
MEMORY = 530 * 2**20


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=list(SIZES))
    sizes = sorted(parser.parse_args().rows)
    found: dict[int, dict[str, float]] = {}
    context = multiprocessing.get_context("spawn")
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            runs = []
            for target in (make, *[measure] * RUNS):
                process = context.Process(target=target, args=(Path(folder), size))
                process.start()
                process.join()
                if process.exitcode:
                    return 2
                if target is measure:
                    runs.append(json.loads((Path(folder) / "found.json").read_text()))
            found[size] = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
            found[size]["memory"] = max(run["memory"] for run in runs)
        words = ", ".join(f"{name} {value:.2f} s" for name, value in found[size].items() if name != "memory")
        print(
            f"{size:>9,} x {TEACHERS}: {words}; {found[size]['memory'] / 2**20:,.0f} MB resident at most", flush=True
        )
    largest = found[sizes[-1]]
    lines = [(f"space_{name.replace(' ', '_')}", bound / largest[name]) for name, bound in BOUNDS.items()]
    lines.append(("space_memory", MEMORY / largest["memory"]))
    for smaller, larger in zip(sizes[-2:], sizes[-1:], strict=False):
        for name in BOUNDS:
            grown = found[larger][name] / found[smaller][name]
            lines.append((f"space_growth_{name.replace(' ', '_')}", larger / smaller / grown))
    for name, ratio in lines:
        print(f"{name} ratio={ratio:.2f} need=1.0")
    return int(any(ratio < 1 for _, ratio in lines))


def measure(folder: Path, size: int) -> None:
    from persyn_hf.space.events import Desk

    shelf = open_made(folder, size)
    times: dict[str, float] = {}

    def timed(name: str, call: Callable[[], Any], view: str = "prompts") -> Any:
        begun = time.perf_counter()
        found = call()
        times[name] = time.perf_counter() - begun
        text = found[view] if isinstance(found, dict) else ""
        if "This cannot be shown" in text or "fault of ours" in text:
            raise SystemExit(f"{name}: {text}")
        return found

    def open_first() -> Any:
        desk.append(Desk(shelf))
        return desk[0].show(desk[0].defaults)

    desk: list[Any] = []
    timed("first view", open_first, "allocation")
    prompts = desk[0].defaults | {"view": "prompts"}
    timed("list", lambda: Desk(shelf).show(prompts))
    gc.collect()  # the second Desk: a server has one, and what a page was made from refers to itself
    show = desk[0].show
    timed("first filter", lambda: show(prompts | {"agreement": "other"}))
    timed("filter", lambda: show(prompts | {"teacher": "t03", "margin": 0.2, "sort": "regret"}))
    timed("search", lambda: show(prompts | {"q": "takes half"}))
    timed("far page", lambda: show(prompts | {"page": size // 50, "sort": "margin"}))
    timed("open", lambda: show(prompts | {"prompt": ids_of(size // 2, 1)[0]}))
    timed("first what if", lambda: show(prompts | {"view": "whatif"}), "whatif")
    timed("what if", lambda: show(prompts | {"view": "whatif", "alpha": 0.7}), "whatif")
    timed("router", lambda: show(prompts | {"view": "router"}), "router")
    times["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    (folder / "found.json").write_text(json.dumps(times))


def ids_of(start: int, count: int) -> list[str]:
    """16 hex digits that are spread as hashes are; no array of pyarrow, as that imports pandas, 40 MB of it."""
    numbers = (np.arange(start, start + count, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    return [f"{number:016x}" for number in numbers.tolist()]


def make(folder: Path, size: int) -> None:
    draw = np.random.default_rng(0)
    names = pa.array([f"t{number:02d}" for number in range(TEACHERS)])
    writers = {schema.kind: _writer(folder, schema) for schema in (PROMPTS, ASSIGNMENTS, REWARDS, RESPONSES)}
    for start in range(0, size, BLOCK):
        count = min(BLOCK, size - start)
        scores = draw.normal(size=(count, TEACHERS)).astype(np.float32).astype(np.float64)
        quality = (draw.random((count, TEACHERS)) < 0.6).astype(np.float64)
        logprob = -draw.random((count, TEACHERS)).round(4)
        learned = (logprob - logprob.min(1, keepdims=True)) / np.ptp(logprob, axis=1, keepdims=True)
        reward = 0.6 * quality + 0.4 * learned
        rank = (reward[:, None, :] > reward[:, :, None]).sum(2) + 1
        ids, teacher, ordered = pa.array(ids_of(start, count)), scores.argmax(1), np.sort(scores, axis=1)
        words = WORDS[draw.integers(0, len(WORDS), (count, 20))]
        topics = pa.array([f"topic {number}" for number in draw.integers(0, 12, count).tolist()])
        split = pa.array(["pool"] * count)
        cells = pa.array(np.repeat(np.arange(count), TEACHERS))
        number = pa.array(draw.integers(5, 900, count * TEACHERS))
        turns = [[{"role": "user", "content": " ".join(line)}] for line in words]
        same = {"prompt_id": ids, "split": split}
        _write(
            writers,
            PROMPTS,
            same | {"messages": pa.array(turns), "topic": topics, "source": pa.array(["made"] * count)},
        )
        of = names.take(pa.array(teacher))
        margin = pa.array(ordered[:, -1] - ordered[:, -2])
        lists = pa.ListArray.from_arrays(pa.array(np.arange(count + 1) * TEACHERS, pa.int32()), scores.ravel())
        source = pa.array(["router"] * count)
        _write(writers, ASSIGNMENTS, same | {"teacher": of, "scores": lists, "margin": margin, "source": source})
        every = {"prompt_id": ids.take(cells), "split": split.take(cells), "num_tokens": number}
        every["teacher"] = names.take(pa.array(np.tile(np.arange(TEACHERS), count)))
        for name, values in {
            "quality_raw": quality, "mean_logprob": logprob, "quality_reward": quality,
            "learnability_reward": learned.round(6), "reward": reward.round(6), "rank": rank,
        }.items():  # fmt: skip
            every[name] = pa.array(values.ravel())
        _write(writers, REWARDS, every | {"truncated": pa.array(np.zeros(count * TEACHERS, dtype=bool))})
        answer = {"sample_index": pa.array(np.zeros(count, dtype=np.int64)), "teacher": of}
        answer |= {"response": topics, "finish_reason": source, "status": pa.array(["ok"] * count)}
        answer["is_correct"] = pa.array(quality[np.arange(count), teacher] > 0)
        answer["num_tokens"] = pa.array(draw.integers(5, 900, count))
        _write(writers, RESPONSES, same | answer | {"selected": pa.array(np.ones(count, dtype=bool))})
    for writer in writers.values():
        writer.close()


def _writer(folder: Path, schema: Schema) -> pq.ParquetWriter:
    path = folder / schema.kind / _name(schema.kind)
    path.parent.mkdir(parents=True)
    return pq.ParquetWriter(path, schema.features.arrow_schema, compression="zstd")


def _name(kind: str) -> str:
    return f"data/{'all' if kind == 'responses' else 'default'}/pool-00000-of-00001.parquet"


def _write(writers: dict[str, pq.ParquetWriter], schema: Schema, columns: dict[str, pa.Array]) -> None:
    """What is not given is null or 0; in row groups as small as the store's."""
    wanted, count = schema.features.arrow_schema, len(columns["prompt_id"])
    arrays = [columns[f.name] if f.name in columns else _empty(f.type, count) for f in wanted]
    table = pa.table(arrays, names=wanted.names).cast(wanted)
    writers[schema.kind].write_table(table, row_group_size=2_000)


def _empty(kind: pa.DataType, count: int) -> pa.Array:
    return pa.array(np.zeros(count, dtype=np.int64)) if pa.types.is_integer(kind) else pa.nulls(count, kind)


def open_made(folder: Path, size: int) -> Shelf:
    teachers = tuple({"name": f"t{n:02d}", "family": f"f{n % 5}", "params_b": float(n + 1)} for n in range(TEACHERS))
    cost = {"teachers": {str(t["name"]): {"requests": size, "flops": 1e9 * (n + 1)} for n, t in enumerate(teachers)}}
    items: dict[str, Stored] = {}

    def add(kind: str, *inputs: str, **more: Any) -> None:
        ref, config = f"bench/{kind}@v1", "all" if kind == "responses" else "default"
        manifest = Manifest(
            stage=kind, kind=kind, schema_version=1, repo=f"bench/{kind}", teachers=teachers, student={"name": "s"},
            inputs={of: Input(ref=f"bench/{of}@v1", digest=of) for of in inputs},
            rows={config: {"pool": size * (TEACHERS if kind == "rewards" else 1)}},
            files={_name(kind): ""}, digest=kind, **more,
        )  # fmt: skip
        items[ref] = Stored(
            repo=f"bench/{kind}", kind=kind, tag="v1", digest=kind, path=folder / kind, manifest=manifest
        )

    add("prompts")
    add("rewards", "prompts", settings={"alpha": 0.4, "normalisation": "minmax", "learnability": "mean_logprob"})
    add("assignments", "prompts", "rewards", settings={"kind": "persyn"})
    add("responses", "prompts", "assignments", cost=cost)
    return Shelf(items=items)


if __name__ == "__main__":
    sys.exit(main())
