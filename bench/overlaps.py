"""Prompts against test items: `python bench/overlaps.py [--prompts N] [--items N] [--runs N]`.

`find_overlaps` and `group_near_duplicates` on prompts of 60 words (350 characters, as in GSM8K), by Zipf's law from
20,000 words, all behind one template, against items of the same kind. One in ten items is hidden in a prompt, in other
case and spacing, behind a label; all of these must be found, and no other pair. One prompt in a hundred is another one
with a word changed. Memory: the peak of a process above what it has once the texts are there, against that for a tenth
of the prompts. Ends with 1 where both together take longer than a minute, or memory grows as the prompts do.
"""

import argparse
import re
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

from persyn_hf.core.near_duplicates import group_near_duplicates
from persyn_hf.core.overlaps import find_overlaps


WORDS, VOCABULARY = 60, 20_000
TEMPLATE = "Solve the following problem step by step and end with the final answer:\n"
NEED_SECONDS, NEED_BYTES = 60.0, 1500  # of memory for a prompt more


def texts_of(prompts: int, items: int) -> tuple[list[str], list[str], set[tuple[int, int]]]:
    """Return prompts, items, and the pairs of their numbers in which a prompt holds an item."""
    rng = np.random.default_rng(0)
    weights = 1 / np.arange(1, VOCABULARY + 1)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = np.array(["".join(rng.choice(letters, 2 + place % 9)) for place in range(VOCABULARY)])
    drawn = words[rng.choice(VOCABULARY, (prompts + items, WORDS), p=weights / weights.sum())]
    tests = [f"{' '.join(row)}?" for row in drawn[prompts:]]
    asked = [f"{TEMPLATE}{' '.join(row)}." for row in drawn[:prompts]]
    for place in range(0, prompts - 1, 100):
        changed = drawn[place].copy()
        changed[WORDS // 2] = "changed"
        asked[place + 1] = f"{TEMPLATE}{' '.join(changed)}."
    hidden = {(place * (prompts // items * 10) + 7, place * 10) for place in range(items // 10)}
    for prompt, item in hidden:
        asked[prompt] = f"Question: {tests[item].upper().replace(' ', chr(10))} Answer:"
    return asked, tests, hidden


def measure(prompts: list[str], items: list[str]) -> tuple[float, float, set[tuple[int, int]], int]:
    """Return the seconds of both comparisons, the pairs of prompt and item, and the prompts in groups."""
    started = time.perf_counter()
    found = {(one.prompt, one.item) for _, overlaps in find_overlaps(prompts, [items]) for one in overlaps}
    between = time.perf_counter()
    groups = group_near_duplicates(prompts)
    ended = time.perf_counter()
    _, sizes = np.unique(groups, return_counts=True)
    return between - started, ended - between, found, int(sizes[sizes > 1].sum())


def peak(prompts: int, items: int) -> int:
    """Peak bytes, above those of the texts, of a process that compares."""
    sizes = [f"--prompts={prompts}", f"--items={items}"]
    found = subprocess.run(
        [sys.executable, __file__, "--measure", *sizes], stdout=subprocess.PIPE, text=True, check=True
    )
    return int(found.stdout)


def print_peak(prompts: int, items: int) -> None:
    asked, tests, _ = texts_of(prompts, items)
    done, sizes = threading.Event(), [_size()]
    watch = threading.Thread(target=_watch, args=[done, sizes])
    watch.start()
    measure(asked, tests)
    done.set()
    watch.join()
    print(max(sizes) - sizes[0])


def _watch(done: threading.Event, sizes: list[int]) -> None:
    while not done.wait(0.005):
        sizes.append(_size())


def _size() -> int:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.findall(r"RssAnon:\s+(\d+) kB", status)[0]) * 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=5000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--measure", action="store_true")
    args = parser.parse_args()
    if args.measure:
        print_peak(args.prompts, args.items)
        return 0
    prompts, items, hidden = texts_of(args.prompts, args.items)
    seconds = []
    for _ in range(args.runs):
        *times, found, grouped = measure(prompts, items)
        assert found == hidden, f"{len(hidden - found)} not found, {len(found - hidden)} that are none"
        seconds.append(times)
    overlaps, groups = (statistics.median(column) for column in zip(*seconds, strict=True))
    small, large = (peak(count, args.items) for count in (args.prompts // 10, args.prompts))
    more = (large - small) / (0.9 * args.prompts)
    print(f"{args.prompts:,} prompts, {args.items:,} items: {len(hidden):,} of {len(hidden):,} hidden items found")
    print(f"overlaps {overlaps:.1f} s, near-duplicates {groups:.1f} s ({grouped:,} prompts in groups)")
    print(f"peak memory above the texts: {large / 2**20:.0f} MB, with a tenth of the prompts {small / 2**20:.0f} MB")
    print(f"overlaps seconds={overlaps + groups:.1f} need={NEED_SECONDS:g}")
    print(f"overlaps_memory bytes={more:.0f} need={NEED_BYTES}")
    return 0 if overlaps + groups <= NEED_SECONDS and more <= NEED_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
