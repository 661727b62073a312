"""The benchmarks through the harness's own code, answered by hand: items are all there, scores come out exactly.

`PERSYN_BENCHMARKS=FOLDER pytest -m slow` runs the whole files as well: gsm8k/test.jsonl, svamp/SVAMP.json,
minerva_math/test.jsonl, olympiadbench/test.jsonl, ifeval/input_data.jsonl, truthfulqa/TruthfulQA.csv.
"""

import csv
import importlib.util
import json
import math
import os
import random
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from persyn_hf.backends import loading as models
from persyn_hf.backends.grading.pool import Verifier
from persyn_hf.backends.harness import Answered, ifeval, stock
from persyn_hf.backends.harness.questions import MathTask, Source
from persyn_hf.backends.harness.stock_items import choose_metric, score_of
from persyn_hf.backends.harness.student import recorded
from persyn_hf.errors import InputError, RecipeError
from persyn_hf.recipe.strict import read_section
from persyn_hf.stage import Silent
from persyn_hf.stages import evaluate


GSM8K = {"name": "gsm8k", "reference_after": "####"}
SVAMP = {"name": "svamp", "columns": {"question": ["Body", "Question"], "answer": "Answer"}}
MINERVA = {"name": "minerva", "columns": {"question": "problem", "answer": "solution"}}
OLYMPIAD = {"name": "olympiad", "columns": {"answer": "final_answer"}}
IFEVAL = {"name": "ifeval", "metric": "inst_level_strict_acc", "harness": "ifeval"}
TRUTHFULQA = {"name": "truthfulqa", "harness": "truthfulqa_mc2"}

FOLLOWED: list[tuple[str, list[bool]]] = [  # an answer to each prompt of ifeval_sample.jsonl, instructions it follows
    ("Fare thee well to Kyoto", [True]),
    ("[name] and [address] are two placeholders of twelve", [False]),
    ("what are the two young boys doing with their toy guns and horns?", [True]),
    ("PARAGRAPH 1\nThe law binds us all.\nPARAGRAPH 2\nA bad law should be changed.", [False, True]),
    ('{"product": "diaper"}', [True]),
    ("He woke up.\n***\nHe saw the score.", [True]),
    ("Lord", [False]),
    ("we roll all night", [False, True]),
    ("<<Food>>\nWorms crawl.", [False, True]),
    ("A product so fine\nP.P.S. Buy it", [True]),
    ("* one\n* two", [False]),
]


@pytest.fixture(scope="module")
def tokenizer(heavy: None, zoo: Path) -> Any:
    return models.load_tokenizer(str(zoo / "qwen-student"))


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """nltk on a machine where nobody has downloaded anything, and where nobody can."""
    nltk = pytest.importorskip("nltk")
    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setattr(nltk, "download", lambda *_, **__: pytest.fail("a download was tried"))


def settings_of(task: dict[str, Any], path: Path, **more: Any) -> evaluate.Settings:
    return read_section(evaluate.Settings, {"tasks": [task | {"path": str(path)}], **more}, "evaluate")


def score(
    tokenizer: Any, settings: evaluate.Settings, answer: Callable[[Any], Sequence[str | Sequence[float]]]
) -> tuple[list[Answered], dict[str, Any]]:
    """`answer` is given the loaded task and says what is to be said of its items."""
    (task,) = settings.tasks
    loaded = evaluate.load(task, settings)
    student = recorded(answer(loaded), tokenizer, Silent())
    with Verifier() as verifier:
        ((name, found),) = evaluate.score(task, loaded, student, settings, verifier).items()
    assert name == task.name
    return found


HEAD = 'def add(a, b):\n    """Add."""'
CODE = {"name": "code", "metric": "tests", "columns": {"question": "prompt", "answer": ["test", "entry_point"]}}


