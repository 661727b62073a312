"""A student evaluated under vLLM (the CPU build) says what it says in this process."""

import importlib.util
import json
import shutil
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

    def start(self, what: str, total: int, done: int = 0, work: float | None = None) -> None:
        self.begun[what] = total

    def advance(self, count: int = 1, work: float | None = None) -> None:
        self.done += count


HOSTILE = {  # what `generate` or vLLM would read from generation_config.json
    "do_sample": True, "temperature": 1.7, "top_k": 5, "top_p": 0.4, "min_p": 0.2, "repetition_penalty": 1.6,
    "max_new_tokens": 8, "min_new_tokens": 60, "no_repeat_ngram_size": 2, "num_beams": 2, "stop_strings": ["="],
    "suppress_tokens": list(range(5, 60)), "bad_words_ids": [[token] for token in range(120, 200)],
    "forced_eos_token_id": 251,
}  # fmt: skip


def hostile(root: Path, folder: Path) -> Path:
    """A student whose own generation settings would change its answers; it also lists a second end token, a colon."""
    model = folder / "hostile"
    shutil.copytree(root / "recipes" / "tiny" / "zoo" / "llama-long", model)
    path = model / "generation_config.json"
    settings = json.loads(path.read_text())
    (colon,) = (
        i for text, i in json.loads((model / "tokenizer.json").read_text())["model"]["vocab"].items() if text == ":"
    )
    path.write_text(json.dumps(settings | HOSTILE | {"eos_token_id": [settings["eos_token_id"], colon]}))
    return model


def more_tasks(root: Path, folder: Path) -> list[dict[str, object]]:
    """A task with stop texts, and one with prompts that fill the 512 positions or pass them."""
    rows = [json.loads(line) for line in (root / "recipes" / "tiny" / "test.jsonl").read_text().splitlines()[:6]]
    trivia, long = folder / "trivia.jsonl", folder / "long.jsonl"
    items = [{"question": r["question"], "answer": {"aliases": [r["answer"]], "value": r["answer"]}} for r in rows]
    trivia.write_text("".join(json.dumps(item) + "\n" for item in items))
    numbers = [{"question": "1 " * n + "What is 12 plus 7?", "answer": "19"} for n in range(190, 210)]
    long.write_text("".join(json.dumps(item) + "\n" for item in numbers))
    return [
        {"name": "trivia", "harness": "triviaqa", "path": str(trivia)},
        {"name": "long", "path": str(long)},
    ]


def run(root: Path, work_dir: Path, engine: str, watch: Watch, model: Path | None = None, **vllm: object) -> Result:
    more = [] if model is None else more_tasks(root, work_dir)
    (work_dir := work_dir / engine).mkdir()
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
            *more,
        ],
    }
    student = Student(name="s", model=str(model or root / "recipes" / "tiny" / "zoo" / "llama-long"))
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
    model = hostile(root, tmp_path)
    wanted = run(root, tmp_path, "transformers", watches[0], model)
    found = run(root, tmp_path, "vllm", watches[1], model)
    for column in ("item", "prediction", "extracted", "finish_reason", "is_correct"):
        assert found.data[column][:] == wanted.data[column][:]
    scores = [[score for score in of.data["score"] if score is not None] for of in (found, wanted)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)
    for task in ("tiny", "trivia", "long"):
        assert found.metrics[task] == wanted.metrics[task]
    assert found.metrics["trivia"]["cut"] == 0
    assert 0 < found.metrics["long"]["too_long"] < 20
    assert any(text.startswith("Alright") for text in found.data["prediction"])
    assert (watches[1].begun, watches[1].done) == (watches[0].begun, watches[0].done)
    assert (tmp_path / "vllm" / "vllm.log").is_file()


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--model", "x"], "`evaluate.vllm.args` holds '--model'; set the student's `model` instead"),
        (["--dtype=half"], "`evaluate.vllm.args` holds '--dtype=half'; set `evaluate.dtype` instead"),
        (
            ["--override-generation-config", "{}"],
            "`evaluate.vllm.args` holds '--override-generation-config', but evaluation is greedy; take it out",
        ),
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
