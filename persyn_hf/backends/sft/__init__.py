"""Fine-tune one student with TRL on rows of token ids and labels, in this process or in several.

    training.py        the rows in their order, the trainer, its checkpoints
    student_model.py   the student as it is trained, and as it is saved
    launched.py        the same in the processes of `accelerate launch`

A killed training goes on from its last checkpoint, and ends with the weights that it would have had.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persyn_hf.backends.launch import restarting
from persyn_hf.backends.launching.plan import Plan
from persyn_hf.backends.loading import Dtype
from persyn_hf.backends.tracking import Tracker
from persyn_hf.errors import InputError, RecipeError, reason, require
from persyn_hf.stage import Progress


if TYPE_CHECKING:
    from datasets import Dataset


__all__ = ["IGNORED", "LORA_ABOVE", "Schedule", "Training", "describe", "train"]

IGNORED = -100  # label of a token that carries no loss
LORA_ABOVE = 14e9  # parameters; the paper's Tables 9 and 10


@dataclass(frozen=True, kw_only=True)
class Training:
    """The model that is trained and how, in plain values that other processes can read."""

    model: str
    revision: str | None
    chat_template: str | None
    stored_dtype: str  # of the weights, before and after
    end: int  # the token that ends a turn
    learning_rate: float
    epochs: float
    batch_size: int
    per_device_batch_size: int
    warmup_steps: int
    scheduler: str
    weight_decay: float
    lora: bool
    lora_rank: int
    lora_alpha: int
    dtype: Dtype
    gradient_checkpointing: bool | None
    save_steps: int
    seed: int
    report_to: Sequence[Tracker] = ()
    project: str = ""  # of the trackers
    run: str = ""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The optimiser steps of a training."""

    per_epoch: int
    total: int
    warmup: int

    @classmethod
    def of(cls, training: Training, rows: int) -> "Schedule":
        """Compute the steps of a training on `rows` rows."""
        per_epoch = math.ceil(rows / training.batch_size)
        total = math.ceil(training.epochs * per_epoch)
        return cls(per_epoch=per_epoch, total=total, warmup=min(training.warmup_steps, total // 2))


def describe(model: str, revision: str | None) -> tuple[int, str, int | None]:
    """Read from config.json alone a model's number of parameters, stored dtype and positions (None: it says none).

    Raises `InputError` where the config cannot be loaded.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(model, revision=revision, trust_remote_code=False)
        with torch.device("meta"):
            size = AutoModelForCausalLM.from_config(config).num_parameters()
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"the config of the student {model} cannot be loaded: {reason(error)}") from None
    dtype = str(config.dtype or torch.float32).removeprefix("torch.")
    return int(size), dtype, getattr(config.get_text_config(), "max_position_embeddings", None)


def check_batch(training: Any, plan: Plan | None) -> None:
    """Refuse a batch (`batch_size`, `per_device_batch_size`) that the processes cannot share (`RecipeError`)."""
    processes = plan.processes if plan else 1
    together = training.per_device_batch_size * processes
    if training.batch_size % together:
        raise RecipeError(
            "`train_student.batch_size` must be a multiple of `per_device_batch_size` x processes = "
            f"{training.per_device_batch_size} x {processes} = {together}, got {training.batch_size}"
        )


def train(
    training: Training, examples: "Dataset", folder: Path, progress: Progress, plan: Plan | None = None
) -> list[list[float]]:
    """Fine-tune on `examples` (token ids, labels) and leave the student in `folder`, ready for `from_pretrained`.

    Returns the loss curve: [step, mean nats per trained token since the last entry]. Checkpoints are kept next to
    `folder`. With LoRA the adapters are merged, and are in `adapter/` as well. The same seed, threads and machine give
    the same weights on the CPU. With a `plan`, its processes do the training.
    Raises `RecipeError` where the batch size does not divide, or the loss is no number.
    """
    require("trl", extra="train", feature="Training a student")
    if training.lora:
        require("peft", extra="train", feature="LoRA training")
    from persyn_hf.backends.sft import launched
    from persyn_hf.backends.sft import training as here
    from persyn_hf.backends.sft.student_model import merge

    check_batch(training, plan)
    checkpoints = folder.with_name(f"{folder.name}-checkpoints-{launched.layout(plan)}")

    def once(again: bool) -> list[list[float]]:
        last, done = here.clear(checkpoints)
        progress.start("training the student", Schedule.of(training, len(examples)).total, done)
        if plan is None:
            return here.train(training, examples, folder, checkpoints, last, progress.advance)
        return launched.train(plan, training, examples, folder, checkpoints, last, progress.advance, again)

    curve = restarting(plan, once)
    if training.lora:
        merge(training, folder)
    return curve
