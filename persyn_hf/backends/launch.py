"""Run work in the processes of `accelerate launch`, follow it as it goes, and end it for certain.

The work is a module that runs as `python -m MODULE FOLDER` in every process. The folder holds its task, and everything
that the processes report. For a training in two processes that is, for example:

    task.json          written before the start: settings, paths, seed
    done               "..." after three steps: `advancing` adds a character for each, `follow` looks at the size
    result.json        left by the first process at the end (`leave`), and returned by `follow`
    fault-1.json       left by process 1 if it fails (`telling_faults`): the user reads its sentence and not a log
    log                what the processes print
    launcher/          what torch's launcher notes of each process
"""

import json
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from persyn_hf import errors
from persyn_hf.backends.engines.vllm_server import telling_lines
from persyn_hf.backends.launching import Lost
from persyn_hf.backends.launching.command import LOG
from persyn_hf.backends.launching.plan import Plan
from persyn_hf.backends.launching.start import start
from persyn_hf.errors import EngineError


TASK = "task.json"
DONE = "done"  # a file with one character for every unit of work that is done
RESULT = "result.json"
POLL_S = 0.2

# What torch's launcher adds to the log of its processes: warnings, prefixes, and a table of what it has just said.
LAUNCHER = re.compile(r"^W\d{4} .*\n|^E\d{4} [^]]*\] ", re.MULTILINE)
SUMMARY = "torch.distributed.elastic.multiprocessing.errors.ChildFailedError"

Made = TypeVar("Made")


class Restarts:
    """The starts that a plan's executor still allows after processes were lost; `again`: some were."""

    def __init__(self, plan: Plan | None) -> None:
        self._left = plan.executor.max_restarts if plan is not None and plan.executor is not None else 0
        self.again = False

    def spend(self, lost: Lost) -> None:
        """Take one of them, or raise what was lost."""
        if not self._left:
            raise lost
        self._left, self.again = self._left - 1, True


def restarting(plan: Plan | None, once: Callable[[bool], Made]) -> Made:
    """Call `once` with False; where processes were lost, with True, at most as often as the executor says."""
    restarts = Restarts(plan)
    while True:
        try:
            return once(restarts.again)
        except Lost as lost:
            restarts.spend(lost)


def empty(folder: Path) -> None:
    """Make the folder anew. Processes of an earlier launch that still write are left alone with the one before."""
    if folder.exists():
        old = folder.with_name(f"{folder.name}-{time.time_ns()}")
        folder.rename(old)
        shutil.rmtree(old, ignore_errors=True)
    folder.mkdir(parents=True)


def seen_by_all(plan: Plan | None, folder: Path, work_dir: Path) -> Path:
    """Return the folder of a stored model where all processes see it: the store may be the driver's own."""
    if plan is None or plan.executor is None or plan.executor.shared is None:
        return folder
    copy = work_dir / "model"
    if not copy.exists():
        part = work_dir / "model.part"
        shutil.copytree(folder, part, dirs_exist_ok=True)
        part.rename(copy)
    return copy


def launch(
    plan: Plan, module: str, folder: Path, needs: Sequence[str] = (), again: bool = False
) -> Iterator[int | None]:
    """Start the processes (`start`); yield None a few times a second while they run, then their exit status."""
    started = start(plan, module, folder, needs, again)
    try:
        status = None
        while status is None:
            time.sleep(POLL_S)
            status = started.poll()  # before the caller reads what they wrote, or it would miss the last of it
            yield status
    finally:
        started.stop()


def follow(
    plan: Plan,
    module: str,
    folder: Path,
    advance: Callable[[int], None] | None,
    state: str,
    needs: Sequence[str] = (),
    again: bool = False,
) -> Any:
    """Run the processes (`start`) to their end and return the result that the first one left (`leave`).

    `advance` gets the number of units of work that were done since its last call (`advancing`). The folder is removed.
    Raises the `fault` where the processes end without a result; `state` says what is done and left then.
    """
    before, status = 0, None
    for status in launch(plan, module, folder, needs, again):  # noqa: B007
        done = (folder / DONE).stat().st_size if (folder / DONE).exists() else 0
        if advance is not None and done > before:
            advance(done - before)
        before = done
    if status or not (folder / RESULT).exists():
        raise fault(plan, folder, status, state)
    result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    shutil.rmtree(folder)
    return result


