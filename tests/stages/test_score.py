from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from rows import prompt, row
from tiny_models import TEMPLATE, save_model

from persyn_hf.backends.chat import Row
from persyn_hf.backends.scoring import Measured
from persyn_hf.backends.scoring.likelihood import LikelihoodScorer
from persyn_hf.backends.scoring.measure import measure
from persyn_hf.errors import InputError, RecipeError
from persyn_hf.recipe.roles import Student, Teacher
from persyn_hf.recipe.strict import read_section
from persyn_hf.schemas import PROMPTS, RESPONSES, REWARDS
from persyn_hf.stage import Context, Result, Silent
from persyn_hf.stages import score


POOL = (Teacher(name="b"), Teacher(name="a"), Teacher(name="c"))
FAILED = "HTTP 500"
QUESTIONS = ["What is 1 and 2?", "What is 30 and 4?", "never answered"]
# (question, teacher, sample, response, is_correct, quality, selected)
CELLS = [
    (0, "a", 0, "3", True, 2.0, True),
    (0, "a", 1, "4", False, None, False),
    (0, "b", 0, "I think it is 5.", False, -1.0, True),
    (0, "c", 0, "So the answer is 3.", True, 0.5, True),
    (1, "a", 0, "34", None, None, True),
    (1, "b", 0, "It is 34, surely.", True, 1.0, True),
    (1, "c", 0, "", None, None, False),
]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Student:
    return Student(name="s", model=str(save_model(tmp_path_factory.mktemp("student"))))


def make_prompts() -> Dataset:
    answers, splits = ("3", "34", None), ("calibration", "dev", "pool")
    cells = zip(QUESTIONS, answers, splits, strict=True)
    return PROMPTS.dataset([prompt(question, reference=answer, split=split) for question, answer, split in cells])


def make_responses(cells: list[tuple[Any, ...]] = CELLS) -> Dataset:
    ids, names = (
        make_prompts()["prompt_id"],
        ("teacher", "sample_index", "response", "is_correct", "quality", "selected"),
    )
    rows = [
        row(
            RESPONSES,
            prompt_id=ids[question],
            split="calibration",
            status="error" if FAILED in rest else "ok",
            error=FAILED if FAILED in rest else None,
            **dict(zip(names, rest, strict=True)),
        )
        for question, *rest in cells
    ]
    return RESPONSES.dataset(rows)


def run(folder: Path, student: Student | None, responses: Dataset | None = None, **settings: Any) -> Result:
    return score.run(
        read_section(score.Settings, {"dtype": "float32"} | settings, "score"),
        Context(seed=0, work_dir=folder, teachers=POOL, student=student),
        prompts=make_prompts(),
        responses=make_responses() if responses is None else responses,
    )


def column(result: Result, name: str) -> list[Any]:
    assert isinstance(result.data, Dataset)
    return list(result.data[name])


def test_rewards_by_hand(tmp_path: Path, student: Student) -> None:
    result = run(tmp_path, student)
    assert isinstance(result.data, Dataset)
    REWARDS.check(result.data, "rewards")
    ids = make_prompts()["prompt_id"]
    cells = list(zip(column(result, "prompt_id"), column(result, "teacher"), strict=True))
    assert cells == [(ids[0], "b"), (ids[0], "a"), (ids[0], "c"), (ids[1], "b"), (ids[1], "a")]
    assert column(result, "split") == ["calibration"] * 3 + ["dev"] * 2
    assert column(result, "quality_raw") == [0.0, 1.0, 1.0, 1.0, None]
    assert column(result, "quality_reward") == [0.0, 1.0, 1.0, 0.0, None]
    assert student.model is not None
    texts = ["I think it is 5.", "3", "So the answer is 3.", "It is 34, surely.", "34"]
    turns = [[{"role": "user", "content": QUESTIONS[row]}] for row in (0, 0, 0, 1, 1)]
    scorer = LikelihoodScorer(student.model, max_length=256, dtype="float32")
    values = [scorer.measure(scorer.encode([row]))[0] for row in zip(turns, texts, strict=True)]
    raw = [total / tokens for total, tokens, _, _ in values]
    assert column(result, "mean_logprob") == pytest.approx(raw, abs=1e-4)
    assert column(result, "num_tokens") == [tokens for _, tokens, _, _ in values]
    low, high = min(raw[:3]), max(raw[:3])
    expected = [(value - low) / (high - low) for value in raw[:3]]
    assert column(result, "learnability_reward")[:3] == pytest.approx(expected, abs=1e-3)
    reward = [0.6 * quality + 0.4 * value for quality, value in zip([0, 1, 1], expected, strict=True)]
    assert column(result, "reward")[:3] == pytest.approx(reward, abs=1e-3)
    assert column(result, "reward")[4] is None
    assert column(result, "rank")[:3] == [1 + sum(other > mine for other in reward) for mine in reward]
    assert column(result, "rank")[3:] == [1, None]
    assert result.counts == {"cells": 5, "missing": 1, "unjudged": 1, "truncated": 0, "unrewarded": 1}
    assert result.metrics["teachers"]["a"]["quality"] == 1.0
    assert result.metrics["teachers"]["b"]["best"] == 0.5


