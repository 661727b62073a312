"""Stage `train_student`: fine-tune the student on the mixed data (TRL's SFTTrainer; paper, Tables 9 and 10).

Every row is checked before it is trained on: it must end in the token that generation stops on, and fit. What does not
is left out and counted, never cut.
"""

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from persyn_hf.backends import chat, models
from persyn_hf.backends import sft as backend
from persyn_hf.errors import InputError, RecipeError
from persyn_hf.recipe import Strict
from persyn_hf.schemas import SFT, STUDENT
from persyn_hf.stage import Context, Result


if TYPE_CHECKING:
    from datasets import Dataset


INPUTS = {"sft": SFT}
OUTPUT = STUDENT
VERSION = 2  # rows are cut as learnability sees them; Gemma 2 trains with its attention cap

IGNORED = -100  # label of a token that carries no loss


class Settings(Strict):
    """Hyper-parameters; the defaults are the paper's."""

    learning_rate: float | None = Field(default=None, gt=0)  # null: 2e-5 in full, 1e-4 with LoRA
    epochs: float | int = Field(default=2, gt=0)
    batch_size: int = Field(default=32, ge=1)  # examples per optimiser step, over all devices
    per_device_batch_size: int = Field(default=1, ge=1)  # examples at once; the rest is accumulated
    warmup_steps: int = Field(default=100, ge=0)  # at most half of all steps is used for it
    scheduler: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    weight_decay: float = Field(default=0.0, ge=0)
    max_length: int = Field(default=4096, ge=1)  # tokens of prompt and response; longer rows are left out
    method: Literal["auto", "full", "lora"] = "auto"  # auto: LoRA above 14 billion parameters
    lora_rank: int = Field(default=16, ge=1)
    lora_alpha: int = Field(default=32, ge=1)
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # of the arithmetic; auto: bfloat16 on a GPU that has it
    gradient_checkpointing: bool | None = None  # null: on a GPU only


def run(settings: Settings, context: Context, sft: "Dataset") -> Result:
    """Check every row, train on those that fit, and return the folder with the trained student."""
    import torch

    student = context.student
    if student is None or student.model is None:
        raise RecipeError("`train_student` needs a student with a `model`, found none; give it in `students`")
    if not len(sft):
        raise InputError("the training data holds no rows; `train_student` needs at least one")
    started = time.monotonic()
    tokenizer = models.load_tokenizer(student.model, student.revision, student.chat_template)
    end = chat.end_of_turn(tokenizer, student.model)
    size, stored = backend.size_and_dtype(student.model, student.revision)
    lora = settings.method == "lora" or (settings.method == "auto" and size > backend.LORA_ABOVE)
    gpu = torch.cuda.is_available()
    bfloat16 = settings.dtype == "bfloat16" or (settings.dtype == "auto" and gpu and torch.cuda.is_bf16_supported())
    training = backend.Training(
        learning_rate=settings.learning_rate or (1e-4 if lora else 2e-5),
        epochs=float(settings.epochs),
        batch_size=settings.batch_size,
        per_device_batch_size=settings.per_device_batch_size,
        warmup_steps=settings.warmup_steps,
        scheduler=settings.scheduler,
        weight_decay=settings.weight_decay,
        lora=lora,
        lora_rank=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        bfloat16=bfloat16,
        gradient_checkpointing=gpu if settings.gradient_checkpointing is None else settings.gradient_checkpointing,
        seed=context.seed,
        saved_dtype=stored,
    )
    # Full fine-tuning keeps float32 weights (bfloat16 ones would swallow updates of 2e-5); frozen ones need not be.
    dtype: models.Dtype = "bfloat16" if lora and bfloat16 else "float32"
    model = models.load_causal_lm(student.model, student.revision, dtype, "cpu")  # the trainer moves it
    max_length = min(settings.max_length, getattr(model.config.get_text_config(), "max_position_embeddings", 1 << 30))
    examples, counts = tokenise(sft, tokenizer, end, max_length)
    if not len(examples):
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(counts.items()))
        raise InputError(
            f"none of the {len(sft)} training rows can be used ({reasons}); too_long counts rows of more than "
            f"{max_length} tokens: raise `train_student.max_length` or look at the data"
        )
    backend.align(model, tokenizer, end)
    folder = context.work_dir / "student"
    done = backend.train(model, tokenizer, examples, training, folder, context.progress)
    return _result(folder, len(sft), examples, counts, training, done, model, max_length, time.monotonic() - started)


def tokenise(sft: "Dataset", tokenizer: Any, end: int, max_length: int) -> tuple["Dataset", Counter[str]]:
    """Token ids and labels of every row that fits, and why the others were left out.

    A row is a turn as learnability sees it (`chat.encode_turns`), up to and with the end of turn `end`; labels are
    `IGNORED` on the prompt, the generation prompt included.
    Reasons: `too_long` (over `max_length` tokens), `end_inside` (the response itself holds the end of turn, so a
    student would learn to stop early).
    """
    import pyarrow as pa
    from datasets import Dataset

    counts: Counter[str] = Counter()
    types = pa.schema([("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32()))])
    tables = []
    for batch in sft.select_columns(["prompt", "completion"]).iter(batch_size=256):
        rows = [(_turns(p), c[0]["content"]) for p, c in zip(batch["prompt"], batch["completion"], strict=True)]
        ids, labels = [], []
        for turn in chat.encode_turns(tokenizer, rows, max_length):
            answer = turn.ids[turn.start :].tolist()
            reason = "too_long" if turn.truncated else "end_inside" if answer.count(end) > 1 else "rows"
            counts[reason] += 1
            if reason == "rows":
                ids.append(turn.ids)
                labels.append([IGNORED] * turn.start + answer)
        tables.append(pa.table({"input_ids": ids, "labels": labels}, schema=types))
    return Dataset(pa.concat_tables(tables) if tables else types.empty_table()), counts


def _turns(turns: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{"role": turn["role"], "content": turn["content"]} for turn in turns]


def _result(
    folder: Path,
    rows: int,
    examples: "Dataset",
    counts: Any,
    training: backend.Training,
    done: dict[str, Any],
    model: Any,
    max_length: int,
    seconds: float,
) -> Result:
    import pyarrow.compute as pc

    labels = examples.data.column("labels").combine_chunks().flatten()
    tokens = len(labels)
    last = done["loss"][-max(1, len(done["loss"]) // 10) :]
    parameters = model.num_parameters()
    metrics = {
        "method": "lora" if training.lora else "full",
        "learning_rate": training.learning_rate,
        "warmup_steps": done["warmup_steps"],
        "max_length": max_length,
        "parameters": parameters,
        "rows": len(examples),
        "tokens": tokens,  # of one epoch
        "trained_tokens": pc.sum(pc.not_equal(labels, IGNORED)).as_py(),  # of one epoch
        "steps": done["steps"],
        "loss": done["loss"],  # [step, nats per trained token]
        "final_loss": sum(loss for _, loss in last) / len(last) if last else None,  # mean of the last tenth
    }
    dropped = {reason: counts[reason] for reason in ("too_long", "end_inside")}
    per_token = 4 if training.lora else 6  # frozen weights need no gradient of their own
    cost = {"seconds": seconds, "flops": per_token * parameters * tokens * training.epochs}
    return Result(data=folder, counts={"rows": rows, "trained": len(examples), **dropped}, metrics=metrics, cost=cost)
