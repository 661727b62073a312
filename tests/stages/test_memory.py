"""The driver holds no list that grows with the prompts: what Python's objects and arrays take for each of them."""

import json
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from persyn_hf.backends.answers import Answer, Request
from persyn_hf.backends.dataset_rows import Rows, in_parts
from persyn_hf.backends.engines.server import ServerEngine
from persyn_hf.backends.journal import Journal
from persyn_hf.recipe.roles import Teacher
from persyn_hf.recipe.strict import read_section
from persyn_hf.stage import Context, Result
from persyn_hf.stages import assign, generate, mix, prompts
from persyn_hf.stages.generate.requests import CellRequests, Prompt, cell_requests


pytestmark = pytest.mark.heavy

MOST = 100  # bytes for each further prompt; a request alone takes 570, a row of the prompts 1,400
TEACHERS = (Teacher(name="small", model="m"),)
LONG = "Show the steps in order and end with the number alone. " * 5


class Chain:
    """Runs stages over some prompts; `peaks` are the most bytes that each of them held at the same time."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder, self.number = folder / str(number), number
        self.peaks: dict[str, int] = {}
        self.folder.mkdir()
        with (self.folder / "prompts.jsonl").open("w") as asked, (self.folder / "answers.jsonl").open("w") as answers:
            for place in range(number):
                asked.write(json.dumps({"prompt": f"{place}. {LONG}"}) + "\n")
                said = {teacher.name: f"{LONG}{number - place}" for teacher in TEACHERS}
                answers.write(json.dumps({"prompt": f"{number - 1 - place}. {LONG}"} | said) + "\n")
        splits = {"calibration": 10, "dev": 0, "near_duplicates": "none"}
        self.prompts = self.run("prompts", prompts, {"path": str(self.folder / "prompts.jsonl")} | splits)
        everywhere = {"kind": "mix", "splits": ["calibration", "pool"]}
        self.cells = self.run("assign", assign, everywhere, prompts=self.prompts)

    def imported(self) -> None:
        columns = {"responses": {teacher.name: None for teacher in TEACHERS}}
        table = {"engine": "import", "path": str(self.folder / "answers.jsonl"), "columns": columns, "samples": 1}
        answers = self.run("import", generate, table, prompts=self.prompts, assignments=self.cells)
        self.run("mix", mix, {}, prompts=self.prompts, assignments=self.cells, responses=answers)

    def served(self) -> None:
        """Of a server that has answered everything in an earlier run, which was killed before its end."""
        settings = {"engine": "server", "samples": 1, "server": {"urls": ["http://127.0.0.1:9/v1"]}}
        read = read_section(generate.Settings, settings, "generate")
        engine = ServerEngine("m", read.server)

        def make(prompt: Prompt, samples: Iterable[int]) -> list[Request]:
            return cell_requests(read, 0, engine, TEACHERS[0], prompt, samples)

        requests = CellRequests(make, Rows(self.prompts), np.arange(self.number), range(1))
        with Journal(self.folder / "server" / "journal.sqlite") as journal:
            for numbers in in_parts(np.arange(self.number)):
                said: dict[str, Any] = {"text": LONG, "finish_reason": "stop", "num_prompt_tokens": 9, "num_tokens": 5}
                journal.write([Answer(request=each, **said) for each in requests.take(numbers)], teacher="small")
        self.run("server", generate, settings, prompts=self.prompts, assignments=self.cells)

    def run(self, name: str, stage: Any, settings: dict[str, Any], **inputs: Dataset) -> Dataset:
        (self.folder / name).mkdir(exist_ok=True)
        context = Context(seed=0, work_dir=self.folder / name, teachers=TEACHERS)
        read = read_section(stage.Settings, settings, name)
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        result: Result = stage.run(read, context, **inputs)
        self.peaks[name] = tracemalloc.get_traced_memory()[1] - before
        assert isinstance(result.data, Dataset) and len(result.data) == self.number, result.counts
        return result.data


def bytes_each(folder: Path, few: int, more: int, ask: Callable[[Chain], None]) -> dict[str, float]:
    """Measure what each of `more` prompts takes beside a few, which are more than two parts of a thousand rows.

    A first run makes what is made once.
    """
    peaks = []
    tracemalloc.start()
    try:
        for number in (30, few, few + more):
            chain = Chain(folder, number)
            ask(chain)
            peaks.append(chain.peaks)
    finally:
        tracemalloc.stop()
    return {stage: (most - peaks[1][stage]) / more for stage, most in peaks[2].items()}


def test_a_prompt_whose_answers_are_imported_takes_a_hundred_bytes_at_most(tmp_path: Path) -> None:
    found = bytes_each(tmp_path, 3100, 3000, Chain.imported)
    assert set(found) == {"prompts", "assign", "import", "mix"} and max(found.values()) < MOST, found


def test_a_prompt_that_a_server_has_answered_takes_a_hundred_bytes_at_most(tmp_path: Path) -> None:
    found = bytes_each(tmp_path, 2100, 1000, Chain.served)
    assert found["server"] < MOST, found