def test_code_is_run_with_its_tests_in_the_sandbox(tokenizer: Any, tmp_path: Path) -> None:
    """Items as HumanEval has them; one that cannot be judged is null, and one whose tests are none is refused."""
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed (apt install bubblewrap)")
    item = {"prompt": HEAD, "test": "def check(f):\n    assert f(1, 2) == 3", "entry_point": "add"}
    items = [item, item, item, item | {"test": "import nothing_like_it\nassert add(1, 2) == 3"}]
    path = tmp_path / "code.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in items))
    said = [
        "    return a + b",
        "```python\ndef add(a, b):\n    return a - b\n```",
        "import os\nos._exit(0)",
        "    return 3",
    ]
    settings = settings_of(CODE, path)
    evaluate.check_files(settings)
    answered, line = score(tokenizer, settings, lambda _: said)
    assert [item.score for item in answered] == [1.0, 0.0, 0.0, None]
    assert (line["accuracy"], line["unjudged"]) == (pytest.approx(1 / 3), 1)
    path.write_text(json.dumps(item | {"test": "It adds."}) + "\n")
    with pytest.raises(InputError, match="item 1 has no tests that can be used; mend it or leave it out"):
        evaluate.check_files(settings)
    for values, sentence in (
        ({"metric": None}, "several columns of an answer are tests; name one, or set `metric: tests`"),
        ({"reference_after": "#"}, "has tests, which are taken as they stand and show no answers; take out"),
    ):
        with pytest.raises(RecipeError, match=sentence):
            settings_of(CODE | values, path)


def a_third_wrong(task: MathTask) -> list[str]:
    """The reference in a box, in a sentence, and another number."""
    ways = ("First 7 + 5 = 12.\n\nSo it is \\boxed{{{}}}.", "The answer is {}", "I think \\boxed{{123456789}}")
    return [ways[index % 3].format(reference) for index, reference in enumerate(task.references)]


@pytest.mark.parametrize(
    ("task", "file", "items"), [(GSM8K, "gsm8k_sample.jsonl", 100), (SVAMP, "svamp_sample.json", 15)]
)
def test_word_problems(root: Path, tokenizer: Any, task: dict[str, Any], file: str, items: int) -> None:
    answered, line = score(tokenizer, settings_of(task, root / "tests" / "data" / file), a_third_wrong)
    assert [item.score for item in answered] == [float(index % 3 != 2) for index in range(items)]
    right = items - items // 3
    assert (line["accuracy"], line["num_items"], line["unjudged"]) == (pytest.approx(right / items), items, 0)
    assert line["low"] < right / items < line["high"]


def test_svamp_is_story_and_question(root: Path) -> None:
    settings = settings_of(SVAMP, root / "tests" / "data" / "svamp_sample.json")
    loaded = evaluate.load(settings.tasks[0], settings)
    assert isinstance(loaded, MathTask)
    assert loaded.questions[1] == (
        "Dan had $ 3 left with him after he bought a candy bar. If he had $ 4 at the start. "
        "How much did the candy bar cost?"
    )
    assert loaded.references[:2] == ["51.0", "1.0"]


def test_latex_answers(root: Path, tokenizer: Any) -> None:
    """References are a list of answers, or stand in a box in a solution; one that is no mathematics is unjudged."""
    data = root / "tests" / "data"
    said = [
        "\\boxed{2}", "\\boxed{\\frac{1}{2(n+1)}}", "$2^{1009}$", "3", "$2(n-1)$", "$(1,8,19)$", "$n+n$",
        "It is \\boxed{2}.", "$\\frac{(2n)!}{n! n!}$", "$m n$", "0.5", "$f(x)=2x$",
    ]  # fmt: skip
    right = [1, 1, 1, 0, 1, 0, 1, 1, 1, 0, 0, 1]
    answered, line = score(tokenizer, settings_of(OLYMPIAD, data / "olympiadbench_sample.jsonl"), lambda _: said)
    assert [item.score for item in answered] == right
    assert (line["accuracy"], line["unjudged"]) == (pytest.approx(sum(right) / 12), 0)

    said = [
        "\\boxed{1.6}", "$4.5 \\times 10^{33}$", "41.8", "\\boxed{20}", "0.006", "$\\arcsin(10/13)$",
        "0.49", "one hundred", "9.6", "$3.83 \\cdot 10^{35}$", "\\boxed{30}", "7",
    ]  # fmt: skip
    answered, line = score(tokenizer, settings_of(MINERVA, data / "minerva_sample.jsonl"), lambda _: said)
    assert [item.score for item in answered] == [1, 1, 1, 0, 1, None, 1, 0, 1, 1, 0, 0]
    assert (line["accuracy"], line["num_items"], line["unjudged"]) == (pytest.approx(7 / 11), 12, 1)


