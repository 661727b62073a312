"""Learnability and verdicts, from Python."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tiny_models import save_model

import persyn_hf
from persyn_hf.errors import InputError, PersynError


ROWS = [
    {"prompt": "What is 12 and 30?", "response": "42"},
    {"prompt": "Add 1.", "response": "The answer is 42, and not 41."},
]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("student"))


def by_hand(folder: Path, prompt: str, response: str) -> tuple[float, int]:
    """The sum of log-probabilities of an answer and its end of turn, and their number, by the model's own logits."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    before = tokenizer(f"<|start|>user\n{prompt}<|end|>\n<|start|>assistant\n")["input_ids"]
    answer = tokenizer(f"{response}<|end|>")["input_ids"]
    with torch.inference_mode():
        logits = model(torch.tensor([before + answer])).logits[0].log_softmax(-1)
    places = range(len(before) - 1, len(before) + len(answer) - 1)
    return sum(float(logits[place, token]) for place, token in zip(places, answer, strict=True)), len(answer)


def test_learnability_is_the_mean_log_probability_of_the_answer(student: Path) -> None:
    expected = []
    for row in ROWS:
        total, tokens = by_hand(student, row["prompt"], row["response"])
        expected.append(total / tokens)
    assert persyn_hf.learnability(student, ROWS) == pytest.approx(expected, abs=1e-5)


def test_the_same_answers_in_other_words_are_measured_alike(student: Path) -> None:
    values = persyn_hf.learnability(str(student), ROWS)
    asked = [{"role": "user", "content": row["prompt"]} for row in ROWS]
    said = [{"role": "assistant", "content": row["response"]} for row in ROWS]
    forms: list[Any] = [
        pd.DataFrame(ROWS),
        {"messages": [list(turns) for turns in zip(asked, said, strict=True)]},
        {"prompt": [[turn] for turn in asked], "completion": [[turn] for turn in said]},
    ]
    for form in forms:
        assert persyn_hf.learnability(student, form).tolist() == values.tolist()


def test_an_answer_that_did_not_come_is_not_measured(student: Path) -> None:
    rows = [*ROWS, {"prompt": "Add 2.", "response": None}]
    values = persyn_hf.learnability(student, rows, max_length=24)
    assert np.isnan(values).tolist() == [False, False, True]
    assert np.isnan(persyn_hf.learnability(student, ROWS, max_length=4)).all(), "no token of the answer is left"


def test_thoughts_count_with_the_answer(student: Path) -> None:
    told = {"prompt": "Add 1.", "response": "42", "reasoning": "41 + 1"}
    whole = {"prompt": "Add 1.", "response": "<think>\n41 + 1\n</think>\n\n42"}
    first, second = persyn_hf.learnability(student, [told, whole])
    assert first == second != persyn_hf.learnability(student, [whole | {"response": "42"}])[0]


def test_other_measures_are_of_the_same_pass(student: Path) -> None:
    ratio = persyn_hf.learnability(student, ROWS, measure="rank_surprisal")
    assert ratio.shape == (2,) and (ratio < 0).all()
    with pytest.raises(PersynError, match="`measure` must be mean_logprob, rank_surprisal or none, got 'loss'"):
        persyn_hf.learnability(student, ROWS, measure="loss")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"prompt": "x", "answer": "y"}], "`rows` has no column `response`, the text of each answer"),
        ([{"prompt": "x", "response": 7}], "`response` of row 0 must be a text, or a conversation that ends with"),
        ([{"messages": [{"role": "user", "content": "x"}]}], "`messages` of row 0 must be a text, or a conversation"),
    ],
)
def test_rows_without_answers_are_refused_before_a_model_is_loaded(rows: Any, said: str) -> None:
    with pytest.raises(InputError) as error:
        persyn_hf.learnability("no/such-model", rows)
    assert said in str(error.value)


@pytest.mark.parametrize("option", ["max_length", "batch_tokens"])
@pytest.mark.parametrize("value", [0, -5, "7", 2.5, True])
def test_a_number_of_tokens_below_1_is_refused(student: Path, option: str, value: Any) -> None:
    with pytest.raises(InputError) as error:
        persyn_hf.learnability(student, ROWS, **{option: value})
    assert str(error.value) == f"`{option}` must be a whole number from 1 up, got {value!r}"


