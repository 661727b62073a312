"""Supervised fine-tuning with TRL: one student, (prompt, completion) rows, loss on the response and its end of turn.

What TRL would leave open is settled before it starts: the token that ends a turn is found in the chat template and
made the one that generation stops on, and padding is another token. TRL is given token ids and labels, not text.
"""

import contextlib
import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persyn_hf.backends.models import no_bars, suitable_threads
from persyn_hf.errors import InputError, RecipeError, reason, require
from persyn_hf.stage import Progress


if TYPE_CHECKING:
    from datasets import Dataset


LORA_ABOVE = 14e9  # parameters; the paper's Tables 9 and 10
PAD_CANDIDATES = ("<|finetune_right_pad_id|>", "<pad>", "<|pad|>", "[PAD]", "<unk>", "<|endoftext|>")


@dataclass(frozen=True, kw_only=True)
class Training:
    """Hyper-parameters as they are used, nothing left to be decided."""

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
    bfloat16: bool
    gradient_checkpointing: bool
    seed: int
    saved_dtype: Any  # torch dtype of the weights in the folder


def size_and_dtype(model: str, revision: str | None) -> tuple[int, Any]:
    """Parameters of a model and the dtype it is stored in, from config.json alone."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(model, revision=revision, trust_remote_code=False)
        with torch.device("meta"):
            size = AutoModelForCausalLM.from_config(config).num_parameters()
        return int(size), config.dtype or torch.float32
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"the config of the student {model} cannot be loaded: {reason(error)}") from None


def align(model: Any, tokenizer: Any, end: int) -> None:
    """Make generation stop on `end` and pad with another token, in the tokenizer and in both configs of the model."""
    before = model.generation_config.eos_token_id
    stops = before if isinstance(before, list) else [] if before is None else [before]
    former = tokenizer.eos_token
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
    vocabulary = tokenizer.get_vocab()
    if tokenizer.pad_token is None or tokenizer.pad_token_id == end:
        names = [name for name in (*PAD_CANDIDATES, former) if name in vocabulary and vocabulary[name] != end]
        tokenizer.add_special_tokens({"pad_token": names[0] if names else "<|pad|>"})
    if max(end, tokenizer.pad_token_id) >= model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer))
    rest = [token for token in stops if token != end]
    model.generation_config.eos_token_id = [end, *rest] if rest else end
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.config.get_text_config().eos_token_id = end
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id


def train(
    model: Any, tokenizer: Any, examples: "Dataset", training: Training, folder: Path, progress: Progress
) -> dict[str, Any]:
    """Fine-tune `model` on `examples` (token ids, labels) and leave it in `folder`, ready for `from_pretrained`.

    Returns steps, the loss curve as [step, mean nats per trained token since the last entry] and the warm-up used.
    The same seed, threads and machine give the same weights on the CPU. What a killed run left in `folder` goes.
    """
    trl = require("trl", extra="train", feature="Training a student")
    from transformers import PrinterCallback

    scratch = folder.with_name(folder.name + ".trainer")
    args = _arguments(trl, training, len(examples), scratch)
    callback = _callback(progress)
    with _deterministic(), suitable_threads(model):
        trainer = trl.SFTTrainer(
            model=model,
            args=args,
            train_dataset=examples,
            processing_class=tokenizer,
            callbacks=[callback],
            peft_config=_lora(training) if training.lora else None,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    shutil.rmtree(folder, ignore_errors=True)
    with no_bars():
        _save(trainer, tokenizer, training, folder)
    shutil.rmtree(scratch, ignore_errors=True)
    return {"steps": trainer.state.global_step, "loss": callback.curve, "warmup_steps": args.warmup_steps}


def _arguments(trl: Any, training: Training, rows: int, scratch: Path) -> Any:
    """TRL's arguments: no packing, no truncation, no checkpoints, no reports."""
    import torch

    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1 and torch.cuda.device_count() > 1:
        raise RecipeError(
            f"{torch.cuda.device_count()} GPUs are visible, and a student is trained on one so far; show it one with "
            "CUDA_VISIBLE_DEVICES=0"
        )
    together = training.per_device_batch_size * world
    if training.batch_size % together:
        raise RecipeError(
            f"`batch_size` must be a multiple of `per_device_batch_size` x processes = {together}, "
            f"got {training.batch_size}"
        )
    accumulation = training.batch_size // together
    micro_batches = math.ceil(rows / together)
    steps = math.ceil(training.epochs * math.ceil(micro_batches / accumulation))
    return trl.SFTConfig(
        output_dir=str(scratch),
        learning_rate=training.learning_rate,
        num_train_epochs=training.epochs,
        per_device_train_batch_size=training.per_device_batch_size,
        gradient_accumulation_steps=accumulation,
        warmup_steps=min(training.warmup_steps, steps // 2),
        lr_scheduler_type=training.scheduler,
        weight_decay=training.weight_decay,
        optim="adamw_torch_fused",
        bf16=training.bfloat16,
        use_cpu=not torch.cuda.is_available(),
        gradient_checkpointing=training.gradient_checkpointing,
        completion_only_loss=True,
        packing=False,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        dataloader_pin_memory=torch.cuda.is_available(),
        seed=training.seed,
        data_seed=training.seed,
        logging_steps=max(1, steps // 100),
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def _lora(training: Training) -> Any:
    peft = require("peft", extra="train", feature="LoRA training")
    return peft.LoraConfig(
        r=training.lora_rank,
        lora_alpha=training.lora_alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def _callback(progress: Progress) -> Any:
    """Tells `progress` of every step and keeps the loss curve."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def __init__(self) -> None:
            self.curve: list[list[float]] = []

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            progress.start("training the student", total=state.max_steps)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            progress.advance()

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
            if logs and "loss" in logs:
                self.curve.append([state.global_step, logs["loss"]])

    return Watch()


@contextlib.contextmanager
def _deterministic() -> Iterator[None]:
    """Deterministic kernels where there are any; the process gets its own settings back."""
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


def _save(trainer: Any, tokenizer: Any, training: Training, folder: Path) -> None:
    """Weights (adapters merged, in the dtype that the student came in), configs, tokenizer and chat template only."""
    model = trainer.model
    if training.lora:
        model = model.merge_and_unload()
        if trainer.is_world_process_zero():
            model.to(training.saved_dtype).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        return
    if trainer.accelerator.num_processes == 1:
        model.to(training.saved_dtype)
    trainer.save_model(str(folder))
    (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle
