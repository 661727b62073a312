"""Train the llm router by transformers' Trainer, with one forward pass per prompt and all its comparisons in the loss.

Checkpoints are kept next to the router's folder. Their name tells what is trained, so that a killed run is taken up
again and no other one is. The training runs in one process, or in each process of `accelerate launch`
(llm_launched.py).
"""

import hashlib
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerState, TrainingArguments

from persyn_hf.backends import tracking
from persyn_hf.backends.loading import no_logs, suitable_threads
from persyn_hf.backends.routers import Advance, Labelled, RouterSettings
from persyn_hf.backends.routers.llm_data import Prompts, mean_loss, prompt_losses, targets
from persyn_hf.backends.routers.llm_model import Llm, LlmTraining, new
from persyn_hf.core.metrics import regret
from persyn_hf.errors import RecipeError, require


STATE = "trainer_state.json"  # the last file of a checkpoint
ADAPTED = "base_model.model."  # what PEFT puts before the name of a parameter
NOT_THE_RESULT = {
    "device",
    "micro_batch_size",
    "gradient_checkpointing",
    "accelerate",
    "executor",
    "save_steps",
    "report_to",
}  # of settings


def train(training: LlmTraining) -> dict[str, Any]:
    """Train backbone and head into the folder and return the record; of several processes, the first one writes."""
    settings, labelled, folder, advance = training.settings, training.train, training.folder, training.advance
    torch.manual_seed(training.seed)
    router = new(settings, training.teachers, training.alpha)
    aims = targets(labelled, training.alpha, settings)
    data = Prompts(router.encode(labelled.conversations), aims, settings.batch_size, training.seed)
    scratch = folder.with_name(f"{folder.name}-training-{_digest(training, data)}")
    if settings.method == "lora":
        router.model = _with_adapters(router.model, settings)
    args = _arguments(training, router, scratch)
    data.fill(args.world_size, settings.micro_batch_size)
    args.per_device_train_batch_size, args.gradient_accumulation_steps = data.micro, data.accumulation
    args.warmup_steps = int(settings.warmup * settings.epochs * data.steps)
    last, state = _left(scratch)
    if advance is not None:
        advance(_epochs(state, state.global_step))
    with no_logs(), suitable_threads(router.model):
        trainer = RouterTrainer(router, settings, data, training.validation, args, advance)
        trainer.accelerator.wait_for_everyone()  # all have read what was left
        if not _is_over(settings, state):
            trainer.train(resume_from_checkpoint=str(last) if last else None)
            state = trainer.state
        if args.process_index == 0:
            _finish(router, state, scratch, folder)
        trainer.accelerator.wait_for_everyone()
    return _record(state, data)


class RouterTrainer(Trainer):
    """The trainer with the loss over comparisons, two learning rates, and the validation regret after every epoch."""

    loss_is_scaled_for_ga = True  # by the weights of the rows

    def __init__(
        self,
        router: Llm,
        settings: RouterSettings,
        data: Prompts,
        validation: Labelled,
        args: TrainingArguments,
        advance: Advance | None,
    ) -> None:
        self.router, self.settings, self.validation = router, settings, validation
        self.validation_tokens = router.encode(validation.conversations)
        self.validation_targets = targets(validation, router.alpha, settings)
        super().__init__(
            model=router.model,
            args=args,
            train_dataset=data,
            eval_dataset=validation.conversations,  # `evaluate` reads the tokens
            data_collator=self.collate,
            callbacks=[Watch(advance)],
        )
        self.remove_callback(PrinterCallback)

    def collate(self, rows: Sequence[tuple[list[int], torch.Tensor, float]]) -> dict[str, torch.Tensor]:
        """Make a micro batch of rows of `Prompts`, its tokens padded on the right."""
        tokens, preferred, weights = zip(*rows, strict=True)
        return {
            **self.router.pad(tokens),
            "preferred": torch.stack(preferred),
            "weights": torch.tensor(weights, dtype=torch.float32),
        }

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Make AdamW without weight decay, with a learning rate of its own for the head."""
        prefix = f"{self.model.base_model_prefix}."
        inside: list[Any] = []
        head: list[Any] = []
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                (inside if name.removeprefix(ADAPTED).startswith(prefix) else head).append(parameter)
        rate = self.settings.learning_rate or (1e-4 if self.settings.method == "lora" else 1e-5)
        groups = [{"params": inside, "lr": rate}, {"params": head, "lr": self.settings.head_learning_rate}]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
        return self.optimizer

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> torch.Tensor:
        """Compute this micro batch's part of the step's mean loss."""
        preferred, weights = inputs.pop("preferred"), inputs.pop("weights")
        losses = prompt_losses(model(**inputs).logits.float(), preferred)
        return (weights * losses).sum() * self.args.world_size  # processes are averaged

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Compute regret and loss on the validation prompts, and decide which epoch to keep and when to stop.

        Each process scores a share of the prompts. Lower regret is better, then lower loss.
        """
        rank, world = self.args.process_index, self.args.world_size
        share = self.router.outputs(self.validation_tokens[rank::world])
        outputs = np.zeros((len(self.validation_tokens), share.shape[1]))
        for number, part in enumerate(gather_object([share])):
            outputs[number::world] = part
        metrics = {
            "regret": float(np.nanmean(regret(self.router.combine(outputs), self.validation.rewards))),
            "validation_loss": float(mean_loss(torch.tensor(outputs), self.validation_targets)),
        }
        state = self.state
        if state.best_metric is None or list(metrics.values()) < state.best_metric:
            state.best_metric, state.best_global_step = list(metrics.values()), state.global_step
        self.log(metrics)
        self.control.should_training_stop |= _is_over(self.settings, state)
        return metrics