def test_a_loaded_model_is_refused_with_the_way_to_give_it() -> None:
    with pytest.raises(InputError, match="`model` must be a Hub id or a folder, got object; save a loaded model"):
        persyn_hf.learnability(object(), ROWS)  # type: ignore[arg-type]


def test_a_model_that_comes_with_persyn_goes_by_its_name(root: Path) -> None:
    values = persyn_hf.learnability("persyn:tiny/zoo/qwen-student", ROWS)
    assert values.tolist() == persyn_hf.learnability(root / "recipes/tiny/zoo/qwen-student", ROWS).tolist()
    with pytest.raises(PersynError, match="`model`: nothing with the name `persyn:tiny/zoo/qwen-studnt` comes with"):
        persyn_hf.learnability("persyn:tiny/zoo/qwen-studnt", ROWS)


def test_nothing_is_printed_unless_it_is_asked_for(student: Path, capfd: pytest.CaptureFixture[str]) -> None:
    persyn_hf.learnability(student, ROWS)
    persyn_hf.grade(["1"], ["1"])
    assert capfd.readouterr() == ("", "")
    persyn_hf.learnability(student, ROWS, progress=True)
    persyn_hf.grade(["1"], ["1"], progress=True)
    out, err = capfd.readouterr()
    assert out == "" and "measuring learnability" in err and "grading" in err


def test_a_time_that_is_no_number_is_refused() -> None:
    with pytest.raises(InputError, match="`timeout_s` must be a number, got str '5'"):
        persyn_hf.grade(["1"], ["1"], timeout_s="5")  # type: ignore[arg-type]


def test_a_word_is_an_answer_only_in_a_box() -> None:
    answers = [r"\boxed{12} 7", "7 then 12", "Paris", r"\boxed{Paris}"]
    assert persyn_hf.grade(["12", "12", "Paris", "Paris"], answers) == [True, True, False, True]


def test_verdicts() -> None:
    references = ["42", 42, 0.5, "42", ["41", "42"], ("1/2", "3"), None, "42", float("nan")]
    answers = [r"\boxed{42}", "It is $43$.", "1/2", None, "$42$", "$0.5$", "1", "<think>$42$</think>$41$", "1"]
    expected = [True, False, True, None, True, True, None, False, None]
    assert persyn_hf.grade(references, answers) == expected
    assert persyn_hf.grade(pd.Series(["42", "7"]), pd.Series(["$42$", "$8$"])) == [True, False]
    assert persyn_hf.grade([], []) == []


@pytest.mark.parametrize(
    ("references", "answers", "said"),
    [
        (["1", "2"], ["1"], "each answer needs its reference, found 2 references and 1 answers"),
        ("1", ["1"], "`references` must be a list, got str; put one alone into a list"),
        (["1"], 1, "`answers` must be a list, got int"),
        (["1"], [1], "`answers`: number 0 must be a text or None, got 1"),
    ],
)
def test_what_cannot_be_graded_is_refused(references: Any, answers: Any, said: str) -> None:
    with pytest.raises(InputError) as error:
        persyn_hf.grade(references, answers)
    assert said in str(error.value)


WITHOUT = """
import os, sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
os.environ["USE_TORCH"] = "0"  # of datasets and transformers, which look for its files
sys.meta_path.insert(0, NoTorch())
import persyn_hf
rows = [{"prompt": f"p{n}", "teacher": t, "response": "x", "quality": n % 2 == (t == "a"), "learnability": -1.0}
        for n in range(40) for t in "ab"]
def say(call):
    try:
        call()
    except persyn_hf.PersynError as error:
        print(error)
rewards = persyn_hf.rewards(rows)
say(lambda: persyn_hf.learnability("no/model", rows))
say(lambda: persyn_hf.train_router(rewards, rows, objective="soft_bt"))
router = persyn_hf.train_router(rewards, rows)
print(len(router.predict(["p1", "p2"])), persyn_hf.grade(["1"], ["1"]), len(persyn_hf.pairs(rewards, rows)))
"""


@pytest.mark.heavy
def test_without_torch_each_function_says_what_to_install_and_the_others_work() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True)
    assert done.stderr == ""
    install = "needs the package `torch`, which is not installed: pip install 'persyn-hf[models]'"
    assert done.stdout.splitlines() == [
        f"`learnability` {install}",
        f"a logistic router with the objective soft_bt {install}",
        "2 [True] 40",
    ]