def advancing(folder: Path) -> Callable[[int], None]:
    """Return the function by which a process reports units of work that are done to `follow`."""

    def advance(count: int) -> None:
        with (folder / DONE).open("a", encoding="utf-8") as done:
            done.write("." * count)

    return advance


def leave(folder: Path, result: Any) -> None:
    """Leave the result (plain JSON) of the first process for `follow`, whole or not at all."""
    part = folder / "result.part"
    part.write_text(json.dumps(result), encoding="utf-8")
    part.rename(folder / RESULT)


def fault(plan: Plan, folder: Path, status: int | None, state: str) -> errors.PersynError:
    """Make the error for processes that failed: the sentence of the first one that left any, else a quote of the log.

    `status` is the exit status; `state` says what was left to do and what is kept ("while 3 rows were ...").
    """
    for path in sorted(folder.glob("fault-*.json"), key=lambda path: path.stat().st_mtime_ns):
        left = json.loads(path.read_text(encoding="utf-8"))
        error: errors.PersynError = getattr(errors, left["kind"])(left["sentence"])
        return error
    says = ""
    for path in sorted(folder.glob(f"{LOG}*")):  # one for each machine
        log = path.read_text(encoding="utf-8", errors="replace").partition(SUMMARY)[0]
        if quote := "".join(f"\n    {line}" for line in telling_lines(LAUNCHER.sub("", log))):
            says += f"; its log {path} says:{quote}"
    kind = EngineError if plan.executor is None else Lost
    return kind(f"`accelerate launch` ended with status {status} {state}: mend the cause and run again{says}")


def read_new(folder: Path, pattern: str, offsets: dict[Path, int]) -> Iterator[Any]:
    """Yield the lines of JSON that were written whole since the last call; `offsets` remembers how far that is.

    One that a power cut has torn is left out.
    """
    for path in sorted(folder.glob(pattern)):
        with path.open("rb") as file:
            file.seek(offsets.get(path, 0))
            whole, end, _ = file.read().rpartition(b"\n")
        offsets[path] = offsets.get(path, 0) + len(whole + end)
        yield from read_lines(whole)


def read_lines(data: bytes) -> Iterator[Any]:
    """Yield lines of JSON; one that was torn, by a kill or a power cut, is left out."""
    for line in data.splitlines():
        with suppress(ValueError):
            yield json.loads(line)


@contextmanager
def telling_faults(folder: Path, rank: int) -> Iterator[None]:
    """Leave the sentence of a fault for `fault`, and end this process with status 1."""
    try:
        yield
    except errors.PersynError as error:
        part = folder / f"fault-{rank}.part"
        part.write_text(json.dumps({"kind": type(error).__name__, "sentence": str(error)}), encoding="utf-8")
        part.rename(part.with_suffix(".json"))
        sys.exit(1)


def join(folder: Path) -> Any:
    """Return this process's rank, world_size and local_rank, and have it end when its launcher or its task ends.

    A launcher that was killed can no longer end the processes that it started. A process that no one can reach any
    more must not go on to write when others have taken over its folder, and with it the task.
    """
    from accelerate.utils.environment import get_cpu_distributed_information

    threading.Thread(target=_end_with, args=[os.getppid(), folder / TASK], daemon=True).start()
    return get_cpu_distributed_information()  # as torchrun, MPI or nobody has set it; true of GPUs as well


def _end_with(launcher: int, task: Path) -> None:
    written = task.stat().st_mtime_ns
    while os.getppid() == launcher and _is_as_then(task, written):
        time.sleep(POLL_S)
    os._exit(1)


def _is_as_then(task: Path, written: int) -> bool:
    try:
        return task.stat().st_mtime_ns == written
    except FileNotFoundError:
        return False
    except OSError:  # a network file system that is away for a moment
        return True


def own_device(cpu: bool, local_rank: int, key: str) -> str:
    """Choose the device of this process: a GPU of its own, unless there is none or the config asks for the CPU.

    Raises `EngineError` where there are fewer devices than processes.
    """
    import torch

    accelerator = None if cpu else torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return "cpu"
    count = torch.accelerator.device_count()
    if local_rank >= count:
        raise EngineError(
            f"the config of `{key}` starts more processes than this machine has devices ({count}); "
            "lower its `num_processes`, or set `use_cpu: true`"
        )
    torch.accelerator.set_device_index(local_rank)
    return f"{accelerator.type}:{local_rank}"
