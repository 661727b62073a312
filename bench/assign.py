"""Prompts assigned per second, and memory: `python bench/assign.py [router|mix|budget] [--large N]`.

router: the `ridge` router over TF-IDF, 100K and 1M prompts. mix: random teachers, 1M and 10M. Each from the stored
prompts to the stored assignments, checks, cards and digests included, in a process of its own with 15 teachers. The
rate at the large size is held against that at the small one, and the peak of the resident memory, pages of mapped
files included, against 1.5 GB. budget: quotas and a total for 1M prompts, timed without a need.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from persyn_hf.backends.routers import Labelled, RouterSettings, fit
from persyn_hf.core import budget_solver as budget
from persyn_hf.recipe.roles import Teacher
from persyn_hf.schemas import ASSIGNMENTS, PROMPTS
from persyn_hf.stage import Context
from persyn_hf.stages import assign
from persyn_hf.store.local import Store


SIZES = {"router": (100_000, 1_000_000), "mix": (1_000_000, 10_000_000)}
KINDS = {"router": "persyn", "mix": "mix"}
POOL = tuple(f"teacher-{number:02d}" for number in range(15))
LINEAR = 0.67
MEMORY = 1.5e9  # bytes
CHUNK = 100_000
TEXT = "what is the sum of product area ratio mean a b x y 3 7 12 45 train hours price circle angle prime"
WORDS = TEXT.split()


def questions(count: int, seed: int) -> list[str]:
    drawn = np.random.default_rng(seed).integers(0, len(WORDS), (count, 12))
    return [" ".join(WORDS[word] for word in row) for row in drawn]


def store_prompts(store: Store, count: int) -> str:
    """Prompts in three splits, in mixed order."""
    from datasets import Dataset
    from datasets.arrow_writer import ArrowWriter

    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/prompts.arrow"
        with ArrowWriter(path=path, features=PROMPTS.features) as writer:
            for table in _prompts(count):
                writer.write_table(table)
            writer.finalize()
        fields = {"stage": "prompts", "settings": {}, "seed": 0, "fingerprint": f"{count:064x}"}
        data = Dataset.from_file(path)
        return store.put(repo=f"bench/prompts-{count}", schema=PROMPTS, data=data, fields=fields).ref


def _prompts(count: int) -> Iterator[Any]:
    import pyarrow as pa

    texts = questions(CHUNK, 0)
    for start in range(0, count, CHUNK):
        number = min(CHUNK, count - start)
        splits = np.random.default_rng(start).choice(["pool", "calibration", "dev"], number, p=[0.998, 0.001, 0.001])
        columns = {
            "prompt_id": [f"{start + row:016x}" for row in range(number)],
            "messages": [[{"role": "user", "content": text}] for text in texts[:number]],
            "reference": [None] * number,
            "source": ["bench"] * number,
            "topic": [None] * number,
            "split": splits.tolist(),
        }
        yield pa.table(columns, schema=PROMPTS.features.arrow_schema)


def train_router(folder: Path) -> None:
    rewards = np.random.default_rng(0).random((500, len(POOL)))
    texts = [[{"role": "user", "content": text}] for text in questions(500, 1)]
    train, validation = Labelled(texts[:400], rewards[:400]), Labelled(texts[400:], rewards[400:])
    fit(RouterSettings(kind="ridge"), POOL, train, validation, folder, seed=0)


def measured(kind: str, root: str, ref: str, router: str) -> dict[str, float]:
    """From the stored prompts to the stored assignments."""
    store = Store(root)
    teachers = tuple(Teacher(name=name) for name in POOL)
    started = time.perf_counter()
    prompts = store.read_dataset(store.get(ref))
    PROMPTS.check(prompts, ref)
    with tempfile.TemporaryDirectory() as work:
        context = Context(seed=0, work_dir=Path(work), teachers=teachers)
        given: dict[str, Any] = {"router": Path(router)} if kind == "router" else {}
        result = assign.run(assign.Settings(kind=KINDS[kind]), context, prompts=prompts, **given)
        number = len(prompts)
        del prompts  # as the runner does
        ASSIGNMENTS.check(result.data, "assignments")
        fields = {"stage": "assign", "settings": {}, "seed": 0, "fingerprint": f"{number:064x}"}
        store.put(repo=f"bench/{kind}-{number}", schema=ASSIGNMENTS, data=result.data, fields=fields)
    seconds = time.perf_counter() - started
    # not `ru_maxrss`: that begins with what the parent had
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return {"seconds": seconds, "peak": int(line.split()[1]) * 1024}


def measure(kind: str, root: Path, count: int) -> dict[str, float]:
    ref = store_prompts(Store(root), count)
    command = [sys.executable, __file__, kind, "--side", str(root), ref, str(root / "router")]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    rate = count / found["seconds"]
    print(
        f"{kind} {count}: {found['seconds']:.1f} s, {rate:.0f} prompts/s, peak {found['peak'] / 1e9:.2f} GB",
        flush=True,
    )
    return {"rate": rate, "peak": found["peak"]}


def solve_budgets(count: int) -> None:
    rewards = np.random.default_rng(0).random((count, len(POOL))) + np.linspace(0, 0.5, len(POOL))
    cost = np.linspace(1, 40, len(POOL)) ** 1.5
    cases = {
        "quotas": budget.bounds_of(count, [0.02] * len(POOL), [0.12] * len(POOL), cost),
        "total": budget.bounds_of(count, [0.0] * len(POOL), [1.0] * len(POOL), cost, cost[5] * count),
        "both": budget.bounds_of(count, [0.02] * len(POOL), [0.2] * len(POOL), cost, cost[6] * count),
    }
    for name, bounds in cases.items():
        started = time.perf_counter()
        found = budget.allocate(rewards, bounds)
        seconds = time.perf_counter() - started
        print(f"budget {name}, {count} prompts: {seconds:.1f} s, gap {found.gap:.2g} of {found.value:.0f}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", choices=[*SIZES, "budget", []])
    parser.add_argument("--large", type=int, help="in the place of the large size; the small one is a tenth of it")
    parser.add_argument("--side", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(measured(args.kinds[0], *args.side)))
        return 0
    short = False
    for kind in args.kinds or [*SIZES, "budget"]:
        if kind == "budget":
            solve_budgets(args.large or 1_000_000)
            continue
        small, large = (args.large // 10, args.large) if args.large else SIZES[kind]
        with tempfile.TemporaryDirectory() as root:
            train_router(Path(root) / "router")
            one, other = (measure(kind, Path(root), count) for count in (small, large))
        for name, ratio, need in (
            (f"{kind}_rate", other["rate"] / one["rate"], LINEAR),
            (f"{kind}_memory", MEMORY / other["peak"], 1),
        ):
            print(f"{name} ratio={ratio:.2f} need={need}", flush=True)
            short = short or ratio < need
    return int(short)


if __name__ == "__main__":
    sys.exit(main())
