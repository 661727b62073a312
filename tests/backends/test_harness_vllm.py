"""A student evaluated under vLLM (the CPU build) says what it says in this process."""

import importlib.util
from pathlib import Path

import pytest

from persyn_hf.errors import EngineError, RecipeError
from persyn_hf.recipe.roles import Student
from persyn_hf.recipe.strict import read_section
from persyn_hf.stage import Context, Result, Silent
from persyn_hf.stages import evaluate


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


def run(root: Path, work_dir: Path, engine: str, watch: Watch, **vllm: object) -> Result:
    settings = {
        "engine": engine,
        "dtype": "float32",
        "max_tokens": 100,
        "vllm": {"args": ["--enforce-eager", "--no-enable-chunked-prefill"], **vllm},
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


NEEDS_VLLM = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")


@pytest.mark.slow
@NEEDS_VLLM
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


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--model", "x"], "`evaluate.vllm.args` holds '--model'; set the student's `model` instead"),
        (["--dtype=half"], "`evaluate.vllm.args` holds '--dtype=half'; set `evaluate.dtype` instead"),
        (["--port", "80"], "`evaluate.vllm.args` holds '--port', which the engine sets itself; take it out"),
        (
            ["--max-model-len", "4k"],
            "`evaluate.vllm.args`: --max-model-len must be a plain number such as 4096, got '4k'",
        ),
    ],
)
def test_arguments_that_have_another_place(args: list[str], sentence: str, root: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        run(root, tmp_path, "vllm", Watch(), args=args)
    assert str(caught.value) == sentence


@pytest.mark.heavy
@NEEDS_VLLM
def test_a_late_server_names_the_setting_of_the_evaluation(root: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"was not ready in time \(`evaluate.vllm.start_timeout_s`: 1\); mend"):
        run(root, tmp_path, "vllm", Watch(), start_timeout_s=1)