def test_a_teacher_that_did_not_answer_is_as_bad_as_the_worst(tmp_path: Path, student: Student) -> None:
    """Question 0: a right, b wrong, c failed. Question 1: a and b right, c failed."""
    cells = [
        (0, "a", 0, "3", True, 0.9, True),
        (0, "b", 0, "5", False, 0.4, True),
        (0, "c", 0, FAILED, None, None, False),
        (1, "a", 0, "34", True, 0.8, True),
        (1, "b", 0, "It is 34.", True, 0.7, True),
        (1, "c", 0, FAILED, None, None, False),
    ]
    responses = make_responses(cells)
    result = run(tmp_path, student, responses)
    assert column(result, "teacher") == ["b", "a", "c"] * 2
    assert column(result, "quality_raw") == [0, 1, 0, 1, 1, 0]
    assert column(result, "quality_reward") == [0, 1, 0, 1, 1, 0]
    assert [value is None for value in column(result, "mean_logprob")] == [False, False, True] * 2
    learned = column(result, "learnability_reward")
    assert (min(learned[:2]), learned[2], min(learned[3:5]), learned[5]) == (0, 0, 0, 0)
    assert [column(result, "reward")[row] for row in (2, 5)] == [0, 0]
    assert column(result, "rank")[5] == 3
    assert result.counts == {"cells": 6, "missing": 0, "unjudged": 0, "truncated": 0, "unrewarded": 0, "failed": 2}
    assert result.metrics["teachers"]["c"]["quality"] == 0
    # A quality without a natural zero: the least that was measured.
    imported = run(tmp_path, None, responses, quality="column", learnability="none", alpha=0.0)
    assert column(imported, "quality_raw") == [0.4, 0.9, 0.4, 0.7, 0.8, 0.4]
    left_out = run(tmp_path, student, responses, failed="missing")
    assert column(left_out, "teacher") == ["b", "a"] * 2 and left_out.counts["missing"] == 2


def test_of_several_samples_those_that_did_not_come_count_as_wrong(tmp_path: Path) -> None:
    cells = [
        (0, "a", 0, "3", True, None, True),
        (0, "a", 1, FAILED, None, None, False),
        (0, "b", 0, "3", True, None, True),
        (0, "b", 1, "3", True, None, False),
    ]
    settings = {"quality": "pass_rate", "learnability": "none", "alpha": 0.0}
    assert column(run(tmp_path, None, make_responses(cells), **settings), "quality_raw") == [1, 0.5]
    missing = run(tmp_path, None, make_responses(cells), **settings, failed="missing")
    assert column(missing, "quality_raw") == [1, 1]


def test_another_alpha_costs_no_forward_pass(
    tmp_path: Path, student: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(tmp_path, student)
    monkeypatch.setattr(LikelihoodScorer, "__init__", lambda *_, **__: pytest.fail("the student was loaded again"))
    second = run(tmp_path, student, alpha=1.0, normalisation="none")
    assert column(second, "mean_logprob") == column(first, "mean_logprob")
    assert column(second, "reward") == column(second, "mean_logprob")
    assert column(second, "reward")[4] is not None  # with alpha 1 quality need not be judged


def test_a_run_that_was_cut_gives_the_same_numbers(
    tmp_path: Path, student: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path / "whole", student, batch_tokens=60)
    plain, calls = LikelihoodScorer.measure, []

    def cut(*arguments: Any) -> list[Any]:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return plain(*arguments)

    monkeypatch.setattr(LikelihoodScorer, "measure", cut)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", student, batch_tokens=60)
    again = run(tmp_path / "cut", student, batch_tokens=60)
    assert isinstance(again.data, Dataset) and isinstance(whole.data, Dataset)
    assert again.data.to_dict() == whole.data.to_dict()
    assert len(calls) > 3


def test_copies_of_a_row_are_measured_once_and_what_was_left_first(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "x"}]
    rows = [(turns, text) for text in "abacb"]
    asked = []

    def score(todo: Sequence[Row], skip: frozenset[int]) -> Measured:
        asked.append([text for number, (_, text) in enumerate(todo) if number not in skip])
        for number in sorted(set(range(len(todo))) - skip, reverse=True):
            yield [number], [[f"{todo[number][1]} at {number}"]]

    def values(**left: Any) -> list[Any]:
        options = {"planned": tmp_path / "planned", **left}
        return [value for (value,) in measure(rows, ["v", 1], tmp_path / "journal", Silent(), "x", score, **options)]

    left = [(["v", 1], (turns, "c"), ["c from before"]), (["v", 2], (turns, "a"), ["of another model"])]
    expected = ["a at 0", "b at 1", "a at 0", "c from before", "b at 1"]
    assert values(left=left) == expected
    assert asked == [["a", "b"]]
    assert values() == expected
    assert len(asked) == 1  # nobody is asked where all is known


