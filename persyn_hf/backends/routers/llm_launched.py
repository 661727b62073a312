"""Training the llm router in the processes of `accelerate launch`; each of them runs this file's `main`."""

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from persyn_hf.backends import launch
from persyn_hf.backends.routers import Advance, Labelled, RouterSettings
from persyn_hf.errors import InputError


TASK, EPOCHS, RECORD = "task.json", "epochs", "record.json"
KEY = "train_router.accelerate"
SHARDED = ("FSDP", "DEEPSPEED", "MEGATRON_LM")


def train(
    settings: RouterSettings,
    teachers: tuple[str, ...],
    train: Labelled,
    validation: Labelled,
    alpha: float | None,
    folder: Path,
    seed: int,
    advance: Advance | None,
) -> dict[str, Any]:
    """As `llm_training.train`, in the processes that the file `settings.accelerate` names."""
    assert settings.accelerate is not None
    config = launch.read_config(settings.accelerate, KEY, "a router is trained")
    kind = getattr(config.distributed_type, "value", config.distributed_type)
    if kind in SHARDED:
        raise InputError(
            f"the accelerate config {settings.accelerate} is of type {kind}, and a router is "
            "trained whole on every device; write `distributed_type: MULTI_GPU`, and `method: lora` where memory lacks"
        )
    place = folder.with_name(f"{folder.name}-launch")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    task = {
        "settings": settings.model_dump(mode="json", include=set(RouterSettings.model_fields)),
        "teachers": teachers,
        "alpha": alpha,
        "folder": str(folder),
        "seed": seed,
        "cpu": bool(config.use_cpu),
    }
    (place / TASK).write_text(json.dumps(task), encoding="utf-8")
    for name, part in (("train", train), ("validation", validation)):
        _write(place / name, part)
    told, status = 0, None
    for status in launch.launch(settings.accelerate, "persyn_hf.backends.routers.llm_launched", place):  # noqa: B007
        done = (place / EPOCHS).stat().st_size if (place / EPOCHS).exists() else 0
        if advance is not None and done > told:
            advance(done - told)
        told = done
    if status or not (place / RECORD).exists():
        raise launch.fault(place, status, "before the router was trained; its last checkpoint is kept")
    record: dict[str, Any] = json.loads((place / RECORD).read_text(encoding="utf-8"))
    shutil.rmtree(place)
    return record


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
    """Train in one of the processes; the first one tells of epochs and leaves the record."""
    rank = launch.join()
    with launch.telling_faults(place, rank.rank):
        from persyn_hf.backends.routers import llm_training

        task: Mapping[str, Any] = json.loads((place / TASK).read_text(encoding="utf-8"))
        device = launch.own_device(task["cpu"], rank.local_rank, KEY)
        settings = RouterSettings.model_validate({**task["settings"], "accelerate": None, "device": device})

        def advance(count: int) -> None:
            with (place / EPOCHS).open("a", encoding="utf-8") as epochs:
                epochs.write("." * count)

        record = llm_training.train(
            settings,
            tuple(task["teachers"]),
            _read(place / "train"),
            _read(place / "validation"),
            task["alpha"],
            Path(task["folder"]),
            task["seed"],
            advance if rank.rank == 0 else None,
        )
        if rank.rank == 0:
            part = place / "record.part"
            part.write_text(json.dumps(record), encoding="utf-8")
            part.rename(place / RECORD)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
