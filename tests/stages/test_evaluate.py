"""`evaluate`: exact accuracy, honest intervals, the same text at any batch size, nothing cut at a blank line."""

import json
import logging
import tempfile
from pathlib import Path
from typing import Any

import pytest

from persyn_hf.backends import chat
from persyn_hf.backends import loading as models
from persyn_hf.backends.harness import Answered
from persyn_hf.backends.harness import student as answering
from persyn_hf.backends.harness.questions import MathTask
from persyn_hf.backends.harness.stock_items import stock_item
from persyn_hf.backends.harness.student import Student as Answering
from persyn_hf.backends.harness.summary import summarise, wilson
from persyn_hf.errors import InputError, RecipeError
from persyn_hf.recipe.roles import Student
from persyn_hf.recipe.strict import read_section
from persyn_hf.schemas import EVALUATION
from persyn_hf.stage import Context, Result
from persyn_hf.stages import evaluate
from persyn_hf.stages.evaluate import items


ITEMS = [("What is 1 and 2?", "3"), ("And 2 and 2, said at much greater length than before?", "4"), ("é€?", "1/2")]


class Watch:
    """Progress that remembers."""

    def __init__(self) -> None:
        self.total = self.done = 0

    def start(self, what: str, total: int, done: int = 0, work: float | None = None) -> None:
        self.total = total

    def advance(self, count: int = 1, work: float | None = None) -> None:
        self.done += count


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in ITEMS), encoding="utf-8")
    return path


def run(model: Path | None, watch: Any = None, student: Path | None = None, **settings: Any) -> Result:
    base = Student(name="s", model=None if model is None else str(model))
    context = Context(seed=0, work_dir=Path(tempfile.mkdtemp()), student=base, progress=watch or Watch())
    settings = {"max_tokens": 20} | settings
    result = evaluate.run(read_section(evaluate.Settings, settings, "evaluate"), context, student=student)
    EVALUATION.check(result.data, "evaluation")
    return result


def test_hand_made_answers_give_exact_accuracy(
    base_student: Path, questions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model is replaced by a list: right, wrong, and a reference that nobody can parse."""
    answers = ["So 1 + 2 = 3.\n\nThe answer is \\boxed{3}", "\\boxed{5}", "$\\frac{1}{2}$", "\\boxed{7}"]
    with questions.open("a") as file:
        file.write(json.dumps({"question": "Why?", "answer": "?"}))

    def answer(self: Any, task: MathTask, max_tokens: int) -> Any:
        items = zip(task.questions, task.references, answers, strict=True)
        return [Answered(prompt=q, reference=r, prediction=p, score=None) for q, r, p in items], {"cut": 0}

    monkeypatch.setattr(Answering, "answer", answer)
    result = run(base_student, tasks=[{"name": "mine", "path": str(questions)}])
    assert result.data["is_correct"][:] == [True, False, True, None]
    assert "lists_of_references" not in result.metrics["mine"]
    summary = result.metrics["mine"]
    assert summary["accuracy"] == pytest.approx(2 / 3)
    assert summary["stderr"] == pytest.approx((2 / 9 / 3) ** 0.5)
    assert (summary["num_items"], summary["unjudged"]) == (4, 1)
    assert result.counts == {"items": 4, "unjudged": 1, "cut": 0, "too_long": 0}
    assert result.data[0] == {
        "task": "mine", "item": "0", "prompt": ITEMS[0][0], "reference": "3", "prediction": answers[0],
        "reasoning": None, "extracted": None, "finish_reason": None,
        "is_correct": True, "score": 1.0, "parts": [], "score_by_filter": None,
    }  # fmt: skip


def test_wilson() -> None:
    """Newcombe (1998), table I: 81 of 263, and none of 20."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


def test_a_share_of_several_parts_and_of_half_scores() -> None:
    """Worked by hand: 5 of 7 parts; deviations weighted by parts; Wilson's interval of as many items as fit them."""
    items = [
        Answered(prompt="", reference=None, prediction="", score=sum(parts) / len(parts), parts=parts)
        for parts in ([True, True, False, True], [True, False], [True])
    ]
    line = summarise(items)
    assert line["accuracy"] == pytest.approx(5 / 7)
    assert line["stderr"] == pytest.approx(
        ((4 * (3 / 4 - 5 / 7)) ** 2 + (2 * (1 / 2 - 5 / 7)) ** 2 + (2 / 7) ** 2) ** 0.5 / 7
    )
    effective = (5 / 7) * (2 / 7) / line["stderr"] ** 2
    assert (line["low"], line["high"]) == wilson(5 / 7 * effective, effective)
    nothing = summarise([Answered(prompt="", reference=None, prediction="", score=None)])
    assert nothing == {"accuracy": None, "stderr": None, "low": 0.0, "high": 1.0, "num_items": 1, "unjudged": 1}


def test_references_in_scientific_notation_are_numbers(base_student: Path, tmp_path: Path) -> None:
    """math-verify reads 4.5e33 as a product with Euler's e."""
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps({"question": "How bright?", "answer": "It is \\boxed{4.5e33} erg/s, not e3 or 2e."}))
    settings = read_section(evaluate.Settings, {"tasks": [{"name": "t", "path": str(path)}]}, "evaluate")
    loaded = evaluate.load(settings.tasks[0], settings)
    assert isinstance(loaded, MathTask)
    assert loaded.references == ["It is \\boxed{4.5 \\times 10^{33}} erg/s, not e3 or 2e."]


