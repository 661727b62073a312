"""`python sft_run.py FOLDER ACCELERATE WHEN`: a training of `CHANGES`, killed by itself at some moment, or never.

WHEN: `step-N` once it has told of step N, `save-N` in the middle of the checkpoint of step N, `marked-N` before that
checkpoint is marked as whole, `never`. ACCELERATE: a config file, or `none`.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from datasets import Dataset
from rows import example

from persyn_hf.recipe.roles import Student
from persyn_hf.schemas import SFT
from persyn_hf.stage import Context, Result
from persyn_hf.stages import train_student


STUDENT = Path(__file__).parents[2] / "recipes" / "tiny" / "zoo" / "qwen-student"
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}  # where this program finds its modules
ROWS = 21  # the last step of an epoch is not full
CHANGES: dict[str, Any] = {
    "learning_rate": 1e-3,
    "epochs": 2.5,
    "warmup_steps": 2,
    "batch_size": 8,
    "per_device_batch_size": 2,
    "save_steps": 2,
}
STEPS = 8


class Told:
    """Progress that remembers, and may kill its process."""

    def __init__(self, kill_at: int = 0) -> None:
        self.kill_at, self.total, self.left, self.done = kill_at, 0, 0, 0

    def start(self, what: str, total: int, done: int = 0) -> None:
        self.total, self.left = total, done

    def advance(self, count: int = 1) -> None:
        self.done += count
        if self.kill_at and self.left + self.done >= self.kill_at:
            die()

    def tally(self, teacher: str, **numbers: Any) -> None: ...


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def rows() -> Dataset:
    texts = [(f"What is {i} and {i + 3}?", f"The answer is {2 * i + 3}." * (1 + i % 3)) for i in range(ROWS)]
    return SFT.dataset([example(*text, prompt_id=f"{number:02}") for number, text in enumerate(texts)])


def train(folder: Path, progress: Told | None = None, **changes: Any) -> Result:
    folder.mkdir(parents=True, exist_ok=True)
    student = Student(name="s", model=str(STUDENT))
    context = Context(seed=0, work_dir=folder, student=student, progress=progress or Told())
    return train_student.run(train_student.Settings(**{**CHANGES, **changes}), context, sft=rows())


def kill_in_checkpoint(step: int, marked: bool) -> None:
    """Die while the checkpoint is written: after the weights, or after all files but the mark."""
    import transformers

    name = "_save_checkpoint" if marked else "_save_rng_state"
    saved = getattr(transformers.Trainer, name)

    def save(trainer: Any, *arguments: Any) -> None:
        saved(trainer, *arguments)
        if trainer.state.global_step == step:
            die()

    setattr(transformers.Trainer, name, save)


if __name__ == "__main__":
    place, config, when = sys.argv[1:]
    moment, _, number = when.partition("-")
    if moment in ("save", "marked"):
        kill_in_checkpoint(int(number), moment == "marked")
    told = Told(int(number) if moment == "step" else 0)
    train(Path(place), told, accelerate=None if config == "none" else config)
