"""The study of training sets: what is drawn, what is measured of an answer, and what it says of the stored results."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import persyn_hf


STUDY = Path(__file__).parents[2] / "recipes/tiny/study-reward"
CRITERIA = ("eq2 0.4", "log-prob per token")


@pytest.fixture(scope="module")
def study(monkeypatch_module):
    monkeypatch_module.syspath_prepend(str(STUDY))
    import analyse
    import criteria
    import sets

    yield sets, criteria, analyse
    for name in ("analyse", "criteria", "sets", "train"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def test_sets_are_drawn_as_their_names_say_and_again_the_same(study):
    sets = study[0]
    chance = np.random.default_rng(0)
    right = (chance.random((900, 4)) < 0.5).astype(float)
    values = {name: chance.normal(size=right.shape) for name in CRITERIA}
    cells = sets.Cells(right=right, criteria=values, skills=np.array([f"s{row % 5}" for row in range(900)]))
    drawn = list(sets.draw(cells))
    names = [name for name, _ in drawn]
    assert len(set(names)) == len(names) == 56
    for name, teachers in drawn:
        taken = np.flatnonzero(teachers >= 0)
        assert len(taken) == sets.SIZE
        if name.startswith("skills"):
            assert len(set(cells.skills[taken])) == 4
        if name.startswith("right") and name.endswith(" 100%"):
            possible = right[taken].any(axis=1)
            assert (right[taken, teachers[taken]] == possible).all()
        if name == "best eq2 0.4":
            assert (teachers[taken] == values["eq2 0.4"][taken].argmax(axis=1)).all()
    again = dict(sets.draw(cells))
    assert all((again[name] == teachers).all() for name, teachers in drawn)


def test_criteria_of_an_answer_against_learnability(study):
    """Of an answer of one step `local` is Eq. 1; of two, the parts are those of the whole."""
    criteria = study[1]
    student = "persyn:tiny/zoo/qwen-student"
    answers = ["12 + 30 = 42", "12 + 30 = 42. The answer is \\boxed{42}."]
    rows = [{"prompt": "What is 12 + 30?", "teacher": "t", "response": text} for text in answers]
    whole = persyn_hf.learnability(student, rows)
    from persyn_hf.recipe import packaged

    folder = str(packaged.find(student, "here"))
    found = criteria.measure(folder, [[{"role": "user", "content": "What is 12 + 30?"}]] * 2, answers)
    local, without_first, worst, surprising = found.T
    assert local[0] == pytest.approx(whole[0], abs=1e-4) and worst[0] == pytest.approx(whole[0], abs=1e-4)
    assert worst[1] < whole[1] and local[1] != pytest.approx(whole[1], abs=1e-3)
    assert (without_first <= 0).all() and ((surprising >= -1) & (surprising <= 0)).all()


def test_steps_hold_every_token_once(study):
    from transformers import AutoTokenizer

    from persyn_hf.recipe import packaged

    tokenizer = AutoTokenizer.from_pretrained(packaged.find("persyn:tiny/zoo/qwen-student", "here"))
    answer = "40 + 30 = 70. 7 + 8 = 15.\n70 + 15 = 85."
    tokens = tokenizer.encode(answer, add_special_tokens=False)
    steps = study[1]._steps(tokenizer, tokens, answer)
    assert [low for low, _ in steps] == [0, *(high for _, high in steps[:-1])] and steps[-1][1] == len(tokens)
    assert [tokenizer.decode(tokens[low:high]).strip() for low, high in steps] == [
        "40 + 30 = 70.",
        "7 + 8 = 15.",
        "70 + 15 = 85.",
    ]


def test_rank_correlation_is_scipys(study):
    from scipy.stats import spearmanr

    chance = np.random.default_rng(2)
    first, second = chance.integers(6, size=40).astype(float), chance.normal(size=40)
    assert study[2].spearman(first, second) == pytest.approx(spearmanr(first, second).statistic)
    assert np.isnan(study[2].spearman(np.zeros(5), np.arange(5.0)))


@pytest.mark.parametrize("student", ["qwen", "llama"])
def test_what_was_measured_is_whole(student, root):
    lines = (root / f"docs/data/tiny-sets-{student}-student.jsonl").read_text(encoding="utf-8").splitlines()
    sets = [json.loads(line) for line in lines]
    assert len({line["name"] for line in sets}) == len(sets) == 73
    for line in sets:
        assert len(line["teachers"]) == 1200 and sum(at != "-" for at in line["teachers"]) == 600
        assert 0 <= line["test"] <= 1 and 0 <= line["validation"] <= 1
