"""A student evaluated under vLLM (the CPU build) says what it says in this process."""

import importlib.util
from pathlib import Path

import pytest

from persyn_hf.recipe import Student
from persyn_hf.stage import Context, Result, Silent
from persyn_hf.stages import evaluate
from persyn_hf.strict import read_section


TEXT = "evaluating tiny"


class Watch(Silent):
    """Progress that remembers."""

    def __init__(self) -> None:
        self.begun: dict[str, int] = {}
        self.done = 0

    def start(self, what: str, total: int, done: int = 0) -> None:
        self.begun[what] = total

    def advance(self, count: int = 1) -> None:
        self.done += count


def run(root: Path, work_dir: Path, engine: str, watch: Watch) -> Result:
    settings = {
        "engine": engine,
        "dtype": "float32",
        "max_tokens": 100,
        "vllm": {"args": ["--enforce-eager", "--no-enable-chunked-prefill"]},
        "tasks": [
            {"name": "tiny", "path": str(root / "recipes" / "tiny" / "test.jsonl"), "limit": 12},
            {
                "name": "truthful",
                "harness": "truthfulqa_mc2",
                "path": str(root / "tests" / "data" / "truthfulqa_sample.csv"),
                "limit": 4,
            },
        ],
    }
    student = Student(name="s", model=str(root / "recipes" / "tiny" / "zoo" / "llama-long"))
    context = Context(seed=0, work_dir=work_dir, student=student, progress=watch)
    return evaluate.run(read_section(evaluate.Settings, settings, "evaluate"), context)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_vllm_answers_and_weighs_as_transformers_do(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
    watches = Watch(), Watch()
    wanted = run(root, tmp_path, "transformers", watches[0])
    found = run(root, tmp_path, "vllm", watches[1])
    assert found.data["prediction"][:] == wanted.data["prediction"][:]
    assert found.data["score"][:] == pytest.approx(wanted.data["score"][:], abs=1e-4, nan_ok=True)
    assert found.metrics["tiny"] == wanted.metrics["tiny"]
    assert (watches[1].begun, watches[1].done) == (watches[0].begun, watches[0].done)
    assert (tmp_path / "vllm.log").is_file()
