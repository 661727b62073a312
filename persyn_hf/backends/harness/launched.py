"""Have a student answer in the processes of `accelerate launch` on the nodes of an executor.

The processes live as long as the student is open. Each loads it, or starts a vLLM server of it on its node, and then
does its share of one work after the other, which the driver writes into the folder of the launch. What it has done it
appends to a file of its own there, so a lost process costs what it had in hand.
"""

import json
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from persyn_hf.backends import launch
from persyn_hf.backends.engines.settings import VllmSettings
from persyn_hf.backends.harness.answers import Sheet, open_sheet
from persyn_hf.backends.harness.local import open_local
from persyn_hf.backends.harness.served import open_served, positions_of
from persyn_hf.backends.harness.work import Done, Engine, Share, Work
from persyn_hf.backends.launching import Lost
from persyn_hf.backends.launching.plan import Plan
from persyn_hf.backends.loading import Dtype
from persyn_hf.errors import require


MODULE = "persyn_hf.backends.harness.launched"
WORK = "work.json"  # the newest work, and what is known of it
# What a process is told by its launcher, and a server that it starts must not take for its own.
LAUNCHED = re.compile(r"(MASTER|TORCHELASTIC|ACCELERATE|GROUP|ROLE)_|RANK$|WORLD_SIZE$|LOCAL_RANK$|LOCAL_WORLD_SIZE$")


@contextmanager
def open_launched(
    plan: Plan,
    model: str,
    revision: str | None,
    template: str | None,
    *,
    dtype: Dtype,
    batch_size: int,
    vllm: VllmSettings | None,
    folder: Path,
) -> Iterator[tuple[Engine, Sheet]]:
    """Open a student in the processes of a plan, which work in `folder`; vllm: by a server in each of them."""
    require("lm_eval", extra="eval", feature="Evaluation")
    sheet = open_sheet(model, revision, template, None if vllm is None else positions_of(vllm, model, revision))
    task = {
        "student": [model, revision, template],
        "dtype": dtype,
        "batch_size": batch_size,
        "vllm": None if vllm is None else vllm.model_dump(mode="json", exclude_unset=True),
        "cpu": plan.cpu,
        "key": plan.key,
    }
    engine = Launched(plan, folder, task, [model, *([template] if template else [])])
    try:
        yield engine, sheet
    finally:
        engine.stop()


class Launched:
    """The processes of a plan, of which each has the student. They start with the first work."""

    def __init__(self, plan: Plan, folder: Path, task: dict[str, Any], needs: Sequence[str]) -> None:
        self._plan, self._folder, self._task, self._needs = plan, folder, task, needs
        self._restarts = launch.Restarts(plan)
        self._running: Any = None  # the generator that has them
        self._offsets: dict[Path, int] = {}

    def answer(self, work: Work, share: Share, done: Done) -> None:
        """Have all processes answer a work. Those that are lost are started again, for what is left."""
        known = set(share.known)

        def keep(numbers: Sequence[int], values: Sequence[Any]) -> None:
            known.update(numbers)
            done(numbers, values)

        while True:
            try:
                return self._answer(work, known, keep)
            except Lost as lost:
                self.stop()
                self._restarts.spend(lost)

    def stop(self) -> None:
        """End the processes, and return when they are gone."""
        if self._running is not None:
            self._running.close()
        self._running = None

    def _answer(self, work: Work, known: set[int], done: Done) -> None:
        if self._running is None:
            self._offsets = {}
            launch.empty(self._folder)
            for rank in range(self._plan.processes):
                (self._folder / f"answered-{rank}.jsonl").touch()  # NFS may show new ones late
            (self._folder / launch.TASK).write_text(json.dumps(self._task), encoding="utf-8")
            self._running = launch.launch(self._plan, MODULE, self._folder, self._needs, self._restarts.again)
        part = self._folder / "work.part"
        part.write_text(json.dumps({"work": asdict(work), "known": sorted(known)}), encoding="utf-8")
        part.rename(self._folder / WORK)
        key, status = work.key, None
        for status in self._running:  # noqa: B007
            for of, numbers, values in launch.read_new(self._folder, "answered-*.jsonl", self._offsets):
                if of == key:
                    done(numbers, values)
            if len(known) == len(work.texts):
                return
        left = len(work.texts) - len(known)
        state = f"while {left} of {len(work.texts)} texts were still to be answered; what was answered is kept"
        raise launch.fault(self._plan, self._folder, status, state)


def main(folder: Path) -> None:
    """Answer in one of the processes, until the driver ends it."""
    place = launch.join(folder)
    with (
        (folder / f"answered-{place.rank}.jsonl").open("a", encoding="utf-8") as answered,
        launch.telling_faults(folder, place.rank),
        _open(json.loads((folder / launch.TASK).read_text(encoding="utf-8")), place, folder) as (engine, _),
    ):
        for work, known in _works(folder / WORK):
            key = work.key

            def done(numbers: Sequence[int], values: Sequence[Any], key: str = key) -> None:
                answered.write(json.dumps([key, list(numbers), list(values)]) + "\n")
                answered.flush()

            engine.answer(work, Share(frozenset(known), place.rank, place.world_size), done)


def _open(task: dict[str, Any], place: Any, folder: Path) -> AbstractContextManager[tuple[Engine, Sheet]]:
    """Open the student on the device of this process, or start its server on this node."""
    if task["vllm"] is None:
        device = launch.own_device(task["cpu"], place.local_rank, task["key"])
        return open_local(*task["student"], dtype=task["dtype"], batch_size=task["batch_size"], device=device)
    for name in [name for name in os.environ if LAUNCHED.match(name)]:
        del os.environ[name]
    settings = VllmSettings.model_validate(task["vllm"])
    return open_served(*task["student"], dtype=task["dtype"], settings=settings, log=folder / f"vllm-{place.rank}.log")


def _works(path: Path) -> Iterator[tuple[Work, list[int]]]:
    """Yield every work that the driver writes, and what is known of it."""
    last = None
    while True:
        try:
            with path.open(encoding="utf-8") as file:  # NFS looks anew when a file is opened
                state = os.fstat(file.fileno())
                mark = (state.st_ino, state.st_mtime_ns)
                if mark != last:
                    last, given = mark, json.load(file)
                    yield Work(**given["work"]), given["known"]
        except FileNotFoundError:
            pass
        time.sleep(launch.POLL_S)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