def test_questions_of_a_dataset(base_student: Path, tmp_path: Path) -> None:
    """A local folder stands for a dataset of the Hub: two splits joined, examples from a third."""
    for split, rows in (("train", range(2)), ("test", range(2, 5)), ("shots", range(5, 7))):
        lines = [json.dumps({"question": f"Q{i}?", "answer": f"So.\n#### {i}"}) for i in rows]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
    data = "\n".join(f"  - {{split: {split}, path: {split}.jsonl}}" for split in ("train", "test", "shots"))
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n- config_name: main\n  data_files:\n{data}\n---\n")
    task = {
        "name": "d", "dataset": str(tmp_path), "config": "main", "split": "train+test", "reference_after": "####",
        "num_fewshot": 2, "fewshot_split": "shots",
    }  # fmt: skip
    settings = read_section(evaluate.Settings, {"tasks": [task]}, "evaluate")
    loaded = evaluate.load(settings.tasks[0], settings)
    assert isinstance(loaded, MathTask)
    assert (loaded.questions, loaded.references) == ([f"Q{i}?" for i in range(5)], list("01234"))
    assert [question for question, _ in loaded.examples] == ["Q5?", "Q6?"]
    more = read_section(evaluate.Settings, {"tasks": [task | {"num_fewshot": 3}]}, "evaluate")
    with pytest.raises(RecipeError, match="`d.num_fewshot` must be at most 2, the worked examples that there are"):
        evaluate.load(more.tasks[0], more)


def test_batches_give_the_text_of_single_questions(base_student: Path, questions: Path) -> None:
    watch = Watch()
    task = {"name": "mine", "path": str(questions)}
    many = run(base_student, watch, tasks=[task], batch_size=3)
    single = run(base_student, tasks=[task], batch_size=1)
    assert many.data.to_list() == single.data.to_list()
    assert many.data["prompt"][:] == [question for question, _ in ITEMS]
    assert (watch.total, watch.done) == (3, 3)
    assert many.metrics == single.metrics
    assert run(base_student, tasks=[task], limit=2).counts["items"] == 2
    assert run(base_student, tasks=[task | {"limit": 1}], limit=2).counts["items"] == 1


def test_the_model_sees_the_chat_template_and_stops_at_the_end_of_turn(base_student: Path, questions: Path) -> None:
    """What the harness generates is what `generate` gives on the template's tokens, up to the end of turn."""
    tokenizer, model = (
        models.load_tokenizer(str(base_student)),
        models.load_causal_lm(str(base_student), None, "float32", "cpu"),
    )
    end = chat.end_of_turn(tokenizer, "s")
    found = run(base_student, tasks=[{"name": "mine", "path": str(questions)}])
    for (question, _), prediction in zip(ITEMS, found.data["prediction"], strict=True):
        turns = [{"role": "user", "content": question}]
        prompt = tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        out = model.generate(**prompt, max_new_tokens=20, do_sample=False, eos_token_id=[end, tokenizer.eos_token_id])[
            0
        ]
        out = out[prompt["input_ids"].shape[1] :]
        assert prediction == tokenizer.decode(out, skip_special_tokens=True)


def test_blank_lines_do_not_end_an_answer(base_student: Path, questions: Path) -> None:
    """The harness's default stop is a blank line, which cuts any worked answer in two."""
    task = MathTask(name="t", questions=["q"], references=["1"], examples=[], num_fewshot=0)
    assert answering._config(task, 8)["generation_kwargs"]["until"] == []