def test_ifeval(root: Path, tokenizer: Any, bare: None) -> None:
    """Eight of fourteen instructions are followed; five of eleven prompts wholly."""
    settings = settings_of(IFEVAL, root / "tests" / "data" / "ifeval_sample.jsonl", limit=len(FOLLOWED))
    answered, line = score(tokenizer, settings, lambda _: [text for text, _ in FOLLOWED])
    assert [item.parts for item in answered] == [parts for _, parts in FOLLOWED]
    assert line["accuracy"] == line["harness"]["inst_level_strict_acc,none"] == pytest.approx(8 / 14)
    assert line["metric"] == "inst_level_strict_acc"
    assert line["harness"]["prompt_level_strict_acc,none"] == pytest.approx(5 / 11)
    assert [item.score for item in answered][7] == 0.5
    rows = rows_of(answered)
    assert [row["is_correct"] for row in rows] == [all(parts) for _, parts in FOLLOWED]


def test_ifeval_is_scored_alike_every_time(root: Path, tokenizer: Any, bare: None) -> None:
    """The harness draws a letter where the prompt asks for `#`; this text has half of the alphabet."""
    settings = settings_of(IFEVAL, root / "tests" / "data" / "ifeval_sample.jsonl")
    lines = []
    for seed in range(8):
        random.seed(seed)
        answered, _ = score(tokenizer, settings, lambda _: [""] * len(FOLLOWED) + ["abcde " * 5 + "fghijklm " * 5])
        lines.append(answered[-1].parts)
    assert lines == lines[:1] * 8


def test_ifeval_splits_sentences_without_a_download(bare: None) -> None:
    """The tables know abbreviations, which no rule of full stops does; their numbers are those of nltk's punkt_tab."""
    import nltk

    ifeval.prepare_ifeval()
    tokenizer = nltk.tokenize.PunktTokenizer("english")
    text = "Dr. Smith came at 5 p.m. from the U.S. with J. S. Bach. He sat down."
    assert tokenizer.tokenize(text) == [text[: text.index(" He")], "He sat down."]
    tables = tokenizer._params
    found = [len(part) for part in (tables.abbrev_types, tables.collocations, tables.sent_starters)]
    assert (found, len(tables.ortho_context)) == ([156, 37, 39], 20366)


def test_ifeval_says_what_it_lacks_before_anything_is_trained(
    root: Path, bare: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    settings = settings_of(IFEVAL, root / "tests" / "data" / "ifeval_sample.jsonl")
    with pytest.raises(
        InputError, match=r"sentence splitter, which is not on this machine: pip install 'persyn-hf\[eval"
    ):
        evaluate.check_files(settings)


def rows_of(answered: list[Answered]) -> list[dict[str, Any]]:
    return evaluate._rows("t", {str(index): item for index, item in enumerate(answered)})


def masses(path: Path, share: Callable[[int], float]) -> list[list[float]]:
    """Log-likelihoods that give the true answers of question i the probability `share(i)`, read with csv alone."""
    found = []
    with path.open(encoding="utf-8", newline="") as file:
        for index, row in enumerate(csv.DictReader(file)):
            true, false = (
                len([a for a in row[f"{k} Answers"].split(";") if a.strip()]) for k in ("Correct", "Incorrect")
            )
            mass = share(index)
            found.append([math.log(mass / true)] * true + [math.log((1 - mass) / false)] * false)
    return found


def test_truthfulqa(root: Path, tokenizer: Any) -> None:
    """mc2: the share of probability on the true answers. It is no yes or no, so `is_correct` stays empty."""
    path = root / "tests" / "data" / "truthfulqa_sample.csv"
    said = masses(path, lambda index: (index + 1) / 16)
    answered, line = score(tokenizer, settings_of(TRUTHFULQA, path), lambda _: said)
    assert [item.score for item in answered] == pytest.approx([(index + 1) / 16 for index in range(10)])
    assert (line["accuracy"], line["metric"]) == (pytest.approx(5.5 / 16), "mc2")
    assert line["stderr"] == pytest.approx(math.sqrt(82.5 / 16**2) / 10)
    assert line["low"] < line["accuracy"] < line["high"]
    assert answered[0].prompt == "What happens to you if you eat watermelon seeds?"
    assert {row["is_correct"] for row in rows_of(answered)} == {None}

    best = TRUTHFULQA | {"harness": "truthfulqa_mc1"}
    first = [[0.0] + [-1.0] * (len(row) - 1) if i % 2 else [-9.0] + [-1.0] * 30 for i, row in enumerate(said)]
    answered, line = score(tokenizer, settings_of(best, path), lambda _: [row + [-1.0] * 30 for row in first])
    assert [row["is_correct"] for row in rows_of(answered)] == [False, True] * 5
    assert (line["accuracy"], line["metric"]) == (0.5, "mc1")


def test_likelihoods_too_small_for_mc2_are_unjudged(root: Path, tokenizer: Any) -> None:
    path = root / "tests" / "data" / "truthfulqa_sample.csv"
    said = masses(path, lambda _: 0.25)
    said[3] = [value - 2000.0 for value in said[3]]
    answered, line = score(tokenizer, settings_of(TRUTHFULQA, path), lambda _: said)
    assert [index for index, item in enumerate(answered) if item.score is None] == [3]
    assert (line["accuracy"], line["unjudged"], line["harness"]) == (pytest.approx(0.25), 1, {})


@pytest.mark.heavy
def test_a_task_is_found_without_reading_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str | None] = []
    monkeypatch.setattr(stock, "_index", lambda folder, index=stock._index: read.append(folder) or index(folder))
    few = {name: stock._manager(name) for name in ("ifeval", "truthfulqa_mc2", "gsm8k")}
    assert read == ["ifeval", "truthfulqa", "gsm8k"]
    whole = stock._manager("leaderboard")  # a group, with parts in other folders
    assert read[3:] == ["leaderboard", None]
    for name, manager in few.items():
        assert manager.task_index[name].yaml_path == whole.task_index[name].yaml_path

    settings = read_section(evaluate.Settings, {"tasks": [{"name": "gsm8kk"}]}, "evaluate")
    with pytest.raises(InputError, match=r"has no task `gsm8kk`, did you mean `gsm8k\w*`\?; a task of your own needs"):
        evaluate.load(settings.tasks[0], settings)


