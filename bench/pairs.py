"""Pair building: `python bench/pairs.py [--prompts N] [--runs N]`.

The stage `pair` against the obvious loop (for each prompt, for each two teachers, a row; `Dataset.from_list`), on the
same prompts of 50 short words (250 characters, as in GSM8K) and rewards of 19 teachers. The ratio is that of the
median times, and both give the same comparisons. Memory: the peak of the stage's process against that with ten times
the prompts; the tables that it reads are mapped files and do not count. Ends with 1 where a ratio falls short.
"""

import argparse
import itertools
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, disable_progress_bars

from persyn_hf.core.conversations import user_text
from persyn_hf.core.pairs import TIE
from persyn_hf.recipe.roles import Teacher
from persyn_hf.schemas import PAIRS, PROMPTS, REWARDS
from persyn_hf.stage import Context
from persyn_hf.stages import pair


TEACHERS = 19
WORDS = 50
NEED, NEED_FLAT = 20.0, 0.67


def prompts_of(count: int) -> Dataset:
    draw = random.Random(0)
    words = [f"w{number:03d}" for number in range(1000)]
    return Dataset.from_dict(
        {
            "prompt_id": [f"{number:016x}" for number in range(count)],
            "messages": [[{"role": "user", "content": " ".join(draw.choices(words, k=WORDS))}] for _ in range(count)],
            "reference": [None] * count,
            "source": ["bench"] * count,
            "topic": [None] * count,
            "split": ["calibration"] * count,
        },
        features=PROMPTS.features,
    )


def rewards_of(count: int) -> Dataset:
    cells = count * TEACHERS
    values = np.random.default_rng(0).random(cells)
    columns: dict[str, Any] = {name: [None] * cells for name in REWARDS.names}
    columns |= {
        "prompt_id": [f"{cell // TEACHERS:016x}" for cell in range(cells)],
        "teacher": [f"teacher-{cell % TEACHERS}" for cell in range(cells)],
        "reward": values,
        "truncated": [False] * cells,
        "split": ["calibration"] * cells,
    }
    return Dataset.from_dict(columns, features=REWARDS.features)


def ours(prompts: Dataset, rewards: Dataset, folder: Path) -> Dataset:
    teachers = tuple(Teacher(name=f"teacher-{number}") for number in range(TEACHERS))
    found = pair.run(
        pair.Settings(), Context(seed=0, work_dir=folder, teachers=teachers), prompts=prompts, rewards=rewards
    )
    assert isinstance(found.data, Dataset)
    return found.data


def loop(prompts: Dataset, rewards: Dataset) -> Dataset:
    draw = random.Random(0)
    asked = {row["prompt_id"]: row for row in prompts}
    cells: dict[str, dict[str, float]] = {}
    for row in rewards:
        cells.setdefault(row["prompt_id"], {})[row["teacher"]] = row["reward"]
    rows = []
    for prompt_id, of_prompt in cells.items():
        for one, other in itertools.combinations(of_prompt, 2):
            a, b = (one, other) if draw.random() < 0.5 else (other, one)
            margin = of_prompt[b] - of_prompt[a]
            label = 0.5 if abs(margin) <= TIE else float(margin > 0)
            rows.append(
                {
                    "prompt_id": prompt_id,
                    "prompt": user_text(asked[prompt_id]["messages"]),
                    "teacher_a": a,
                    "teacher_b": b,
                    "label": label,
                    "margin": margin,
                    "split": asked[prompt_id]["split"],
                }
            )
    return Dataset.from_list(rows, features=PAIRS.features)


def comparisons(pairs: Dataset) -> set[tuple[str, str, str, float]]:
    """Whatever the side: (prompt, two teachers by name, size of the margin)."""
    columns = pairs.select_columns(["prompt_id", "teacher_a", "teacher_b", "margin"])[:]
    both = zip(columns["teacher_a"], columns["teacher_b"], strict=True)
    two = [(min(names), max(names)) for names in both]
    margins = [round(abs(margin), 9) for margin in columns["margin"]]
    return {(i, *names, m) for i, names, m in zip(columns["prompt_id"], two, margins, strict=True)}


def peak(count: int) -> int:
    """Peak bytes of a process that builds the pairs of `count` prompts, which lie on the disk."""
    with tempfile.TemporaryDirectory() as folder:
        prompts_of(count).save_to_disk(Path(folder) / "prompts")
        rewards_of(count).save_to_disk(Path(folder) / "rewards")
        found = subprocess.run(
            [sys.executable, __file__, "--measure", folder], stdout=subprocess.PIPE, text=True, check=True
        )
    return int(found.stdout)


def measure(folder: Path) -> None:
    prompts, rewards = (Dataset.load_from_disk(folder / name) for name in ("prompts", "rewards"))
    done, found = threading.Event(), [0]
    watch = threading.Thread(target=_watch, args=[done, found])
    watch.start()
    ours(prompts, rewards, folder)
    done.set()
    watch.join()
    print(max(found))


def _watch(done: threading.Event, found: list[int]) -> None:
    while not done.wait(0.005):
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        found.append(int(re.findall(r"RssAnon:\s+(\d+) kB", status)[0]) * 1024)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=2500)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--measure", type=Path)
    args = parser.parse_args()
    if args.measure:
        measure(args.measure)
        return 0
    disable_progress_bars()
    prompts, rewards = prompts_of(args.prompts), rewards_of(args.prompts)
    seconds: dict[str, list[float]] = {"ours": [], "loop": []}
    for _ in range(args.runs):
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            fast = ours(prompts, rewards, Path(folder))
            seconds["ours"].append(time.perf_counter() - started)
            started = time.perf_counter()
            slow = loop(prompts, rewards)
            seconds["loop"].append(time.perf_counter() - started)
            assert comparisons(fast) == comparisons(slow)
    medians = {side: statistics.median(values) for side, values in seconds.items()}
    peaks = [peak(args.prompts), peak(10 * args.prompts)]
    print(f"{len(fast):,} pairs: ours {medians['ours']:.2f} s, loop {medians['loop']:.2f} s")
    print(f"peak memory: {peaks[0] / 2**20:.0f} MB, with ten times the prompts {peaks[1] / 2**20:.0f} MB")
    ratio, flat = medians["loop"] / medians["ours"], peaks[0] / peaks[1]
    print(f"pairs ratio={ratio:.1f} need={NEED:g}")
    print(f"pairs_memory ratio={flat:.2f} need={NEED_FLAT:g}")
    return 0 if ratio >= NEED and flat >= NEED_FLAT else 1


if __name__ == "__main__":
    sys.exit(main())
