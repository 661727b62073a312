"""Train by TRL's SFTTrainer, in one process or in each process of `accelerate launch` (launched.py).

The order of the rows and the steps that they make depend on the seed and the batch size alone, not on the number of
processes or on kills. A checkpoint counts once all processes have written their parts of it.
"""

import contextlib
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persyn_hf.backends import tracking
from persyn_hf.backends.loading import Dtype, no_logs, suitable_threads
from persyn_hf.backends.sft import IGNORED, Schedule, Training
from persyn_hf.backends.sft.student_model import load, save
from persyn_hf.errors import EngineError, RecipeError, reason


if TYPE_CHECKING:
    from datasets import Dataset


WHOLE = "whole"  # empty file in a checkpoint, written last
KEPT = 2  # checkpoints
POINTS = 100  # of the loss curve, at least, where there are that many steps


def clear(checkpoints: Path) -> tuple[Path | None, int]:
    """Find the last whole checkpoint of a killed training and its step (None, 0 without), and remove broken ones."""
    whole = []
    for folder in checkpoints.glob("checkpoint-*"):
        if (folder / WHOLE).exists():
            whole.append((int(folder.name.rpartition("-")[2]), folder))
        else:
            shutil.rmtree(folder, ignore_errors=True)  # its processes may be about to end
    step, last = max(whole, default=(0, None))
    return last, step


def train(
    training: Training,
    examples: "Dataset",
    folder: Path,
    checkpoints: Path,
    last: Path | None,
    advance: Callable[[int], None],
    cpu: bool = False,
) -> list[list[float]]:
    """Train from the checkpoint `last` on, save the student in `folder`, and return the loss curve.

    `advance` gets the number of steps that were done. Raises `EngineError` where memory is short, and `RecipeError`
    where the loss is no number.
    """
    import torch
    import trl
    from transformers import PrinterCallback

    cpu = cpu or not torch.cuda.is_available()
    able = not cpu and torch.cuda.is_bf16_supported()
    bfloat16 = training.dtype == "bfloat16" or (training.dtype == "auto" and able)
    args = _arguments(training, Schedule.of(training, len(examples)), checkpoints, cpu, bfloat16)
    # Full fine-tuning keeps float32 weights (bfloat16 ones would swallow updates of 2e-5); frozen ones need not be.
    dtype: Dtype = "bfloat16" if training.lora and bfloat16 else "float32"
    model, tokenizer, fresh = load(training, dtype)  # after the arguments: sharded loading goes by them
    try:
        with _deterministic(), suitable_threads(model), no_logs():
            trainer = trl.SFTTrainer(
                model=model,
                args=args,
                train_dataset=lay_out(training, examples),
                processing_class=tokenizer,
                callbacks=[_watch(advance)],
                peft_config=_lora(training, model, fresh) if training.lora else None,
            )
            trainer.remove_callback(PrinterCallback)
            if training.lora and fresh:
                _show_bias(trainer.model.get_output_embeddings())
            trainer.train(resume_from_checkpoint=str(last) if last else None)
            save(trainer, tokenizer, training, folder)
    except torch.OutOfMemoryError as error:
        raise EngineError(
            f"the student `{training.model}` does not fit its device in training ({reason(error)}); lower "
            "`train_student.per_device_batch_size`, take `method: lora`, or shard it by `train_student.accelerate`"
        ) from None
    return [[line["step"], line["loss"]] for line in trainer.state.log_history if "loss" in line]


def lay_out(training: Training, examples: "Dataset") -> "Dataset":
    """Lay the rows out as they are trained on: each epoch in its own order, its last step filled up with empty rows.

    Without these, accelerate would give a process that has no row left one from the start of the epoch again.
    """
    import torch
    from datasets import Dataset, concatenate_datasets

    rows, schedule = len(examples), Schedule.of(training, len(examples))
    lacking = schedule.per_epoch * training.batch_size - rows
    order: list[int] = []
    for epoch in range(math.ceil(training.epochs)):
        generator = torch.Generator().manual_seed(training.seed + epoch)  # as accelerate draws it
        order += [*torch.randperm(rows, generator=generator).tolist(), *[rows] * lacking]
    nothing = {"input_ids": [[training.end] * 2], "labels": [[IGNORED] * 2]}
    empty = Dataset.from_dict(nothing, features=examples.features)
    return concatenate_datasets([examples, empty]).select(order[: schedule.total * training.batch_size])


