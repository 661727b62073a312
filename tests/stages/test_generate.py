import json
import multiprocessing
import os
import random
import signal
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from rows import assignment, prompt
from tiny_models import save_model

from persyn_hf.backends.answers import Entry
from persyn_hf.backends.engines.open_engine import open_local
from persyn_hf.backends.engines.samples import Sample, select
from persyn_hf.backends.engines.transformers import TransformersEngine
from persyn_hf.errors import EngineError, InputError, RecipeError
from persyn_hf.recipe.roles import Teacher
from persyn_hf.recipe.strict import read_section
from persyn_hf.schemas import ASSIGNMENTS, PROMPTS, RESPONSES
from persyn_hf.stage import Context, Result
from persyn_hf.stages import generate
from persyn_hf.stages.generate.requests import cell_requests
from persyn_hf.stages.generate.settings import engine_options


QUESTIONS = [f"What is {a} and {b}?" for a, b in ((1, 2), (30, 4), (5, 5), (77, 1), (6, 600), (12, 12))]
SETTINGS: dict[str, Any] = {
    "samples": 3,
    "temperature": 1.0,
    "max_tokens": 10,
    "batch_tokens": 130,
    "dtype": "float32",
}


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> tuple[Teacher, ...]:
    root = tmp_path_factory.mktemp("teachers")
    return (
        Teacher(name="zeta", model=str(save_model(root / "a", "qwen2", 1))),
        Teacher(name="alpha", model=str(save_model(root / "b", "llama", 2)), long_cot=True),
    )


def make_prompts(questions: list[str] = QUESTIONS, reference: str | None = "3") -> Dataset:
    rows = [
        prompt(question, reference=reference, split="pool" if number % 2 else "calibration")
        for number, question in enumerate(questions)
    ]
    return PROMPTS.dataset(rows)


def assign(prompts: Dataset, teachers: list[str]) -> Dataset:
    backwards = list(reversed(list(prompts)))
    rows = [assignment(row["prompt_id"], name, split=row["split"]) for name in teachers for row in backwards]
    return ASSIGNMENTS.dataset(rows)


def run(
    folder: Path,
    pool: tuple[Teacher, ...],
    prompts: Dataset,
    names: list[str] | None = None,
    seed: int = 0,
    **changes: Any,
) -> Result:
    settings = read_section(generate.Settings, SETTINGS | changes, "generate")
    context = Context(seed=seed, work_dir=folder, teachers=pool)
    assignments = assign(prompts, names or [teacher.name for teacher in pool])
    return generate.run(settings, context, prompts=prompts, assignments=assignments)


def cost(result: Result, teacher: str) -> tuple[int, int]:
    return result.cost["teachers"][teacher]["new"], result.cost["teachers"][teacher]["reused"]


def test_rows_counts_and_cost(tmp_path: Path, pool: tuple[Teacher, ...]) -> None:
    prompts = make_prompts()
    result = run(tmp_path, pool, prompts)
    data = result.data
    assert isinstance(data, Dataset)
    RESPONSES.check(data, "responses")
    expected = [("zeta", p, i) for p in prompts["prompt_id"] for i in range(3)]
    expected += [("alpha", p, i) for p in prompts["prompt_id"] for i in range(2)]  # Long-CoT: two samples
    assert list(zip(data["teacher"], data["prompt_id"], data["sample_index"], strict=True)) == expected
    assert sum(data["selected"]) == 12
    assert result.counts["requested"] == result.counts["answered"] == 30
    assert result.counts["errors"] == result.counts["unjudged"] == 0
    assert result.counts["truncated"] == sum(reason == "length" for reason in data["finish_reason"])
    assert cost(result, "zeta") == (18, 0)
    spent = result.cost["teachers"]["zeta"]
    tokens = sum(n for n, t in zip(data["num_tokens"], data["teacher"], strict=True) if t == "zeta")
    assert spent["completion_tokens"] == tokens
    assert spent["flops"] > 0
    assert result.metrics["teachers"]["alpha"]["rows"] == 12
    again = run(tmp_path, pool, prompts)
    assert again.data.to_dict() == data.to_dict()  # type: ignore[union-attr]
    assert (again.counts, again.metrics) == (result.counts, result.metrics)
    assert cost(again, "zeta") == (0, 18)


