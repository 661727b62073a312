"""Score in one process of `accelerate launch`, started by launched.py as `python -m ... FOLDER`.

A process writes what it has measured to a file of its own, so the processes need not talk to one another: none waits,
and none runs into the time-out of another.
"""

import json
import sys
from pathlib import Path

from persyn_hf.backends import launch
from persyn_hf.backends.scoring import launched, score_rows
from persyn_hf.backends.scoring.open_scorer import open_scorer


def main(folder: Path) -> None:
    """Measure this process's share of the rows."""
    place = launch.join(folder)
    with (
        (folder / f"measured-{place.rank}.jsonl").open("a", encoding="utf-8") as measured,
        launch.telling_faults(folder, place.rank),
    ):
        task = json.loads((folder / launch.TASK).read_text(encoding="utf-8"))
        device = launch.own_device(task["cpu"], place.local_rank, task["key"])
        scorer = open_scorer(task["kind"], **task["options"], device=device)
        for batch in score_rows(
            scorer,
            launched.read_rows(folder),
            batch_tokens=task["batch_tokens"],
            skip=frozenset(task["skip"]),
            rank=place.rank,
            processes=place.world_size,
        ):
            measured.write(json.dumps(batch) + "\n")
            measured.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
