"""Score the answers of two teachers, as a program that can be killed: FOLDER, accelerate config or `none`, prompts."""

import json
import random
import signal
import sys
from pathlib import Path
from typing import Any

from datasets import Dataset

from persyn_hf.cli import main as cli
from persyn_hf.errors import PersynError
from persyn_hf.recipe.roles import Student, Teacher
from persyn_hf.recipe.strict import read_section
from persyn_hf.schemas import PROMPTS, RESPONSES, prompt_id
from persyn_hf.stage import Context
from persyn_hf.stages import score


STUDENT = str(Path(__file__).parent.parent.parent / "recipes" / "tiny" / "zoo" / "qwen-student")
POOL = ("terse", "long")


def answers(count: int) -> tuple[Dataset, Dataset]:
    """Prompts and responses of very different lengths, the same in every process."""
    rng = random.Random(0)
    prompts: list[dict[str, Any]] = []
    responses = []
    for number in range(count):
        turns = [{"role": "user", "content": f"What is {number} + {rng.randrange(100)}?"}]
        row = {"prompt_id": prompt_id(turns), "messages": turns, "reference": None, "source": "x", "topic": None}
        prompts.append(row | {"split": "calibration"})
        for teacher in POOL:
            words = 3 if teacher == "terse" else rng.randrange(10, 60)
            text = " ".join(str(rng.randrange(1000)) for _ in range(words))
            fixed = {"finish_reason": "stop", "status": "ok", "selected": True, "split": "calibration"}
            numbers = {"sample_index": 0, "num_prompt_tokens": 1, "num_tokens": 1, "round": 0}
            empty = {"reasoning": None, "quality": None, "error": None, "is_correct": rng.random() < 0.5}
            named = {"prompt_id": row["prompt_id"], "teacher": teacher, "response": text}
            responses.append(named | fixed | numbers | empty)
    return (
        Dataset.from_list(prompts, features=PROMPTS.features),
        Dataset.from_list(responses, features=RESPONSES.features),
    )


def rewards(folder: Path, config: str | None, count: int, model: str = STUDENT) -> dict[str, list[Any]]:
    prompts, responses = answers(count)
    values = {"dtype": "float32", "batch_tokens": 400, "accelerate": config}
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
