"""Stage `train_student`: fine-tune the student on the mixed data (TRL's SFTTrainer; paper, Tables 9 and 10).

Every row is checked before it is trained on: it must be the answer to one assignment, end in the token that generation
stops on, and fit. A row that does not fit is left out and counted, never cut.
"""

import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from persyn_hf.backends import chat, tracking
from persyn_hf.backends import loading as models
from persyn_hf.backends import sft as backend
from persyn_hf.backends.launching.settings import Executor
from persyn_hf.backends.sft import IGNORED, launched
from persyn_hf.backends.tracking import Tracked, Tracker
from persyn_hf.errors import InputError, RecipeError
from persyn_hf.recipe.strict import Strict
from persyn_hf.schemas import ASSIGNMENTS, SFT, STUDENT
from persyn_hf.stage import Context, Result


if TYPE_CHECKING:
    from datasets import Dataset


INPUTS = {"sft": SFT}
OPTIONAL_INPUTS = {"assignments": ASSIGNMENTS}  # which the rows answer; without, only their prompts must differ
OUTPUT = STUDENT
# per_device_batch_size is covered: it changes the rounding
NOT_COVERED = frozenset({"accelerate", "executor", "save_steps", "report_to"})
VERSION = 4  # 4: the end of turn is learnt also where it pads; what was said is trained on, whatever a template writes


class Settings(Strict):
    """The hyper-parameters of training; the defaults are the paper's."""

    learning_rate: float | None = Field(
        default=None,
        gt=0,
        le=1e30,
        description="The highest learning rate. Null is the paper's: 2e-5 for all weights, 1e-4 with LoRA.",
    )
    epochs: float | int = Field(
        default=2, gt=0, le=10_000, description="The passes over the training rows. The paper makes 2."
    )
    batch_size: int = Field(
        default=32, ge=1, le=1_000_000, description="The examples per optimiser step, over all devices. The paper: 32."
    )
    per_device_batch_size: int = Field(
        default=1,
        ge=1,
        le=1_000_000,
        description="The examples that a device takes at once; the rest of `batch_size` is accumulated. The paper: 1.",
    )
    warmup_steps: int = Field(
        default=100,
        ge=0,
        le=10**9,
        description="The steps over which the learning rate rises, half of all steps at most. The paper: 100.",
    )
    scheduler: Literal["cosine", "linear", "constant", "constant_with_warmup"] = Field(
        default="cosine", description="The course of the learning rate after it has risen. The paper: cosine."
    )
    weight_decay: float = Field(
        default=0.0, ge=0, le=1000, description="The weight decay of AdamW. The paper names none."
    )
    max_length: int = Field(
        default=4096,
        ge=1,
        le=100_000_000,
        description="The tokens of prompt and answer; longer rows are left out. The paper: 4,096; 16,384 in maths.",
    )
    method: Literal["auto", "full", "lora"] = Field(
        default="auto", description="The weights that are trained. auto: LoRA above 14 billion parameters, else all."
    )
    lora_rank: int = Field(
        default=16, ge=1, le=65_536, description="The rank of LoRA's matrices. The paper names none."
    )
    lora_alpha: int = Field(
        default=32, ge=1, le=1_000_000, description="The scale of LoRA: what it learns counts lora_alpha / lora_rank."
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="The type of the arithmetic. auto: bfloat16 on a GPU that has it, else float32."
    )
    gradient_checkpointing: bool | None = Field(
        default=None, description="Training takes less memory and more time. Null: on a GPU only."
    )
    accelerate: str | None = Field(
        default=None, description="The config file of `accelerate launch`, in whose processes the student is trained."
    )
    executor: Executor | None = Field(
        default=None, description="The cluster on whose nodes the student is trained. Null: on this machine."
    )
    save_steps: int = Field(
        default=200, ge=1, le=10**9, description="The optimiser steps from checkpoint to checkpoint."
    )
    report_to: tuple[Tracker, ...] = Field(
        default=(),
        strict=False,
        description="The trackers that get loss, learning rate and gradient norm: trackio, wandb, tensorboard.",
    )


def check_files(settings: Settings) -> None:
    """Refuse trackers that are not installed and processes that cannot train, before anything is paid for."""
    tracking.check(settings.report_to, "train_student.report_to")
    backend.check_batch(settings, launched.read_plan(settings))