def test_cells_are_shared_between_steps_and_more_samples_cost_only_themselves(
    tmp_path: Path, pool: tuple[Teacher, ...]
) -> None:
    first = run(tmp_path, pool, make_prompts(QUESTIONS[:2]), ["zeta"])
    more = run(tmp_path, pool, make_prompts(QUESTIONS[:3]), ["zeta"], samples=4)
    assert cost(first, "zeta") == (6, 0)
    assert cost(more, "zeta") == (6, 6)
    other_seed = run(tmp_path, pool, make_prompts(QUESTIONS[:2]), ["zeta"], seed=1)
    assert cost(other_seed, "zeta") == (6, 0)
    greedy = run(tmp_path, pool, make_prompts(QUESTIONS[:2]), ["zeta"], temperature=0)
    assert len(greedy.data) == 2  # type: ignore[arg-type]
    assert cost(run(tmp_path, pool, make_prompts(QUESTIONS[:2]), ["zeta"], seed=1, temperature=0), "zeta") == (0, 2)


def test_a_bad_prompt_is_an_error_row_and_touches_nothing_else(tmp_path: Path, pool: tuple[Teacher, ...]) -> None:
    good = run(tmp_path / "good", pool, make_prompts(QUESTIONS[:3]), ["zeta"]).data
    mixed = run(tmp_path / "mixed", pool, make_prompts([*QUESTIONS[:3], "long " * 300]), ["zeta"])
    data = mixed.data
    assert isinstance(data, Dataset) and isinstance(good, Dataset)
    assert data.select(range(9)).to_dict() == good.to_dict()
    assert mixed.counts["errors"] == 3
    assert data["status"][9:] == ["error"] * 3
    assert data["error"][9].endswith("the model's context is 256")
    assert not any(data["selected"][9:])
    assert data["is_correct"][9:] == [None] * 3


def test_too_many_errors_stop_the_run(tmp_path: Path, pool: tuple[Teacher, ...]) -> None:
    prompts = make_prompts(["long " * 300, *QUESTIONS[:2]])
    with pytest.raises(EngineError) as caught:
        run(tmp_path, pool, prompts, ["zeta"], max_error_rate=0.3)
    assert str(caught.value).startswith(
        "teacher `zeta`: 3 of 9 responses failed, the bound `generate.max_error_rate` is 0.3; 3 times: the prompt has "
    )
    assert run(tmp_path, pool, prompts, ["zeta"], max_error_rate=0.4).counts["errors"] == 3


def test_prompts_without_reference_stay_unjudged(tmp_path: Path, pool: tuple[Teacher, ...]) -> None:
    result = run(tmp_path, pool, make_prompts(QUESTIONS[:2], reference=None), ["zeta"])
    assert result.counts["unjudged"] == 6
    assert result.metrics["teachers"]["zeta"]["accuracy"] is None
    assert result.data["selected"] == [True, False, False] * 2  # type: ignore[index]


@pytest.mark.parametrize(
    ("teacher", "samples"),
    [
        ({}, 4),
        ({"params_b": 72}, 2),
        ({"params_b": 71.9}, 4),
        ({"long_cot": True}, 2),
        ({"long_cot": True, "samples": 5}, 5),
    ],
)
def test_the_papers_number_of_samples(teacher: Mapping[str, Any], samples: int) -> None:
    named = Teacher(name="t", **teacher)
    assert generate.num_samples(generate.Settings(), named) == samples
    assert generate.num_samples(generate.Settings(temperature=0.0), named) == 1


