"""`python slurm_job.py WHAT FOLDER EXECUTOR`: the driver of a job: `score`, `train`, `evaluate`, or `ask` vLLM.

EXECUTOR is the setting as JSON, or `null`. What came out is left in the folder as `result.json`.
"""

import json
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import sft_run
from evaluation_run import TASKS, evaluated
from scoring_run import POOL, STUDENT, answers

from persyn_hf.backends.answers import Listed, Request, Sampling
from persyn_hf.backends.engines.open_engine import open_engine
from persyn_hf.backends.engines.settings import ExecutorSettings, ServerSettings, VllmSettings
from persyn_hf.backends.launching import slurm_launch
from persyn_hf.cli import main as cli
from persyn_hf.errors import PersynError
from persyn_hf.recipe.roles import Student, Teacher
from persyn_hf.recipe.strict import read_section
from persyn_hf.stage import Context
from persyn_hf.stages import score, train_student


PROMPTS = 40
ASKED = 24


def scored(folder: Path, executor: Any) -> Any:
    """The rewards of answers, by column."""
    prompts, responses = answers(PROMPTS)
    values = {"dtype": "float32", "batch_tokens": 400, "executor": executor}
    context = Context(
        seed=0,
        work_dir=folder,
        teachers=tuple(Teacher(name=name) for name in POOL),
        student=Student(name="s", model=STUDENT),
    )
    settings = read_section(score.Settings, values, "score")
    return score.run(settings, context, prompts=prompts, responses=responses).data.to_dict()  # type: ignore[union-attr]


def trained(folder: Path, executor: Any) -> Any:
    """The loss curve of a training."""
    settings = read_section(train_student.Settings, {**sft_run.CHANGES, "executor": executor}, "train_student")
    context = Context(seed=0, work_dir=folder, student=Student(name="s", model=STUDENT), progress=sft_run.Told())
    return train_student.run(settings, context, sft=sft_run.rows()).metrics["loss"]


def asked(folder: Path, executor: Any) -> Any:
    """The answers of a teacher, and how long they took."""
    options: dict[str, Any] = {
        "kind": "vllm",
        "model": STUDENT,
        "revision": None,
        "system_prompt": None,
        "batch_tokens": 1,
        "dtype": "float32",
        "device": "auto",
        "server": ServerSettings(),
        "vllm": VllmSettings(concurrency=2, max_restarts=1, start_timeout_s=200),
        "log_dir": folder,
        "state_dir": folder,
    }
    sampling = Sampling(temperature=0.0, top_p=1.0, top_k=0, max_tokens=8, seed=5)
    with open_engine(read_section(ExecutorSettings, executor, "generate.executor"), **options) as engine:
        requests = [
            Request(
                prompt_id=str(number),
                model=engine.model,
                engine=engine.kind,
                sample_index=0,
                prompt=engine.prepare([{"role": "user", "content": f"What is {number} + 1?"}]),
                sampling=sampling,
            )
            for number in range(ASKED)
        ]
        found = [answer for some in engine.generate(engine.plan(Listed(requests))) for answer in some]
    return sorted([answer.request.prompt_id, answer.text, answer.error] for answer in found)


def main(what: str, folder: Path, executor: str) -> int:
    signal.signal(signal.SIGTERM, cli._interrupt)
    slurm_launch.SEEN_S = 2.0  # the nodes are here
    try:
        works = {"score": scored, "train": trained, "ask": asked, "evaluate": partial(evaluated, tasks=TASKS[1:])}
        result = works[what](folder, json.loads(executor))
    except PersynError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 2
    (folder / "result.json").write_text(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
