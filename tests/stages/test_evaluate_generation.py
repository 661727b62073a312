"""What a student is asked and how it answers: greedy whatever its files say, whole prompts, no thoughts judged."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from smoke_run import command

from persyn_hf.backends import generation
from persyn_hf.backends import loading as models
from persyn_hf.backends.harness.answers import Sheet, read
from persyn_hf.backends.harness.student import recorded
from persyn_hf.errors import InputError
from persyn_hf.recipe.roles import Student
from persyn_hf.recipe.strict import read_section
from persyn_hf.stage import Context, Result, Silent
from persyn_hf.stages import evaluate


HOSTILE = {  # each of them changes or cuts answers where `generate` reads it
    "do_sample": True, "temperature": 1.7, "top_k": 5, "top_p": 0.4, "min_p": 0.2, "typical_p": 0.5,
    "repetition_penalty": 1.6, "no_repeat_ngram_size": 2, "encoder_repetition_penalty": 1.5,
    "max_new_tokens": 8, "max_length": 12, "min_new_tokens": 60, "max_time": 0.001,
    "num_beams": 3, "length_penalty": 3.0, "early_stopping": True, "stop_strings": ["="],
    "suppress_tokens": list(range(5, 60)), "begin_suppress_tokens": list(range(60, 120)),
    "bad_words_ids": [[token] for token in range(120, 200)], "forced_bos_token_id": 250, "forced_eos_token_id": 251,
    "renormalize_logits": True, "guidance_scale": 2.0, "use_cache": False,
}  # fmt: skip


def hostile(model: Path, folder: Path, **more: Any) -> Path:
    """A copy of a model whose generation_config.json wants everything otherwise."""
    shutil.copytree(model, folder)
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | HOSTILE | more))
    return folder


def run(model: Path, tasks: Sequence[dict[str, Any]], template: Path | None = None, **settings: Any) -> Result:
    student = Student(name="s", model=str(model), chat_template=None if template is None else str(template))
    context = Context(seed=0, work_dir=Path(tempfile.mkdtemp()), student=student)
    return evaluate.run(read_section(evaluate.Settings, settings | {"tasks": list(tasks)}, "evaluate"), context)


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def trivia(path: Path, root: Path, count: int) -> dict[str, Any]:
    """Sums as items of TriviaQA, a task of the harness that ends an answer at a line's end, a full stop or a comma."""
    rows = [json.loads(line) for line in (root / "recipes" / "tiny" / "test.jsonl").read_text().splitlines()[:count]]
    items = [{"question": r["question"], "answer": {"aliases": [r["answer"]], "value": r["answer"]}} for r in rows]
    return {"name": "trivia", "harness": "triviaqa", "path": str(write(path, items))}


def test_a_checkpoint_with_settings_of_its_own_answers_greedily_all_the_same(
    root: Path, zoo: Path, tmp_path: Path
) -> None:
    task = {"name": "sums", "path": str(root / "recipes" / "tiny" / "test.jsonl"), "limit": 12}
    plain = run(zoo / "qwen-student", [task], max_tokens=60)
    found = run(hostile(zoo / "qwen-student", tmp_path / "m"), [task], max_tokens=60)
    assert plain.metrics["sums"]["cut"] == 0
    assert plain.metrics["sums"]["accuracy"] > 0.3
    assert found.data.to_list() == plain.data.to_list()
    assert found.metrics == plain.metrics


def test_the_recipe_alone_says_how_long_an_answer_may_be(root: Path, zoo: Path, tmp_path: Path) -> None:
    task = {"name": "sums", "path": str(root / "recipes" / "tiny" / "test.jsonl"), "limit": 4}
    found = run(hostile(zoo / "qwen-student", tmp_path / "m", max_new_tokens=300), [task], max_tokens=7)
    assert (found.metrics["sums"]["cut"], found.metrics["sums"]["mean_tokens"]) == (4, 7)
    assert set(found.data["finish_reason"]) == {"length"}


def test_end_tokens_that_a_checkpoint_lists_end_answers_too(zoo: Path, tmp_path: Path) -> None:
    """What is no token (a word, null, a share) is not among them; without the file the config has them."""
    tokenizer = models.load_tokenizer(str(zoo / "qwen-student"))
    end = tokenizer.eos_token_id
    odd = hostile(zoo / "qwen-student", tmp_path / "m", eos_token_id=[end, 40, None, "x", -1, 2.0, True])
    assert generation.end_tokens(str(odd), None, tokenizer, 41) == sorted({end, 40, 41})
    (odd / "generation_config.json").unlink()
    config = json.loads((odd / "config.json").read_text())
    (odd / "config.json").write_text(json.dumps(config | {"eos_token_id": 42}))
    assert generation.end_tokens(str(odd), None, tokenizer) == sorted({end, 42})