def test_unfit_items_are_refused(root: Path, tokenizer: Any, tmp_path: Path) -> None:
    path = root / "tests" / "data" / "truthfulqa_sample.csv"
    with pytest.raises(InputError, match="the task has no metric `ac`, did you mean `acc`"):
        score(tokenizer, settings_of(TRUTHFULQA | {"metric": "ac"}, path), lambda _: masses(path, lambda _: 0.5))
    with pytest.raises(
        InputError, match="`truthfulqa` is a group of tasks; items from a `path` or `dataset` need one"
    ):
        score(tokenizer, settings_of({"name": "truthfulqa", "harness": "truthfulqa"}, path), lambda _: [])
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    with pytest.raises(InputError, match="empty.jsonl is empty: it holds no rows"):
        score(tokenizer, settings_of(TRUTHFULQA, empty), lambda _: [])


GENERATED = {
    "type": "A", "category": "m", "question": "What is 3 and 3?", "best_answer": "It is 6.",
    "correct_answers": ["It is 6.", "6"], "incorrect_answers": ["It is 3.", "0"], "source": "x",
}  # fmt: skip


def test_metrics_in_another_unit_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "gen.jsonl"
    path.write_text(json.dumps(GENERATED))
    for metric in (None, "rouge1_max", "bleu_diff"):
        settings = settings_of({"name": "t", "harness": "truthfulqa_gen", "metric": metric}, path)
        with pytest.raises(InputError) as caught:
            evaluate.load(settings.tasks[0], settings)
        assert f"`{metric or 'bleu_max'}` of the task" in str(caught.value)
        assert "choose its `metric`: bleu_acc, rouge1_acc, rouge2_acc, rougeL_acc" in str(caught.value)
    settings = settings_of({"name": "t", "harness": "truthfulqa_gen", "metric": "bleu_acc"}, path)
    assert list(evaluate.load(settings.tasks[0], settings)) == ["truthfulqa_gen"]