def test_a_teachers_own_sampling_goes_before_that_of_all(tmp_path: Path, pool: tuple[Teacher, ...]) -> None:
    settings = generate.Settings(temperature=0.6, top_p=0.9, max_tokens=20, samples=3)
    own = pool[0].model_copy(update={"temperature": 0.0, "max_tokens": 7})
    found = []
    for teacher in (pool[0], own):
        with open_local(**engine_options(settings, teacher), log_dir=tmp_path, state_dir=tmp_path) as engine:
            each = [request.sampling for request in cell_requests(settings, 0, engine, teacher, make_prompts()[0])]
            found.append([(sampling.temperature, sampling.top_p, sampling.max_tokens) for sampling in each])
    assert found == [[(0.6, 0.9, 20)] * 3, [(0.0, 1.0, 7)]]


def sample(index: int, is_correct: bool | None, error: str | None = None, prompt: str = "p") -> Sample:
    entry = Entry(
        text="", finish_reason="stop", num_prompt_tokens=0, num_tokens=0, seconds=0, error=error, attempt=0
    )  # fmt: skip
    return Sample(prompt={"prompt_id": prompt}, index=index, entry=entry, response="", is_correct=is_correct)


def chosen(samples: list[Sample], salt: str = "s") -> list[int]:
    return [found.index for found in select(samples, salt) if found.selected]


def test_selection_prefers_correct_then_wrong_then_the_first() -> None:
    assert chosen([sample(0, False), sample(1, None), sample(2, True)]) == [2]
    assert chosen([sample(0, None), sample(1, False), sample(2, None)]) == [1]
    assert chosen([sample(0, None, "failed"), sample(1, None), sample(2, None)]) == [1]
    assert chosen([sample(0, None, "failed")]) == []
    many = [sample(index, True, prompt=str(p)) for p in range(60) for index in range(4)]
    drawn = chosen(many)
    assert len(drawn) == 60
    assert {0, 1, 2, 3} == set(drawn)
    assert drawn == chosen(many)
    assert drawn != chosen(many, "other")


def test_selection_prefers_what_can_be_trained_on_and_what_is_judged_best() -> None:
    def ended(found: Sample, finish_reason: str, response: str = "text", quality: float | None = None) -> Sample:
        return replace(
            found, entry=replace(found.entry, finish_reason=finish_reason), response=response, quality=quality
        )

    cut, whole = ended(sample(0, True), "length"), ended(sample(1, True), "stop")
    unknown, empty = ended(sample(2, True), "unknown"), ended(sample(3, True), "stop", " ")
    wrong = ended(sample(4, False), "stop")
    assert chosen([cut, whole, unknown, empty]) == [1]
    assert chosen([cut, unknown, empty]) == [2]
    assert chosen([cut, wrong]) == [4], "a wrong answer can be trained on, a cut one cannot"
    assert chosen([cut, replace(cut, index=5, is_correct=False)]) == [0]
    assert chosen([ended(sample(0, None), "length"), ended(sample(1, None), "stop")]) == [1]
    judged = [ended(sample(index, None), "stop", quality=value) for index, value in enumerate([0.1, 0.9, None, 0.9])]
    assert chosen(judged) == [1]
    assert chosen([ended(sample(0, True), "stop", quality=0.1), ended(sample(1, True), "stop", quality=0.2)]) == [1]


def test_bad_input_is_a_sentence(tmp_path: Path, pool: tuple[Teacher, ...]) -> None:
    prompts = make_prompts(QUESTIONS[:1])
    with pytest.raises(
        InputError, match="the assignments name the teacher `nobody`, the pool holds zeta, alpha; add it"
    ):
        run(tmp_path, pool, prompts, ["nobody"])
    settings = generate.Settings()
    context = Context(seed=0, work_dir=tmp_path, teachers=pool)
    with pytest.raises(InputError, match="which is not among the prompts; assign anew"):
        generate.run(settings, context, prompts=prompts, assignments=assign(make_prompts(["other"]), ["zeta"]))
    with pytest.raises(RecipeError, match="the teacher `bare` has no `model`; name one, or import its responses"):
        run(tmp_path, (Teacher(name="bare"),), prompts)
    with pytest.raises(RecipeError, match="generate: engine `import` needs `path` or `dataset`, the table"):
        read_section(generate.Settings, {"engine": "import"}, "generate")
    with pytest.raises(RecipeError, match="generate: engine `transformers` knows no `path`"):
        read_section(generate.Settings, {"path": "x.csv"}, "generate")