def test_a_prompt_that_does_not_fit_is_counted_and_never_asked(zoo: Path, tmp_path: Path) -> None:
    """The student has 512 positions, which the second prompt and its answer fill to the last."""
    tokenizer = models.load_tokenizer(str(zoo / "qwen-student"))
    sheet = Sheet(tokenizer=tokenizer, ends=(), positions=512)

    def length(question: str) -> int:
        turns = [{"role": "user", "content": question}]
        prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return len(sheet.encode([prompt])[0])

    fitting = "1 " * 180 + "What is 12 plus 7?"
    room = 512 - length(fitting)
    assert 60 < room < 150
    rows = [{"question": q, "answer": "19"} for q in ("What is 12 plus 7?", fitting, f"1 {fitting}")]
    task = {"name": "long", "path": str(write(tmp_path / "q.jsonl", rows))}
    found = run(zoo / "qwen-student", [task], max_tokens=room)
    assert (found.metrics["long"]["too_long"], found.metrics["long"]["unjudged"], found.counts["too_long"]) == (
        1,
        1,
        1,
    )
    assert found.data[2] | {"prompt": ""} == {
        "task": "long", "item": "2", "prompt": "", "reference": "19", "prediction": "", "reasoning": None,
        "extracted": None, "finish_reason": "too_long", "is_correct": None, "score": None, "parts": [],
        "score_by_filter": None,
    }  # fmt: skip
    assert all(found.data["prediction"][:2])
    short = run(zoo / "qwen-student", [task], max_tokens=room - 2)
    assert short.metrics["long"]["too_long"] == 0
    assert short.data["prediction"][0] == found.data["prediction"][0]

    settings = read_section(evaluate.Settings, {"tasks": [task], "max_tokens": room}, "evaluate")
    student = Student(name="s", model=str(zoo / "qwen-student"))
    (warning,) = evaluate.check_student(settings, student)
    assert "1 of the 3 prompts of `long` do not fit beside `evaluate.max_tokens`" in warning
    none = read_section(evaluate.Settings, {"tasks": [task], "max_tokens": 511}, "evaluate")
    with pytest.raises(InputError, match="no item of `long` can be asked: the shortest prompt has .* 512 positions"):
        list(evaluate.check_student(none, student))


def test_choices_that_do_not_fit_are_counted_and_never_scored(root: Path, zoo: Path, tmp_path: Path) -> None:
    lines = (root / "tests" / "data" / "truthfulqa_sample.csv").read_text(encoding="utf-8").splitlines()
    path = tmp_path / "t.csv"
    path.write_text("\n".join([*lines[:3], f"x,y,{'How long is it? ' * 200},It is.,It is.,It is.,It is not.,z"]))
    # six examples of the harness in the prompt leave the tiny students no room for this item
    wide = tmp_path / "wide"
    shutil.copytree(zoo / "qwen-student", wide)
    config = json.loads((wide / "config.json").read_text())
    (wide / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 1024}))
    found = run(wide, [{"name": "truth", "harness": "truthfulqa_mc2", "path": str(path)}])
    assert found.data["finish_reason"][:] == [None, None, "too_long"]
    assert found.data["score"][2] is None
    line = found.metrics["truth"]
    assert (line["num_items"], line["unjudged"], line["too_long"]) == (3, 1, 1)
    assert line["accuracy"] == pytest.approx(line["harness"]["acc,none"])


def test_an_answer_that_ends_at_a_stop_text_is_not_cut(root: Path, zoo: Path, tmp_path: Path) -> None:
    found = run(zoo / "qwen-student", [trivia(tmp_path / "q.jsonl", root, 8)], max_tokens=60)
    assert found.metrics["trivia"]["cut"] == 0
    assert set(found.data["finish_reason"]) == {"stop"}
    assert not any(mark in text for text in found.data["prediction"] for mark in (".", ",", "\n"))
    short = run(zoo / "qwen-student", [trivia(tmp_path / "q.jsonl", root, 8)], max_tokens=2)
    assert short.metrics["trivia"]["cut"] == 8


def test_a_stop_text_does_not_end_thoughts(root: Path, zoo: Path, tmp_path: Path) -> None:
    """A template that opens the thoughts, and a student that never closes them: it has said nothing, all of it."""
    path = tmp_path / "thinks.jinja"
    tokenizer = models.load_tokenizer(str(zoo / "qwen-student"))
    path.write_text(tokenizer.chat_template + "{% if add_generation_prompt %}{{ '<think>' }}{% endif %}")
    own = {"name": "sums", "path": str(root / "recipes" / "tiny" / "test.jsonl"), "limit": 4}
    found = run(zoo / "qwen-student", [own, trivia(tmp_path / "q.jsonl", root, 4)], path, max_tokens=40)
    assert set(found.data["prediction"]) == {""}
    assert found.metrics["sums"]["accuracy"] == found.metrics["trivia"]["accuracy"] == 0
    assert any("." in text or "," in text for text in found.data["reasoning"][4:])
    assert found.metrics["sums"]["mean_tokens"] > 5


