"""Train the llm router in the processes of `accelerate launch`; each of them runs this file's `main`."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from persyn_hf.backends import launch
from persyn_hf.backends.launching.plan import plan_of
from persyn_hf.backends.routers import Labelled, RouterSettings
from persyn_hf.backends.routers.llm_model import LlmTraining
from persyn_hf.backends.tracking import Tracked
from persyn_hf.errors import InputError


MODULE = "persyn_hf.backends.routers.llm_launched"
SHARDED = ("FSDP", "DEEPSPEED", "MEGATRON_LM")


def train(training: LlmTraining) -> dict[str, Any]:
    """Train by `llm_training.train` in the processes that the settings name; return the record."""
    settings, folder = training.settings, training.folder
    plan = plan_of(settings, "train_router")
    assert plan is not None
    if plan.kind in SHARDED:
        raise InputError(
            f"the accelerate config {settings.accelerate} is of type {plan.kind}, and a router is "
            "trained whole on every device; write `distributed_type: MULTI_GPU`, and `method: lora` where memory lacks"
        )
    place = folder.with_name(f"{folder.name}-launch")
    task = {
        "settings": settings.model_dump(
            mode="json", include=set(RouterSettings.model_fields) - {"accelerate", "executor"}
        ),
        "teachers": training.teachers,
        "alpha": training.alpha,
        "folder": str(folder),
        "seed": training.seed,
        "cpu": plan.cpu,
        "key": plan.key,
        "tracked": training.tracked,
    }
    state = "before the router was trained; its last checkpoint is kept"
    needs = [settings.backbone]
    most = 0  # epochs that were reported; a training that goes on counts those of its checkpoint again

    def once(again: bool) -> dict[str, Any]:
        epochs = 0

        def advance(count: int) -> None:
            nonlocal epochs, most
            epochs += count
            if epochs > most and training.advance is not None:
                training.advance(epochs - most)
            most = max(most, epochs)

        launch.empty(place)
        for name, part in (("train", training.train), ("validation", training.validation)):
            _write(place / name, part)
        (place / launch.TASK).write_text(json.dumps(task), encoding="utf-8")
        record: dict[str, Any] = launch.follow(plan, MODULE, place, advance, state, needs, again)
        return record

    return launch.restarting(plan, once)


def _write(path: Path, labelled: Labelled) -> None:
    conversations = [[dict(turn) for turn in messages] for messages in labelled.conversations]
    path.with_suffix(".json").write_text(json.dumps(conversations), encoding="utf-8")
    matrices = labelled._asdict()
    np.savez(path.with_suffix(".npz"), **{k: v for k, v in matrices.items() if k != "conversations" and v is not None})


def _read(path: Path) -> Labelled:
    conversations = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as matrices:
        return Labelled(conversations, **matrices)


def main(place: Path) -> None:
    """Train in one of the processes; the first one counts the epochs and leaves the record."""
    process = launch.join(place)
    with launch.telling_faults(place, process.rank):
        from persyn_hf.backends.routers import llm_training

        task: Mapping[str, Any] = json.loads((place / launch.TASK).read_text(encoding="utf-8"))
        device = launch.own_device(task["cpu"], process.local_rank, task["key"])
        training = LlmTraining(
            settings=RouterSettings.model_validate({**task["settings"], "device": device}),
            teachers=tuple(task["teachers"]),
            train=_read(place / "train"),
            validation=_read(place / "validation"),
            alpha=task["alpha"],
            folder=Path(task["folder"]),
            seed=task["seed"],
            advance=launch.advancing(place) if process.rank == 0 else None,
            tracked=Tracked(*task["tracked"]),
        )
        record = llm_training.train(training)
        if process.rank == 0:
            launch.leave(place, record)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