def test_nothing_assigned_gives_an_empty_dataset(tmp_path: Path, pool: tuple[Teacher, ...]) -> None:
    prompts = make_prompts()
    result = generate.run(
        generate.Settings(),
        Context(seed=0, work_dir=tmp_path, teachers=pool),
        prompts=prompts,
        assignments=assign(prompts, ["zeta"]).select([]),
    )
    RESPONSES.check(result.data, "responses")  # type: ignore[arg-type]
    assert len(result.data) == 0  # type: ignore[arg-type]


TABLE = {
    "instruction": [f" {QUESTIONS[0]}\n", QUESTIONS[0], QUESTIONS[1], QUESTIONS[0], "not asked"],
    "generator": ["big", "small", "big", "big", "big"],
    "output": ["So it is 3.", "<think>hm</think>It is 4.", None, "It is 5.", "?"],
    "score": [1.5, -0.5, 2.0, None, 0.0],
}
COLUMNS = {"prompt": "instruction", "teacher": "generator", "response": "output", "quality": "score"}
IMPORTED = (Teacher(name="small"), Teacher(name="big"))


def write_table(folder: Path, ending: str) -> str:
    path = folder / f"responses.{ending}"
    rows = pa.table(TABLE).to_pylist()
    if ending == "parquet":
        pq.write_table(pa.table(TABLE), path)
    elif ending == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        import csv

        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(TABLE))
            writer.writeheader()
            writer.writerows(rows)
    return str(path)


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "csv"])
def test_import(tmp_path: Path, ending: str) -> None:
    path = write_table(tmp_path, ending)
    prompts = make_prompts(QUESTIONS[:2])
    result = run(tmp_path, IMPORTED, prompts, engine="import", path=path, columns=COLUMNS, max_error_rate=0.9)
    rows = list(result.data)  # type: ignore[arg-type]
    first, second = prompts["prompt_id"]
    keys = ("teacher", "prompt_id", "sample_index", "response", "reasoning", "finish_reason", "is_correct", "quality")
    assert [tuple(row[key] for key in keys) for row in rows] == [
        ("small", first, 0, "It is 4.", "hm", "imported", False, -0.5),
        ("small", second, 0, "", None, "error", None, None),
        ("big", first, 0, "So it is 3.", None, "imported", True, 1.5),
        ("big", first, 1, "It is 5.", None, "imported", False, None),
        ("big", second, 0, "", None, "error", None, None),
    ]
    gap = "the imported response is empty" if ending == "csv" else "no imported response"  # a CSV has no nulls
    assert [row["error"] for row in rows] == [None, "no imported response", None, None, gap]
    assert (result.counts["absent"], result.counts["empty"]) == ((1, 1) if ending == "csv" else (2, 0))
    assert [row["selected"] for row in rows] == [True, False, True, False, False]
    assert result.cost == {}


def test_import_with_too_many_gaps(tmp_path: Path) -> None:
    """What else can be wrong with a table: tests/backends/test_imported.py."""
    given = {"engine": "import", "path": write_table(tmp_path, "parquet"), "columns": COLUMNS, "max_error_rate": 0.1}
    with pytest.raises(EngineError, match="teacher `small`: 1 of 2 responses failed.* 1 times: no imported response"):
        run(tmp_path, IMPORTED, make_prompts(QUESTIONS[:2]), **given)


