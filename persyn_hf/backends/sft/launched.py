"""Train a student in the processes of `accelerate launch`; each of them runs this file's `main`."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persyn_hf.backends import launch
from persyn_hf.backends.launching.plan import Plan, plan_of
from persyn_hf.backends.sft import Training
from persyn_hf.errors import InputError, require


if TYPE_CHECKING:
    from datasets import Dataset


ROWS = "rows.arrow"
MODULE = "persyn_hf.backends.sft.launched"
KINDS = ("NO", "MULTI_GPU", "FSDP", "DEEPSPEED")


def read_plan(settings: Any) -> Plan | None:
    """Read the plan, and refuse one that a student cannot be trained by before anything is started."""
    plan = plan_of(settings, "train_student")
    if plan is None:
        return None
    if plan.kind not in KINDS:
        raise InputError(
            f"the accelerate config {plan.path} is of type {plan.kind}, and a student is trained by "
            f"{', '.join(KINDS)}; write one of these as its `distributed_type`"
        )
    if plan.kind == "DEEPSPEED":
        require("deepspeed", extra="deepspeed", feature=f"the accelerate config {plan.path}")
        if plan.deepspeed.get("zero_stage") == 3 and not plan.deepspeed.get("zero3_save_16bit_model"):
            raise InputError(
                f"the accelerate config {plan.path} shards the weights (`zero_stage: 3`) and does not gather them; "
                "write `zero3_save_16bit_model: true` under `deepspeed_config`"
            )
    return plan


def layout(plan: Plan | None) -> str:
    """Name what checkpoints depend on besides the training: sharded ones fit the same number of processes only."""
    return "1" if plan is None else f"{plan.kind}-{plan.processes}".lower()


def train(
    plan: Plan,
    training: Training,
    examples: "Dataset",
    folder: Path,
    checkpoints: Path,
    last: Path | None,
    advance: Callable[[int], None],
    again: bool,
) -> list[list[float]]:
    """Train by `training.train` in the processes of the plan, and return the loss curve.

    again: after others were lost.
    """
    from datasets.arrow_writer import ArrowWriter

    place = folder.with_name(f"{folder.name}-launch")
    launch.empty(place)
    task = {
        "training": asdict(training),
        "folder": str(folder),
        "checkpoints": str(checkpoints),
        "last": last and str(last),
        "cpu": plan.cpu,
        "key": plan.key,
    }
    (place / launch.TASK).write_text(json.dumps(task), encoding="utf-8")
    with ArrowWriter(path=str(place / ROWS), features=examples.features) as writer:
        writer.write_table(examples.data.table)
        writer.finalize()
    needs = [training.model, *([training.chat_template] if training.chat_template else [])]
    state = "before the student was trained; its last checkpoint is kept"
    curve: list[list[float]] = launch.follow(plan, MODULE, place, advance, state, needs, again)
    return curve


def main(place: Path) -> None:
    """Train in one of the processes; the first one counts the steps and leaves the loss curve."""
    process = launch.join(place)
    with launch.telling_faults(place, process.rank):
        from datasets import Dataset

        from persyn_hf.backends.sft import training as here

        task: dict[str, Any] = json.loads((place / launch.TASK).read_text(encoding="utf-8"))
        os.environ.pop("ACCELERATE_MIXED_PRECISION", None)  # of the config; `train_student.dtype` decides
        launch.own_device(task["cpu"], process.local_rank, task["key"])

        curve = here.train(
            Training(**task["training"]),
            Dataset.from_file(str(place / ROWS)),
            Path(task["folder"]),
            Path(task["checkpoints"]),
            Path(task["last"]) if task["last"] else None,
            launch.advancing(place),
            task["cpu"],
        )
        if process.rank == 0:
            launch.leave(place, curve)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