@pytest.mark.parametrize(
    ("metrics", "wanted", "message"),
    [
        ([("perplexity", "perplexity", False), ("acc", "mean", True)], None, "choose its `metric`: acc$"),
        ([("word_perplexity", "weighted_perplexity", False)], None, "it has no other; leave the task out"),
        ([("acc", "mean", True), ("f1", "f1", True)], "f1", "`f1` of the task `t` is no share"),
        ([("acc", "mean", True), ("mcc", "matthews_corrcoef", True)], "mcc", "`mcc` of the task `t` is no share"),
        ([("acc", "mean", True), ("brier_score", "brier_score", False)], "brier_score", "`brier_score` of the task"),
        ([("acc", "mean", True)], None, None),
        ([("acc", "mean", True), ("acc_norm", "mean", True)], "acc_norm", None),
    ],
)
def test_a_metric_is_a_share_of_each_item(metrics: list[Any], wanted: str | None, message: str | None) -> None:
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    docs = Dataset.from_list([{"question": "Sky?", "label": 1}])
    keys = ("metric", "aggregation", "higher_is_better")
    config = {
        "task": "t", "custom_dataset": lambda **_: {"test": docs}, "test_split": "test",
        "output_type": "multiple_choice", "doc_to_text": "question", "doc_to_target": "label",
        "doc_to_choice": ["green", "blue"], "metric_list": [dict(zip(keys, of, strict=True)) for of in metrics],
    }  # fmt: skip
    task = ConfigurableTask(config=config)
    if message is None:
        assert choose_metric("t", task, wanted) == (wanted or "acc")
    else:
        with pytest.raises(InputError, match=message):
            choose_metric("t", task, wanted)


def test_a_score_beyond_0_to_1_is_refused() -> None:
    assert [score_of({"m": value}, "m") for value in (0, 1.0, True, None, math.nan)] == [0, 1, 1, None, None]
    for value in (1.5, -0.1, (3.0, 4), "right"):
        with pytest.raises(InputError, match="the task's metric `m` gives an item .* no share of 0 to 1"):
            score_of({"m": value}, "m")


WHOLE = os.environ.get("PERSYN_BENCHMARKS")


@pytest.mark.slow
@pytest.mark.skipif(WHOLE is None, reason="PERSYN_BENCHMARKS names no folder with the whole files")
def test_whole_files(tokenizer: Any, bare: None) -> None:
    data = Path(str(WHOLE))
    for task, file in ((GSM8K, "gsm8k/test.jsonl"), (SVAMP, "svamp/SVAMP.json")):
        number = (
            sum(1 for _ in (data / file).open()) if file.endswith("l") else len(json.loads((data / file).read_text()))
        )
        answered, line = score(tokenizer, settings_of(task, data / file), a_third_wrong)
        assert [item.score for item in answered] == [float(index % 3 != 2) for index in range(number)]
        assert line["unjudged"] == 0

    for task, file, way, items, unlike_itself in (
        (MINERVA, "minerva_math/test.jsonl", "So it is: {}", 272, 8),
        (OLYMPIAD, "olympiadbench/test.jsonl", "\\boxed{{{}}}", 675, 5),
    ):
        answered, line = score(tokenizer, settings_of(task, data / file), partial(repeated, way))
        assert len(answered) == items
        assert sum(item.score != 1 for item in answered) <= unlike_itself

    answered, line = score(tokenizer, settings_of(IFEVAL, data / "ifeval/input_data.jsonl"), lambda _: ["No,"] * 541)
    commas = [
        part
        for item in answered
        for part, name in zip(item.parts, names_of(data)[item.prompt], strict=True)
        if name == "punctuation:no_comma"
    ]
    assert (len(answered), sum(len(item.parts) for item in answered)) == (541, 834)
    assert commas and not any(commas)

    path = data / "truthfulqa/TruthfulQA.csv"
    said = masses(path, lambda index: 0.25 if index % 2 else 0.75)
    answered, line = score(tokenizer, settings_of(TRUTHFULQA, path), lambda _: said)
    assert [item.score for item in answered] == pytest.approx([0.25 if index % 2 else 0.75 for index in range(790)])


def repeated(way: str, task: MathTask) -> list[str]:
    """The reference itself: a few are no mathematics, or take math-verify its time-out."""
    return [way.format(reference) for reference in task.references]


def names_of(data: Path) -> dict[str, list[str]]:
    lines = (data / "ifeval/input_data.jsonl").read_text().splitlines()
    return {row["prompt"]: row["instruction_id_list"] for row in map(json.loads, lines)}


def test_a_data_set_out_of_reach_names_the_ways_around_it() -> None:
    with pytest.raises(InputError) as error:
        list(Source(dataset="openai/gsm8k", config="main").rows())
    assert "the dataset openai/gsm8k cannot be read: " in str(error.value)
    assert str(error.value).endswith(
        "; or do without it: name a task with a `path` of your own, end before students are trained "
        "(`--set until=mix`), or only count (`persyn plan --no-checks`)"
    )
