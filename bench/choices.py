"""Multiple choice: `python bench/choices.py [--runs N]`.

The choices of TruthfulQA's items, weighed for SmolLM2-135M-Instruct in float32: by the harness's own loop, which runs
the six examples and the question anew with each choice, and by ours. Sides take turns in one process, and must give
the same scores. The ratio is that of the median times. Ends with 1 where it falls short.
"""

import argparse
import runpy
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from persyn_hf.backends.harness import weighing
from persyn_hf.backends.harness.local import open_local
from persyn_hf.backends.harness.questions import Source
from persyn_hf.backends.harness.stock import load_stock
from persyn_hf.backends.harness.student import Student, open_student
from persyn_hf.backends.harness.work import Kept
from persyn_hf.stage import Silent


ROOT = Path(__file__).parent.parent
NEED = 3.0
TASK = "truthfulqa_mc2"


def ask(student: Student, path: Path) -> tuple[list[float | None], float]:
    """Return the score of every item, and the seconds that they took."""
    (task,) = load_stock(TASK, Source(path=str(path))).values()
    started = time.perf_counter()
    items, _ = student.answer_stock(TASK, task, None, 1, None)
    return [item.score for item in items], time.perf_counter() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=Path, default=ROOT / "tests" / "data" / "truthfulqa_sample.csv")
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    model = str(runpy.run_path(str(ROOT / "tests" / "smollm2.py"))["smollm2_folder"]())
    shares = weighing.can_share
    times: dict[str, list[float]] = {"theirs": [], "ours": []}
    scores: dict[str, list[float | None]] = {}
    for _ in range(args.runs):
        for side in times:
            weighing.can_share = shares if side == "ours" else lambda _: False
            opening = open_local(model, None, None, dtype="float32", batch_size=32)
            with TemporaryDirectory() as folder, open_student(opening, Kept(Path(folder), [], Silent())) as student:
                scores[side], seconds = ask(student, args.items)
            times[side].append(seconds)
    apart = max(abs(one - other) for one, other in zip(scores["theirs"], scores["ours"], strict=True))
    ratio = statistics.median(times["theirs"]) / statistics.median(times["ours"])
    for side, of in times.items():
        print(f"{side}: {', '.join(f'{one:.1f}' for one in of)} s")
    print(f"choices: ratio={ratio:.2f} need={NEED}; scores differ by at most {apart:.1e}")
    return int(ratio < NEED or apart > 1e-4)


if __name__ == "__main__":
    sys.exit(main())