def test_whoever_measures_is_stopped_before_the_error_goes_on(tmp_path: Path) -> None:
    asked, stopped = [], []

    def score(todo: Sequence[Row], skip: frozenset[int]) -> Measured:
        asked.append(([text for _, text in todo], skip))
        try:
            for number in sorted(set(range(len(todo))) - skip):
                yield [number], [[0.5]]
        finally:
            stopped.append(skip)

    class Interrupted(Silent):
        def advance(self, count: int = 1, work: float | None = None) -> None:
            raise KeyboardInterrupt

    def values(rows: list[Row], progress: Silent) -> list[Any]:
        return measure(rows, [], tmp_path / "journal", progress, "x", score, planned=tmp_path / "planned")

    rows: list[Row] = [([], "a"), ([], "b")]
    with pytest.raises(KeyboardInterrupt) as interrupt:  # its traceback holds the iterator
        values(rows, Interrupted())
    assert stopped == [frozenset()]
    assert interrupt.type is KeyboardInterrupt
    assert values(rows, Silent()) == [[0.5], [0.5]]
    # What was yielded is kept, and keeps its place; what the step did not begin with has none.
    assert asked == [(["a", "b"], frozenset()), (["a", "b"], frozenset({0}))]
    assert values([*rows, ([], "c")], Silent()) == [[0.5]] * 3
    assert asked[2:] == [(["c"], frozenset())]


def test_other_qualities_and_learnabilities(tmp_path: Path, student: Student) -> None:
    rates = run(tmp_path, student, quality="pass_rate")
    assert column(rates, "quality_raw") == [0.0, 0.5, 1.0, 1.0, None]
    given = run(tmp_path, student, quality="column", normalisation="none")
    assert column(given, "quality_raw") == [-1.0, 2.0, 0.5, 1.0, None]
    ratio = run(tmp_path, student, learnability="rank_surprisal", normalisation="none", alpha=1.0)
    expected = [r / s for r, s in zip(column(ratio, "sum_min_rank"), column(ratio, "sum_logprob"), strict=True)]
    assert all(value < 0 for value in expected)
    assert column(ratio, "reward") == pytest.approx(expected)


def test_without_learnability_no_student_is_needed(tmp_path: Path) -> None:
    result = run(tmp_path, None, learnability="none", alpha=0.0)
    assert column(result, "reward") == [0.0, 1.0, 1.0, 0.0, None]
    assert column(result, "mean_logprob") == [None] * 5
    assert not list(tmp_path.iterdir())


def test_a_cut_response_is_counted_and_one_with_nothing_left_has_no_reward(tmp_path: Path, student: Student) -> None:
    result = run(tmp_path, student, max_length=20)
    assert result.counts["truncated"] > 0
    gone = run(tmp_path, student, max_length=3)
    assert column(gone, "num_tokens") == [0] * 5
    assert column(gone, "mean_logprob") == column(gone, "reward") == [None] * 5


def test_a_student_without_template_is_given_one(tmp_path: Path, student: Student) -> None:
    bare = save_model(tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    named = Student(name="bare", model=str(bare))
    with pytest.raises(InputError, match="has no chat template"):
        run(tmp_path, named)
    (tmp_path / "own.jinja").write_text(TEMPLATE)
    given = run(tmp_path, named.model_copy(update={"chat_template": str(tmp_path / "own.jinja")}))
    assert column(given, "mean_logprob") == column(run(tmp_path, student), "mean_logprob")


def test_nothing_to_score(tmp_path: Path, student: Student) -> None:
    result = run(tmp_path, student, make_responses().select([]))
    assert result.counts == {"cells": 0, "missing": 0, "unjudged": 0, "truncated": 0, "unrewarded": 0}
    REWARDS.check(result.data, "rewards")  # type: ignore[arg-type]


def test_bad_input_is_a_sentence(tmp_path: Path, student: Student) -> None:
    with pytest.raises(
        RecipeError, match="score: `learnability: none` leaves nothing for alpha 0.4 to weigh; set `alpha: 0`"
    ):
        read_section(score.Settings, {"learnability": "none"}, "score")
    with pytest.raises(RecipeError, match="score.alpha: must be at least 0 and at most 1, got 3"):
        read_section(score.Settings, {"alpha": 3}, "score")
    with pytest.raises(RecipeError, match="`score` needs a student with a `model`"):
        run(tmp_path, Student(name="x"))
    with pytest.raises(InputError, match="the responses name the teacher `z`, the pool holds b, a, c; add it"):
        run(tmp_path, student, make_responses([(0, "z", 0, "3", True, None, True)]))
    with pytest.raises(InputError, match="has two selected responses of `a`; generate anew"):
        run(tmp_path, student, make_responses([CELLS[0], (0, "a", 1, "3", True, None, True)]))
    with pytest.raises(InputError, match="the chat template /no/such.jinja cannot be read"):
        run(tmp_path, student.model_copy(update={"chat_template": "/no/such.jinja"}))
    stranger = make_responses().map(lambda row: row | {"prompt_id": "unknown"})
    with pytest.raises(InputError, match="the prompt unknown, which is not among the prompts; give their prompts"):
        run(tmp_path, student, stranger)