def run(settings: Settings, context: Context, *, sft: "Dataset", assignments: "Dataset | None" = None) -> Result:
    """Check every row, train on those that fit, and return the folder with the trained student.

    Raises:
        RecipeError: the student has no model.
        InputError: rows do not fit the assignments, or none can be used.
    """
    student = context.student
    if student is None or student.model is None:
        raise RecipeError("`train_student` needs a student with a `model`, found none; give it in `students`")
    if not len(sft):
        raise InputError("the training data holds no rows; `train_student` needs at least one")
    started = time.monotonic()
    joined = _join(sft, assignments)
    tokenizer = models.load_tokenizer(student.model, student.revision, student.chat_template)
    end = chat.end_of_turn(tokenizer, student.model)
    size, stored, positions = backend.describe(student.model, student.revision)
    max_length = min(settings.max_length, positions or settings.max_length)
    examples, counts = tokenise(sft, tokenizer, end, max_length)
    if not len(examples):
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(counts.items()))
        raise InputError(
            f"none of the {len(sft)} training rows can be used ({reasons}); too_long counts rows of more than "
            f"{max_length} tokens: raise `train_student.max_length` or look at the data"
        )
    lora = settings.method == "lora" or (settings.method == "auto" and size > backend.LORA_ABOVE)
    training = backend.Training(
        model=student.model,
        revision=student.revision,
        chat_template=student.chat_template,
        stored_dtype=stored,
        end=end,
        lora=lora,
        learning_rate=settings.learning_rate or (1e-4 if lora else 2e-5),
        epochs=float(settings.epochs),
        seed=context.seed,
        project=context.recipe,
        run=context.step,
        **settings.model_dump(exclude={"learning_rate", "epochs", "max_length", "method", "accelerate", "executor"}),
    )
    folder = context.work_dir / "student"
    curve = backend.train(training, examples, folder, context.progress, launched.read_plan(settings))
    metrics = _metrics(training, examples, curve) | {"max_length": max_length, "parameters": size}
    metrics |= tracking.metrics(Tracked(settings.report_to, context.recipe, context.step))
    per_token = 4 if lora else 6  # frozen weights need no gradient of their own
    cost = {
        "seconds": time.monotonic() - started,
        "flops": per_token * size * metrics["tokens"] * training.epochs,
    }
    dropped = {reason: counts[reason] for reason in ("too_long", "end_inside")}
    counted = {"rows": len(sft), **joined, "trained": len(examples), **dropped}
    return Result(data=folder, counts=counted, metrics=metrics, cost=cost)


def _join(sft: "Dataset", assignments: "Dataset | None") -> dict[str, int]:
    """Refuse a row whose prompt is not assigned, or that is there twice, and count the others by their teacher.

    `assigned`: the teacher was assigned to the prompt. `escalated`: it was asked after the assigned ones. `further`:
    rows of a prompt that has one already (`mix.answers_per_prompt`). Without assignments nothing is counted.
    """
    prompts: list[str] = sft["prompt_id"][:]
    answers = (turns[0]["content"] for turns in sft["completion"][:])
    twice = [row for row, copies in Counter(zip(prompts, answers, strict=True)).items() if copies > 1]
    if twice:
        raise InputError(
            f"{len(twice)} training rows (first of prompt {min(twice)[0]}) are there more than once; give the rows of "
            "one `mix`"
        )
    if assignments is None:
        return {}
    cells = Counter(zip(assignments["prompt_id"][:], assignments["teacher"][:], strict=True))
    several = [cell for cell, rows in cells.items() if rows > 1]
    unknown = set(prompts) - {prompt_id for prompt_id, _ in cells}
    if several or unknown:
        what = f"assigned twice to `{several[0][1]}`" if several else "not assigned at all"
        number, first = (len(several), several[0][0]) if several else (len(unknown), min(unknown))
        raise InputError(
            f"{number} prompts of the training data (first {first}) are {what}; give the assignments that its rows "
            "were made from"
        )
    first = dict(zip(reversed(prompts), reversed(sft["teacher"][:]), strict=True))
    assigned = sum(cell in cells for cell in first.items())
    counts = {"assigned": assigned, "escalated": len(first) - assigned}
    return counts | ({"further": len(prompts) - len(first)} if len(first) < len(prompts) else {})


def tokenise(sft: "Dataset", tokenizer: Any, end: int, max_length: int) -> tuple["Dataset", Counter[str]]:
    """Turn every row that fits into token ids and labels, and count the others by the reason why they are left out.

    A row is a turn as learnability sees it (`chat.encode_turns`), up to and with the end of turn `end`. Labels are
    `IGNORED` on the prompt, the generation prompt included. Reasons: `too_long` (over `max_length` tokens),
    `end_inside` (the response itself holds the end of turn, so a student would learn to stop early).

    Returns a dataset of `input_ids` and `labels`, and the counts; `rows` counts those that fit.
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
            assert turn.truncated or answer[-1] == end
            reason = "too_long" if turn.truncated else "end_inside" if answer.count(end) > 1 else "rows"
            counts[reason] += 1
            if reason == "rows":
                ids.append(turn.ids)
                labels.append([IGNORED] * turn.start + answer)
        tables.append(pa.table({"input_ids": ids, "labels": labels}, schema=types))
    return Dataset(pa.concat_tables(tables) if tables else types.empty_table()), counts


def _turns(turns: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return the turns with role and content only, in this order of keys."""
    return [{"role": turn["role"], "content": turn["content"]} for turn in turns]


def _metrics(training: backend.Training, examples: "Dataset", curve: list[list[float]]) -> dict[str, Any]:
    """Describe a training: hyper-parameters as used, sizes, and the curve of the loss."""
    import pyarrow.compute as pc

    labels = examples.data.column("labels").combine_chunks().flatten()
    schedule = backend.Schedule.of(training, len(examples))
    last = curve[-max(1, len(curve) // 10) :]
    return {
        "method": "lora" if training.lora else "full",
        "learning_rate": training.learning_rate,
        "warmup_steps": schedule.warmup,
        "rows": len(examples),
        "tokens": len(labels),  # of one epoch, prompts included
        "trained_tokens": pc.sum(pc.not_equal(labels, IGNORED)).as_py(),  # of one epoch
        "steps": schedule.total,
        "loss": curve,  # [step, nats per trained token]
        "final_loss": sum(loss for _, loss in last) / len(last) if last else None,  # mean of the last tenth
    }