def _arguments(training: Training, schedule: Schedule, checkpoints: Path, cpu: bool, bfloat16: bool) -> Any:
    """Make TRL's arguments: no packing, no truncation, no reports."""
    import trl

    logging_steps = max(1, schedule.total // POINTS)
    args = trl.SFTConfig(
        output_dir=str(checkpoints),
        learning_rate=training.learning_rate,
        num_train_epochs=1,  # the rows are laid out for all of them
        per_device_train_batch_size=training.per_device_batch_size,
        warmup_steps=schedule.warmup,
        lr_scheduler_type=training.scheduler,
        weight_decay=training.weight_decay,
        optim="adamw_torch_fused",
        bf16=bfloat16,
        use_cpu=cpu,
        gradient_checkpointing=not cpu if training.gradient_checkpointing is None else training.gradient_checkpointing,
        ddp_find_unused_parameters=False,
        completion_only_loss=True,
        packing=False,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        train_sampling_strategy="sequential",  # the order is that of `lay_out`
        dataloader_pin_memory=not cpu,
        seed=training.seed,
        logging_steps=logging_steps,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=math.ceil(training.save_steps / logging_steps) * logging_steps,  # else a resumed curve would differ
        save_total_limit=KEPT,
        **tracking.arguments(tracking.Tracked(training.report_to, training.project, training.run)),
        disable_tqdm=True,
    )
    if args.n_gpu > 1:
        raise RecipeError(
            f"{args.n_gpu} GPUs are visible to one process; give `train_student.accelerate` the config file of "
            "`accelerate launch`, or show it one GPU with CUDA_VISIBLE_DEVICES=0"
        )
    args.gradient_accumulation_steps = training.batch_size // (training.per_device_batch_size * args.world_size)
    return args


def _lora(training: Training, model: Any, fresh: list[int]) -> Any:
    """Put adapters on all linear layers; of embeddings and head, only the rows of new tokens are trained."""
    import peft

    tables = [model.get_input_embeddings(), model.get_output_embeddings()]
    names = [name.rpartition(".")[2] for name, module in model.named_modules() if any(module is t for t in tables)]
    return peft.LoraConfig(
        r=training.lora_rank,
        lora_alpha=training.lora_alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
        trainable_token_indices=dict.fromkeys(names, fresh) if fresh else None,
        task_type="CAUSAL_LM",
    )


def _show_bias(head: Any) -> None:
    """Show the bias of a head with trained rows: TRL reads it, and PEFT shows the weights only."""
    head.bias = head.token_adapter.base_layer.bias


def _watch(advance: Callable[[int], None]) -> Any:
    """Make the callback that counts steps, stops where the loss is no number, and marks checkpoints as whole."""
    from accelerate import PartialState
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.is_world_process_zero:
                advance(1)

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
            loss = (logs or {}).get("loss", 0.0)
            if not math.isfinite(loss):
                raise RecipeError(
                    f"training the student diverged by step {state.global_step}: the loss is {loss}; lower "
                    "`train_student.learning_rate`"
                )

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            PartialState().wait_for_everyone()
            if state.is_world_process_zero:
                (Path(args.output_dir) / f"checkpoint-{state.global_step}" / WHOLE).touch()

    return Watch()


@contextlib.contextmanager
def _deterministic() -> Iterator[None]:
    """Use deterministic kernels where there are any, and restore the settings of the process afterwards."""
    import torch

    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # costs time and decides nothing
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.utils.deterministic.fill_uninitialized_memory = fill
