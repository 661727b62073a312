"""The journal at 10K, 100K and 1M answers: `python bench/journal.py [--rows N]`.

Each size runs in a process of its own. Answers of about 1 KB are written in groups of 64; then the journal is opened
again as a resumed run does, which makes the key of every request and asks, 1,000 at a time, which are answered
(`lookup`: the journal's part of that); then all are read. The smallest size, which is over in a second, is measured
five times before the others and five times after, because a machine is not equally fast all the time. Ends with 1
where the cost of a row, or the memory, grows with the size.
"""

import argparse
import multiprocessing
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from persyn_hf.backends.answers import Answer, Prepared, Request, Sampling
from persyn_hf.backends.journal import Journal, read_spent


GROUP = 64  # answers per transaction
CHUNK = 1000  # keys per question
NEED = 0.67  # rate at the largest size / rate at the smallest: a row may cost 1.5 times as much

SAMPLING = Sampling(temperature=0.6, top_p=1.0, top_k=0, max_tokens=2048, seed=0)
TEXT = random.Random(0).randbytes(16_384).hex()


def requests(rows: int) -> Iterator[Request]:
    for row in range(rows):
        prepared = Prepared(text=f"question {row // 4}", num_tokens=60)
        yield Request(
            prompt_id=f"{row // 4:016x}",
            model="org/teacher-7b-instruct@" + "a" * 40,
            engine="vllm",
            sample_index=row % 4,
            prompt=prepared,
            sampling=SAMPLING,
        )


def chunks(rows: int, size: int) -> Iterator[list[Request]]:
    source = requests(rows)
    while chunk := list(islice(source, size)):
        yield chunk


class Watch:
    """Seconds spent inside `with`."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._started


def answers(group: list[Request]) -> list[Answer]:
    said = []
    for request in group:
        _ = request.key, request.family  # cached: to make them is not the journal's part
        start = int(request.key[:4], 16) % 30_000
        text = TEXT[start : start + 1000]
        said.append(Answer(request=request, text=text, finish_reason="stop", num_tokens=250, seconds=0.1))
    return said


def write(path: Path, rows: int, size: int = GROUP) -> Watch:
    watch = Watch()
    with Journal(path, recipe="local/bench") as journal:
        for group in chunks(rows, size):
            said = answers(group)
            with watch:
                journal.write(said, teacher="teacher-7b")
    return watch


def resume(path: Path, rows: int) -> tuple[Watch, Watch]:
    """(all of it, the journal's part)."""
    whole, lookup = Watch(), Watch()
    with whole:
        with lookup:
            journal = Journal(path, recipe="local/bench")
        for chunk in chunks(rows, CHUNK):
            keys = [request.key for request in chunk]
            with lookup:
                answered = journal.answered(keys, errors=False)
            if len(answered) != len(keys):
                raise SystemExit(f"{len(keys) - len(answered)} of {len(keys)} answers are lost")
        journal.close()
    return whole, lookup


def read(path: Path, rows: int) -> Watch:
    """As when a table is cut from a complete journal."""
    watch = Watch()
    with Journal(path, recipe="local/bench") as journal:
        for chunk in chunks(rows, CHUNK):
            keys = [request.key for request in chunk]
            with watch:
                journal.read(keys)
    return watch


def status(path: Path, rows: int) -> Watch:
    """What another process reads while the run goes on."""
    watch = Watch()
    with Journal(path), watch:
        spent = read_spent(path, "local/bench")
    if spent["teacher-7b"].requests != rows:
        raise SystemExit(f"{rows} answers were paid for, the journal says {spent['teacher-7b'].requests}")
    return watch


def measure(rows: int, folder: str) -> dict[str, float]:
    """Seconds by step, bytes per row and megabytes."""
    path = Path(folder) / "journal.sqlite"
    watches = {"write": write(path, rows)}
    watches["resume"], watches["lookup"] = resume(path, rows)
    watches["read"], watches["status"] = read(path, rows), status(path, rows)
    found = {name: watch.seconds for name, watch in watches.items()}
    found["bytes_per_row"] = path.stat().st_size / rows
    found["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found


def apart(rows: int, folder: str | None) -> dict[str, float]:
    """Measured in a process and a folder of their own."""
    with (
        tempfile.TemporaryDirectory(prefix="journal-", dir=folder) as own,
        multiprocessing.get_context("spawn").Pool(1) as pool,
    ):
        return pool.apply(measure, (rows, own))


def show(rows: int, found: dict[str, float]) -> None:
    rates = " ".join(f"{step}={rows / found[step]:.0f}/s" for step in ("write", "resume", "lookup", "read"))
    print(
        f"journal rows={rows} {rates} restart_s={found['resume']:.2f} status_ms={1000 * found['status']:.2f} "
        f"bytes_per_row={found['bytes_per_row']:.0f} peak_mb={found['peak_mb']:.0f}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rows", type=int, default=1_000_000, help="the largest size, from 20,000 on; the smallest is 10,000"
    )
    parser.add_argument("--dir", help="where the journals are written: 1.5 KB per row (default: the system's)")
    options = parser.parse_args()
    smallest = 10_000
    if options.rows < 2 * smallest:
        parser.error(f"--rows must be at least {2 * smallest}, got {options.rows}")
    small = [apart(smallest, options.dir) for _ in range(5)]
    show(smallest, small[0])
    for rows in sorted({max(options.rows // 10, smallest), options.rows} - {smallest}):
        large = apart(rows, options.dir)
        show(rows, large)
    small += [apart(smallest, options.dir) for _ in range(5)]
    for size in (1, 8, 64, 256):
        with tempfile.TemporaryDirectory(prefix="journal-", dir=options.dir) as folder:
            seconds = write(Path(folder) / "journal.sqlite", 200 * size, size).seconds
        print(f"journal answers_per_commit={size} ms_per_commit={seconds * 5:.2f}", flush=True)
    mean = {name: sum(found[name] for found in small) / len(small) for name in large}
    growth = options.rows / smallest
    ratios = {step: mean[step] * growth / large[step] for step in ("write", "resume", "read")}
    ratios["memory"] = mean["peak_mb"] / large["peak_mb"]
    for name, ratio in ratios.items():
        print(f"journal {name} ratio={ratio:.2f} need={NEED}")
    return int(min(ratios.values()) < NEED)


if __name__ == "__main__":
    sys.exit(main())