class Ticks:
    """Progress that writes a byte per step, so that the parent knows when to kill."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def start(self, what: str, total: int, done: int = 0, work: float | None = None) -> None:
        self.connection.send(what)

    def advance(self, count: int = 1, work: float | None = None) -> None:
        self.connection.send(count)

    def tally(self, teacher: str, **numbers: Any) -> None: ...

    def waiting(self, reason: str | None) -> None: ...


def child(folder: Path, pool: tuple[Teacher, ...], log: Path, out: Path, connection: Any) -> None:
    """One run of the stage that logs each key before it is answered."""
    plain = TransformersEngine.generate

    def logged(self: TransformersEngine, batches: Any) -> Any:
        for batch in batches:
            with log.open("a") as file:
                file.write("".join(f"{request.key}\n" for request in batch))
            yield from plain(self, [batch])

    TransformersEngine.generate = logged  # type: ignore[method-assign]
    prompts = make_prompts()
    result = generate.run(
        read_section(generate.Settings, SETTINGS, "generate"),
        Context(seed=0, work_dir=folder, teachers=pool, progress=Ticks(connection)),
        prompts=prompts,
        assignments=assign(prompts, [teacher.name for teacher in pool]),
    )
    data = result.data.to_dict()  # type: ignore[union-attr]
    out.write_text(json.dumps([data, result.counts, result.metrics]))


@pytest.mark.heavy
@pytest.mark.parametrize("kills", [pytest.param(2, marks=pytest.mark.ci), pytest.param(4, marks=pytest.mark.slow)])
def test_kills_at_random_moments_change_nothing(tmp_path: Path, pool: tuple[Teacher, ...], kills: int) -> None:
    expected = run(tmp_path / "whole", pool, make_prompts())
    folder, out = tmp_path / "killed", tmp_path / "out.json"
    context = multiprocessing.get_context("forkserver")
    models = [f"transformers.models.{name}.modeling_{name}" for name in ("qwen2", "llama")]
    context.set_forkserver_preload(["transformers.generation", "datasets", "persyn_hf.stages.generate", *models])
    draw = random.Random(time.time_ns())
    answered: set[str] = set()
    partial = 0
    for attempt in range(8):
        log = tmp_path / f"log{attempt}"
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=child, args=(folder, pool, log, out, sender))
        process.start()
        sender.close()
        ticks = draw.randint(3, 5) if attempt == 0 else draw.randint(1, 6) if attempt < kills else None
        try:
            while ticks is None or ticks > 0:
                receiver.recv()
                ticks = None if ticks is None else ticks - 1
            time.sleep(draw.uniform(0, 0.1))
            os.kill(process.pid, signal.SIGKILL)  # type: ignore[arg-type]
        except EOFError:
            pass  # it has ended
        process.join()
        asked = log.read_text().split() if log.exists() else []
        assert not answered & set(asked), "an answered key was asked again"
        assert len(asked) == len(set(asked))
        db = sqlite3.connect(folder / "journal.sqlite")
        now = {key for (key,) in db.execute("SELECT key FROM answers")}
        assert len(now) == db.execute("SELECT count(*) FROM answers").fetchone()[0]
        db.close()
        assert answered <= now, "an answer was lost"
        answered = now
        partial += 0 < len(now) < 30
        if process.exitcode == 0:
            break
    assert out.exists()
    assert partial >= 1
    data, counts, metrics = json.loads(out.read_text())
    assert data == expected.data.to_dict()  # type: ignore[union-attr]
    assert (counts, metrics) == (expected.counts, expected.metrics)


def test_a_rerun_of_errors_asks_only_those(
    tmp_path: Path, pool: tuple[Teacher, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = make_prompts([*QUESTIONS[:2], "long " * 300])
    before = run(tmp_path, pool, prompts, ["zeta"])
    monkeypatch.setattr(TransformersEngine, "context_length", 2000)  # the cause is mended
    asked = []
    monkeypatch.setattr(
        TransformersEngine,
        "generate",
        lambda self, batches: iter(asked.append([r.prompt.refusal for b in batches for r in b]) or []),
    )
    assert run(tmp_path, pool, prompts, ["zeta"]).counts == before.counts
    assert asked == []
    with pytest.raises(EngineError, match="teacher `zeta`: its engine ended with 3 requests unanswered; run again"):
        run(tmp_path, pool, prompts, ["zeta"], rerun=["errors"])
    assert asked == [[None] * 3]