def test_few_shots_and_final_answers(base_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [{"q": f"Q{i}?", "a": f"It is so.\n#### 1,{i}00"} for i in range(3)]
    path = tmp_path / "gsm.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    seen: list[str] = []
    original = answering.make_lm

    def spy(*arguments: Any) -> Any:
        lm = original(*arguments)
        template = lm.apply_chat_template
        lm.apply_chat_template = lambda *a, **k: seen.append(template(*a, **k)) or seen[-1]
        return lm

    monkeypatch.setattr(answering, "make_lm", spy)
    task = {
        "name": "gsm", "path": str(path), "columns": {"question": "q", "answer": "a"}, "reference_after": "####",
        "num_fewshot": 1, "fewshot_path": str(path), "limit": 1,
    }  # fmt: skip
    result = run(base_student, tasks=[task])
    assert result.data["reference"][:] == ["1000"]
    assert seen == ["<|user|>Q0?<|end|>\n<|assistant|>It is so.\n#### 1,000<|end|>\n<|user|>Q0?<|end|>\n<|assistant|>"]


def test_trained_student_is_preferred_and_logs_are_left_alone(
    base_student: Path, questions: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    level = logging.getLogger("lm_eval").level
    run(tmp_path / "nowhere", student=base_student, tasks=[{"name": "mine", "path": str(questions)}])
    assert logging.getLogger("lm_eval").level == level
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_stock_task_runs_without_network(base_student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A multiple-choice task as the harness would load it: scored by likelihood, progress in requests."""
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    docs = Dataset.from_list([{"question": "Sky?", "label": 1}, {"question": "Grass?", "label": 0}])
    config = {
        "task": "colours", "custom_dataset": lambda **_: {"test": docs}, "test_split": "test",
        "output_type": "multiple_choice", "doc_to_text": "question", "doc_to_target": "label",
        "doc_to_choice": ["green", "blue"], "metric_list": [{"metric": "acc"}],
    }  # fmt: skip
    monkeypatch.setattr(items, "load_stock", lambda name, *_: {name: ConfigurableTask(config=config)})
    watch = Watch()
    result = run(base_student, watch, tasks=[{"name": "colours"}])
    assert (watch.total, watch.done) == (4, 4)
    right = [p == r for p, r in zip(result.data["prediction"], ["blue", "green"], strict=True)]
    assert result.data["is_correct"][:] == right
    assert result.metrics["colours"]["accuracy"] == result.metrics["colours"]["harness"]["acc,none"] == sum(right) / 2


def test_stock_item() -> None:
    """Multiple choice: the likelier choice is the prediction, the task's first metric its score."""
    sample = {
        "doc": {"question": "Sky?"}, "target": 1, "arguments": [("Sky?", " red"), ("Sky?", " blue")],
        "filtered_resps": [(-4.0, False), (-1.0, True)], "metrics": ["acc"], "acc": 1.0,
    }  # fmt: skip
    expected = Answered(prompt="Sky?", reference="1", prediction="blue", score=1.0)
    assert stock_item(sample, "acc", None) == expected


def test_bad_inputs(base_student: Path, questions: Path, tmp_path: Path) -> None:
    task = {"name": "mine", "path": str(questions)}
    with pytest.raises(
        InputError, match="nowhere.jsonl does not exist or is no file; `evaluate.tasks.path` must name a file"
    ):
        run(base_student, tasks=[{"name": "mine", "path": "nowhere.jsonl"}])
    with pytest.raises(InputError, match=r"has no column `qestion`, did you mean `question`\? \(known: question"):
        run(base_student, tasks=[task | {"columns": {"question": "qestion"}}])
    with pytest.raises(InputError, match="`evaluate.max_tokens` is 256, but the student has 256 positions"):
        run(base_student, tasks=[task], max_tokens=256)
    with pytest.raises(RecipeError, match="needs a trained student or one with a `model`, found none"):
        run(None, tasks=[task])
    with pytest.raises(InputError, match="the model folder .* does not exist"):
        run(tmp_path / "nowhere", tasks=[task])
    bad = tmp_path / "bad.jsonl"
    for text, message in (
        ("{", "bad.jsonl cannot be read as .jsonl: line 1: "),
        ("", "is empty: it holds no rows; `evaluate.tasks` needs at least one"),
        ('{"question": "", "answer": "1"}', "item 1: column `question` is empty; every item needs one"),
    ):
        bad.write_text(text)
        with pytest.raises(InputError, match=message):
            run(base_student, tasks=[{"name": "mine", "path": str(bad)}])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "the key `tasks` is missing"),
        ({"tasks": []}, "evaluate.tasks: "),
        ({"tasks": [{"name": "a"}, {"name": "a"}]}, "two tasks are named `a`"),
        ({"tasks": [{"name": "a", "reference_after": "x"}]}, "`a` has no `path` or `dataset`: the harness knows"),
        ({"tasks": [{"name": "a", "harness": "b", "fewshot_path": "p"}]}, "`a` is a task of the harness, which knows"),
        ({"tasks": [{"name": "a", "path": "p", "num_fewshot": 2}]}, "`num_fewshot` and `fewshot_path` or"),
        ({"tasks": [{"name": "a", "path": "p", "dataset": "d"}]}, "`a` has both `path` and `dataset`; keep one"),
        ({"tasks": [{"name": "a", "path": "p", "metric": "m"}]}, "`a` has items of its own, whose `metric` is null"),
        ({"tasks": [{"name": "a", "path": "p", "filter": "m"}]}, "`a` has items of its own; `filter` is for tasks"),
        ({"tasks": [{"name": "a", "path": "p", "fewshot_split": "s"}]}, "`a`: `fewshot_split` is of a `dataset`"),
        ({"tasks": [{"name": "a", "path": "p", "harness": "h", "num_fewshot": 1}]}, "`a`: `num_fewshot` must be 0"),
        ({"tasks": [{"name": "a", "pth": "p"}]}, "unknown key `pth`, did you mean `path`?"),
        ({"tasks": [{"name": "a/b"}]}, "evaluate.tasks.0.name: "),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as error:
        read_section(evaluate.Settings, settings, "evaluate")
    assert message in str(error.value)