def test_thoughts_in_special_tokens_are_cut_off(zoo: Path) -> None:
    """Qwen's and others' tags are tokens of their own; the rest of the special tokens is dropped."""
    tokenizer: Any = models.load_tokenizer(str(zoo / "qwen-student"))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>", "<|odd|>"]})
    sheet = Sheet(tokenizer=tokenizer, ends=[tokenizer.eos_token_id], positions=512)
    (ids,) = sheet.encode([f"<think>\nIs it 7?\n</think>\n\nIt is <|odd|>8.{tokenizer.eos_token} more"])
    spoken = sheet.heard(ids, sheet.ends)
    assert spoken == ("<think>\nIs it 7?\n</think>\n\nIt is 8.", True)
    said = read("", spoken, [])
    assert (said.answer, said.reasoning, said.cut) == ("It is 8.", "Is it 7?", False)


@given(thoughts=st.text(alphabet="ab \n.", max_size=20), answer=st.text(alphabet="ab.\n", max_size=20))
def test_the_answer_is_what_follows_the_thoughts_up_to_a_stop_text(thoughts: str, answer: str) -> None:
    said = read("", (f"<think>{thoughts}</think>{answer}", False), ["."])
    assert said.answer == answer.strip().partition(".")[0]
    assert said.reasoning == thoughts.strip()
    assert said.cut == ("." not in answer)
    assert read("", (f"<think>{thoughts}", True), ["."]).answer == ""


def test_every_filter_of_a_task_is_kept_and_one_chosen(zoo: Path, tmp_path: Path) -> None:
    """Stock GSM8K: the strict filter wants `####`, the flexible one takes the last number. Thoughts count for none."""
    tokenizer = models.load_tokenizer(str(zoo / "qwen-student"))
    rows = [{"question": f"What is {n} and 1?", "answer": f"So.\n#### {n + 1}"} for n in (4, 6, 8)]
    said = ["It is 5.", "<think>\n#### 7\n</think>\n\n#### 9", "#### 9\nQuestion: What is 1?"]
    path = write(tmp_path / "g.jsonl", rows)
    for wanted, right in ((None, [0, 0, 1]), ("flexible-extract", [1, 0, 1])):
        task = {"name": "g", "harness": "gsm8k", "path": str(path), "filter": wanted}
        settings = read_section(evaluate.Settings, {"tasks": [task]}, "evaluate")
        loaded = evaluate.load(settings.tasks[0], settings)
        student = recorded(said, tokenizer, Silent())
        ((items, line),) = evaluate.score(settings.tasks[0], loaded, student, settings, None).values()  # type: ignore[arg-type]
        assert [item.score for item in items] == right
        assert [item.prediction for item in items] == ["It is 5.", "#### 9", "#### 9\n"]
        assert items[0].extracted == ("[invalid]" if wanted is None else "5.")
        assert items[1].reasoning == "#### 7"
        assert [item.by_filter for item in items] == [[0, 1], [0, 0], [1, 1]]
        assert line["filter"] == (wanted or "strict-match")
        assert {key: of["accuracy"] for key, of in line["filters"].items()} == pytest.approx(
            {"strict-match": 1 / 3, "flexible-extract": 2 / 3}
        )
    bad = read_section(evaluate.Settings, {"tasks": [task | {"filter": "strict"}]}, "evaluate")
    with pytest.raises(InputError, match="the task `g.*` has no filter `strict`, did you mean `strict-match`"):
        evaluate.load(bad.tasks[0], bad)


def test_a_metric_in_another_unit_is_refused_before_anything_is_trained(zoo: Path, tmp_path: Path) -> None:
    answers = {"best_answer": "5.", "correct_answers": ["5."], "incorrect_answers": ["6."]}
    path = write(tmp_path / "t.jsonl", [{"question": "What is 4 and 1?", **answers}])
    task = {"name": "truth", "harness": "truthfulqa_gen", "path": str(path)}
    student = Student(name="s", model=str(zoo / "qwen-student"))
    bleu = read_section(evaluate.Settings, {"tasks": [task]}, "evaluate")
    with pytest.raises(InputError, match="`bleu_max` of the task `truthfulqa_gen` is no share .* `metric`: bleu_acc"):
        list(evaluate.check_student(bleu, student))
    share = read_section(evaluate.Settings, {"tasks": [task | {"metric": "bleu_acc"}]}, "evaluate")
    assert not list(evaluate.check_student(share, student))


@pytest.mark.heavy
def test_a_limit_that_no_prompt_fits_beside_is_refused_before_anything_runs(tmp_path: Path) -> None:
    store = tmp_path / "store"
    arguments = [sys.executable, "-m", "persyn_hf.cli", *command(store), "--set", "evaluate.max_tokens=511"]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 2
    assert "can be asked: the shortest prompt has" in done.stderr
    assert "lower `evaluate.max_tokens`" in " ".join(done.stderr.split())
    assert not list(store.glob("datasets--*"))
