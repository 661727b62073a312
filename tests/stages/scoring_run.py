"""Score the answers of two teachers, as a program that can be killed: FOLDER, accelerate config or `none`, prompts."""

import json
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

from datasets import Dataset
from rows import prompt, response

from persyn_hf.cli import main as cli
from persyn_hf.errors import PersynError
from persyn_hf.recipe.roles import Student, Teacher
from persyn_hf.recipe.strict import read_section
from persyn_hf.schemas import PROMPTS, RESPONSES
from persyn_hf.stage import Context
from persyn_hf.stages import score


STUDENT = str(Path(__file__).parent.parent.parent / "recipes" / "tiny" / "zoo" / "qwen-student")
POOL = ("terse", "long")
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}  # where this program finds its modules


def answers(count: int) -> tuple[Dataset, Dataset]:
    """Prompts and responses of very different lengths, the same in every process."""
    rng = random.Random(0)
    prompts, responses = [], []
    for number in range(count):
        asked = prompt(f"What is {number} + {rng.randrange(100)}?", split="calibration")
        prompts.append(asked)
        for teacher in POOL:
            words = 3 if teacher == "terse" else rng.randrange(10, 60)
            text = " ".join(str(rng.randrange(1000)) for _ in range(words))
            values = {"is_correct": rng.random() < 0.5, "split": "calibration"}
            responses.append(response(asked["prompt_id"], teacher, text, **values))
    return PROMPTS.dataset(prompts), RESPONSES.dataset(responses)


def rewards(
    folder: Path, config: str | None, count: int, model: str = STUDENT, **changes: Any
) -> dict[str, list[Any]]:
    prompts, responses = answers(count)
    values = {"dtype": "float32", "batch_tokens": 400, "accelerate": config, **changes}
    result = score.run(
        read_section(score.Settings, values, "score"),
        Context(
            seed=0,
            work_dir=folder,
            teachers=tuple(Teacher(name=name) for name in POOL),
            student=Student(name="s", model=model),
        ),
        prompts=prompts,
        responses=responses,
    )
    assert isinstance(result.data, Dataset)
    found: dict[str, list[Any]] = result.data.to_dict()
    return found


def main(folder: Path, config: str, count: int) -> int:
    signal.signal(signal.SIGTERM, cli._interrupt)
    try:
        found = rewards(folder, None if config == "none" else config, count)
    except PersynError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 2
    (folder / "rewards.json").write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