class Watch(TrainerCallback):
    """The callback that stops where the loss is no number, has every epoch saved, and counts epochs."""

    def __init__(self, advance: Advance | None) -> None:
        self.advance = advance

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            epoch = math.ceil(state.epoch)
            raise RecipeError(
                f"training the router diverged in epoch {epoch}: the loss is {loss}; lower "
                "`train_router.learning_rate`"
            )

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_save = True
        if self.advance is not None and state.is_world_process_zero:
            self.advance(1)


def _arguments(training: LlmTraining, router: Llm, scratch: Path) -> TrainingArguments:
    settings, validated = training.settings, bool(len(training.validation.conversations))
    gpu = router.device.type == "cuda"
    args = TrainingArguments(
        output_dir=str(scratch),
        num_train_epochs=settings.epochs,
        lr_scheduler_type="cosine",
        bf16=gpu,
        use_cpu=router.device.type == "cpu",
        gradient_checkpointing=gpu if settings.gradient_checkpointing is None else settings.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        ddp_find_unused_parameters=False,
        train_sampling_strategy="sequential",  # the order is that of `Prompts`
        remove_unused_columns=False,
        eval_strategy="epoch" if validated else "no",
        save_strategy="epoch" if settings.save_steps is None else "steps",
        save_steps=settings.save_steps or 1,
        save_total_limit=1,  # and the best one
        logging_steps=1,
        logging_nan_inf_filter=False,
        dataloader_pin_memory=gpu,
        seed=training.seed,
        **tracking.arguments(training.tracked),
        disable_tqdm=True,
    )
    if args.n_gpu > 1:
        raise RecipeError(
            f"{args.n_gpu} GPUs are visible to one process; give `train_router.accelerate` the config file of "
            "`accelerate launch`, or show it one GPU with CUDA_VISIBLE_DEVICES=0"
        )
    return args


def _with_adapters(model: Any, settings: RouterSettings) -> Any:
    peft = require("peft", extra="train", feature="LoRA training")
    adapters = peft.LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="SEQ_CLS",  # the head is trained in full
    )
    return peft.get_peft_model(model, adapters)


def _digest(training: LlmTraining, data: Prompts) -> str:
    """The name of what is trained, in 16 hex digits."""
    validation = training.validation
    what = (list(training.teachers), training.alpha, training.seed, data.tokens, list(validation.conversations))
    digest = hashlib.sha256(training.settings.model_dump_json(exclude=NOT_THE_RESULT).encode())
    digest.update(repr(what).encode())
    digest.update(data.preferred.numpy().tobytes() + validation.rewards.tobytes())
    return digest.hexdigest()[:16]


def _left(scratch: Path) -> tuple[Path | None, TrainerState]:
    """Find the last whole checkpoint of a killed run and its state; the folder itself where the run was done."""
    checkpoints = sorted(scratch.glob("checkpoint-*"), key=lambda path: -int(path.name.partition("-")[2]))
    for folder in (scratch, *checkpoints):
        try:
            return folder, TrainerState.load_from_json(str(folder / STATE))
        except (OSError, ValueError):  # killed while it was written
            continue
    return None, TrainerState()


def _epochs(state: TrainerState, step: int) -> int:
    """Return the number of whole epochs in `step` steps."""
    return step * state.num_train_epochs // state.max_steps if state.max_steps else 0


def _is_over(settings: RouterSettings, state: TrainerState) -> bool:
    if not state.max_steps:
        return False
    waited = _epochs(state, state.global_step) - _epochs(state, state.best_global_step or state.global_step)
    return state.global_step >= state.max_steps or waited >= settings.patience


def _finish(router: Llm, state: TrainerState, scratch: Path, folder: Path) -> None:
    """Put the best epoch (the last one without validation prompts) into `folder`; what it was made from can go."""
    best = scratch / f"checkpoint-{state.best_global_step or state.global_step}"
    state.save_to_json(str(scratch / STATE))
    if hasattr(router.model, "peft_config"):
        import peft

        peft.set_peft_model_state_dict(router.model, peft.load_peft_weights(str(best), device="cpu"))
        router.model.merge_and_unload().save_pretrained(folder)
    else:
        for file in (file for pattern in ("config.json", "*.safetensors*") for file in best.glob(pattern)):
            shutil.copyfile(file, folder / file.name)
    router.tokenizer.save_pretrained(folder)
    for checkpoint in scratch.glob("checkpoint-*"):
        if checkpoint != best:
            shutil.rmtree(checkpoint)
    (best / "optimizer.pt").unlink(missing_ok=True)


def _record(state: TrainerState, data: Prompts) -> dict[str, Any]:
    """Make the training record, plain JSON. It gives prompts and steps, since more prompts need not be more steps."""
    history: list[dict[str, Any]] = []
    for epoch in range(1, _epochs(state, state.global_step) + 1):
        logs = [line for line in state.log_history if (epoch - 1) * data.steps < line["step"] <= epoch * data.steps]
        losses = [line["loss"] for line in logs if "loss" in line]
        history.append({"epoch": epoch, "train_loss": float(np.mean(losses))})
        for line in (line for line in logs if "regret" in line):
            history[-1] |= {"regret": line["regret"], "loss": line["validation_loss"]}
    return {
        "best_epoch": _epochs(state, state.best_global_step or state.global_step),
        "prompts": len(data.rows),
        "pairs": data.num_pairs,
        "steps": state.global_step,
        "history": history,
    }
