"""Grading in worker processes: `python bench/grading.py [--runs N]`.

Rows are real answers to 100 GSM8K questions (recipes/real), 2,000 in all: each of the 200 comes ten times, as if from
so many teachers, in an order drawn once. Workers are started before the clock. Sides take turns; medians count.

two_processes: rows per second of two workers against one, over 6,000 rows.
hanging: ten of the 2,000 answers hang math-verify. What they add to the time of two workers may be ten time-outs and
the starts of as many workers, half of them for each, though only a new process that judges is forked; the ratio is
what they may add to what they do.

For information, the rate of math-verify called in the main process, under its own time-outs. Ends with 1 where a ratio
falls short.
"""

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from persyn_hf.backends.grading.pool import Verifier


SAMPLE = Path(__file__).parent.parent / "recipes" / "real" / "gsm8k_two_models_sample.parquet"
ROWS = 2000
TIMES = 3  # for rates: in one second the end, where one worker is done and the other is not, would count
HANGING = 10
TIMEOUT_S = 1.0
HANGS = "It is $9999999^{9999999}$."
NEEDS = {"two_processes": 1.8, "hanging": 1.0}

Pairs = list[tuple[str, str]]


def read_pairs() -> Pairs:
    import pyarrow.parquet as pq

    pairs = [(row["reference"], row["response"]) for row in pq.read_table(SAMPLE).to_pylist()]
    pairs *= ROWS // len(pairs)
    random.Random(0).shuffle(pairs)
    return pairs


def with_hanging(pairs: Pairs) -> Pairs:
    step = len(pairs) // HANGING
    return [(reference, HANGS if row % step == 0 else answer) for row, (reference, answer) in enumerate(pairs)]


def graded(workers: int, pairs: Pairs, expected_nulls: int = 0) -> float:
    """Seconds that a started pool needs."""
    with Verifier(workers, TIMEOUT_S) as verifier:
        verifier.grade(pairs)
        started = time.perf_counter()
        verdicts = verifier.grade(with_hanging(pairs) if expected_nulls else pairs)
        seconds = time.perf_counter() - started
    if verdicts.count(None) != expected_nulls:
        raise RuntimeError(f"{verdicts.count(None)} rows are null, {expected_nulls} should be")
    return seconds


def start() -> float:
    """Seconds until a fresh worker has judged a row."""
    started = time.perf_counter()
    with Verifier(1, TIMEOUT_S) as verifier:
        verifier.grade([("42", "42")])
        return time.perf_counter() - started


def by_hand(pairs: Pairs) -> float:
    from math_verify import parse, verify

    started = time.perf_counter()
    for reference, answer in pairs:
        verify(parse(f"${reference}$"), parse(answer))
    return time.perf_counter() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    pairs = read_pairs()
    sides: dict[str, Callable[[], float]] = {
        "by hand": lambda: by_hand(pairs),
        "one process": lambda: graded(1, pairs * TIMES) / TIMES,
        "two processes": lambda: graded(2, pairs * TIMES) / TIMES,
        "two processes, ten rows hanging": lambda: graded(2, pairs, HANGING),
        "start of a worker": start,
    }
    measured: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(args.runs):
        for side, measure in sides.items():
            measured[side].append(measure())
    seconds = {side: statistics.median(found) for side, found in measured.items()}
    for side, found in seconds.items():
        print(f"{side}: {found:.2f} s" + ("" if side.startswith("start") else f", {ROWS / found:.0f} rows/s"))
    allowed = HANGING / 2 * (TIMEOUT_S + seconds["start of a worker"])
    ratios = {
        "two_processes": seconds["one process"] / seconds["two processes"],
        "hanging": allowed / (seconds["two processes, ten rows hanging"] - seconds["two processes"]),
    }
    for name, ratio in ratios.items():
        print(f"{name} ratio={ratio:.2f} need={NEEDS[name]}")
    return int(any(ratio < NEEDS[name] for name, ratio in ratios.items()))


if __name__ == "__main__":
    sys.exit(main())
