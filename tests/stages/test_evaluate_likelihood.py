"""`metric: inverse_perplexity`: a student weighs reference answers, which nobody has to grade."""

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import pytest

from persyn_hf.errors import RecipeError
from persyn_hf.recipe.roles import Student
from persyn_hf.recipe.strict import read_section
from persyn_hf.schemas import EVALUATION
from persyn_hf.stage import Context, Result
from persyn_hf.stages import evaluate


ITEMS = [
    ("What is 1 and 2?", "It is 3, of course: 1.5e3 is no Euler."),
    ("Say it with a list.", '["one", "two"]'),  # the text of an answer, and not two references
    ("And now?", "Paris is the capital of France.\n\nIt has been so for long."),
]


@pytest.fixture
def heldout(tmp_path: Path) -> Path:
    path = tmp_path / "heldout.jsonl"
    lines = [json.dumps({"prompt": prompt, "response": answer}) + "\n" for prompt, answer in ITEMS]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def task(path: Path, **more: Any) -> dict[str, Any]:
    columns = {"question": "prompt", "answer": "response"}
    return {"name": "heldout", "path": str(path), "columns": columns, "metric": "inverse_perplexity"} | more


def run(model: Path, **settings: Any) -> Result:
    context = Context(seed=0, work_dir=Path(tempfile.mkdtemp()), student=Student(name="s", model=str(model)))
    result = evaluate.run(read_section(evaluate.Settings, settings, "evaluate"), context)
    EVALUATION.check(result.data, "evaluation")
    return result


def test_it_is_exp_of_the_loss_that_transformers_computes(base_student: Path, heldout: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    result = run(base_student, tasks=[task(heldout)])
    tokenizer = AutoTokenizer.from_pretrained(base_student)
    model = AutoModelForCausalLM.from_pretrained(base_student, dtype=torch.float32).eval()
    expected = []
    for prompt, answer in ITEMS:
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        asked = tokenizer.apply_chat_template(turns[:1], add_generation_prompt=True, tokenize=False)
        whole = tokenizer.apply_chat_template(turns, tokenize=False).rstrip("\n")
        ids = tokenizer(whole, add_special_tokens=False, return_tensors="pt")["input_ids"]
        labels = ids.clone()
        labels[:, : len(tokenizer(asked, add_special_tokens=False)["input_ids"])] = -100
        with torch.inference_mode():
            expected.append(math.exp(-float(model(input_ids=ids, labels=labels).loss)))
    assert result.data["score"][:] == pytest.approx(expected, rel=1e-4)
    assert result.metrics["heldout"]["accuracy"] == pytest.approx(sum(expected) / 3, rel=1e-4)
    assert result.metrics["heldout"]["metric"] == "inverse_perplexity"
    assert result.data["reference"][:] == [answer for _, answer in ITEMS]
    assert set(result.data["prediction"]) == {""}
    assert set(result.data["is_correct"]) == {None}


def test_it_stands_beside_tasks_that_are_answered(base_student: Path, heldout: Path, tmp_path: Path) -> None:
    asked = tmp_path / "asked.jsonl"
    asked.write_text(json.dumps({"question": "What is 1 and 2?", "answer": "3"}) + "\n", encoding="utf-8")
    tasks = [{"name": "asked", "path": str(asked)}, task(heldout, limit=2)]
    result = run(base_student, tasks=tasks, max_tokens=8)
    assert sorted(result.data["task"]) == ["asked", "heldout", "heldout"]
    assert result.counts["items"] == 3


def test_what_does_not_fit_is_not_weighed(base_student: Path, heldout: Path) -> None:
    with heldout.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"prompt": "Long?", "response": "one two three " * 2000}) + "\n")
    result = run(base_student, tasks=[task(heldout)])
    assert result.data["score"][3] is None
    assert result.data["finish_reason"][:] == [None, None, None, "too_long"]
    assert (result.counts["too_long"], result.counts["unjudged"]) == (1, 1)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"metric": "bleu"},
            "whose `metric` is null (graded by math-verify), inverse_perplexity or tests, got 'bleu'",
        ),
        ({"reference_after": "####"}, "takes each answer as it stands; take out `reference_after`"),
        ({"reference_lists": "any"}, "takes each answer as it stands; take out `reference_after`"),
        ({"filter": "strict"}, "`filter` is for tasks of the harness"),
    ],
)
def test_what_contradicts_it_is_refused(heldout: Path, more: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as error:
        read_section(evaluate.Settings, {"tasks": [task(heldout, **more)]}, "evaluate")
    assert message in str(error.value)
