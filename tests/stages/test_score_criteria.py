"""Stage `score` with several criteria: what is stored, what null does, and what other weights make of it."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from openai_server import OpenAIServer, Response, completion
from rows import prompt, response

import persyn_hf
from persyn_hf.errors import InputError, RecipeError
from persyn_hf.recipe.roles import Teacher
from persyn_hf.recipe.strict import read_section
from persyn_hf.schemas import CRITERIA, PROMPTS, RESPONSES, REWARDS
from persyn_hf.stage import Context, Result
from persyn_hf.stages import score
from persyn_hf.stages.score import quality
from persyn_hf.stages.score.settings import Criterion


TEACHERS = ("terse", "wordy", "late")
# (reference, {teacher: (text, is_correct)}); a teacher that is not named has failed
ASKED: list[tuple[str | None, dict[str, tuple[str, bool | None]]]] = [
    ("2", {"terse": ("2", True), "wordy": ("It is 22222", False), "late": ("It is 3", False)}),
    (None, {"terse": ("red", None), "wordy": ("a deep red", None), "late": ("blue it is", None)}),
    ("5", {"terse": ("5", True), "wordy": ("mute", True)}),
    (None, {"terse": ("Rhine", None), "wordy": ("the Rhine", None)}),
]
MIXED = [{"correct": 7}, {"judge": 3}]


def by_length(text: str, times: int) -> Response:
    """A judge that likes long answers, and says nothing of `mute`."""
    answer = text.split("<answer>\n")[1].split("\n</answer>")[0]
    said = "I cannot tell." if answer == "mute" else json.dumps({"reason": "length", "score": min(10, len(answer))})
    return Response(body=completion(said))


def run(folder: Path, server: OpenAIServer, **values: Any) -> Result:
    prompts = [prompt(f"Question {n}?", split="calibration", reference=ref) for n, (ref, _) in enumerate(ASKED)]
    failed = {"status": "error", "error": "HTTP 500", "selected": False}
    responses = [
        response(asked["prompt_id"], name, answers[name][0], is_correct=answers[name][1], split="calibration")
        if name in answers
        else response(asked["prompt_id"], name, "", split="calibration", **failed)
        for asked, (_, answers) in zip(prompts, ASKED, strict=True)
        for name in TEACHERS
    ]
    judge = {"model": "m", "server": {"urls": [server.url], "attempts": 1, "patience_s": 1}}
    values = {"quality": MIXED, "learnability": "none", "alpha": 0, "judge": judge} | values
    return score.run(
        read_section(score.Settings, values, "score"),
        Context(seed=0, work_dir=folder, teachers=tuple(Teacher(name=name) for name in TEACHERS)),
        prompts=PROMPTS.dataset(prompts),
        responses=RESPONSES.dataset(responses),
    )


def column(data: Any, name: str) -> list[Any]:
    """The column of the rows, prompt by prompt, and teacher by teacher."""
    return list(data[name])


def test_each_criterion_is_stored_raw_beside_the_quality_that_they_make(tmp_path: Path) -> None:
    with OpenAIServer(by_length) as server:
        found = run(tmp_path, server)
    data = found.data
    REWARDS.check(data, "the rewards")
    assert column(data, "quality_correct") == [1, 0, 0, None, None, None, 1, 1, 0, None, None, None]
    # the failed teacher is as bad as the worst answer that was judged, to prompts that the criterion says something of
    assert column(data, "quality_judge") == [1, 10, 7, 3, 10, 10, 1, None, 1, 5, 9, 1]
    raw = column(data, "quality_raw")
    assert raw[:3] == pytest.approx([0.7, 0.3, 0.3 * 6 / 9])
    assert raw[3:6] == pytest.approx([0, 1, 1]), "without a reference the judge alone decides"
    assert raw[6:9] == [pytest.approx(0.7), None, 0], "what the judge could not read is null, and never low"
    assert raw[9:] == pytest.approx([0.5, 1, 0])
    assert column(data, "quality_reward")[:3] == pytest.approx([1, 0.2, 0])
    assert found.counts["unjudged"] == 1
    assert found.counts["unread_no_verdict"] == 1
    assert found.metrics["criteria"]["correct"] == {"weight": 0.7, "mean": 0.6, "unjudged": 0.5}
    assert found.metrics["criteria"]["judge"]["unjudged"] == pytest.approx(0.1)
    assert found.cost["total"]["requests"] == 10


def test_other_weights_ask_nobody(tmp_path: Path) -> None:
    with OpenAIServer(by_length) as server:
        stored = run(tmp_path, server)
        asked = len(server.bodies)
        again = run(tmp_path, server, quality=[{"judge": 9}, {"correct": 1}])
        assert len(server.bodies) == asked
        judge = run(tmp_path, server, quality="judge")
        assert len(server.bodies) == asked
    made = persyn_hf.recombine(stored.data, 0, measure="none", weights={"correct": 0.1, "judge": 0.9})
    for name in ("quality_raw", "quality_reward", "reward", "rank", "quality_judge", "quality_correct"):
        assert column(made, name) == column(again.data, name), name
    alone = persyn_hf.recombine(stored.data, 0, measure="none", weights={"judge": 1})
    assert column(alone, "reward") == column(judge.data, "reward")
    assert "quality_judge" not in judge.data.column_names, "one criterion is stored as it always was"


def test_weights_that_cannot_be_taken(tmp_path: Path) -> None:
    with OpenAIServer(by_length) as server:
        stored = run(tmp_path, server).data
    for weights, said in (
        ({"column": 1}, "the rewards have no column `quality_column` to weigh `column` by"),
        (
            {"judge": 0},
            "`weights`: the weight of `judge` must be a number above 0 and at most 1,000,000, got 0; leave",
        ),
        ({"jugde": 1}, "`weights`: must be a criterion, or .*, got 'jugde', did you mean `judge`"),
        ({}, "`weights` must map criteria to numbers"),
        ([{"judge": 1}], "`weights` must map criteria to numbers"),
    ):
        with pytest.raises(InputError, match=said):
            persyn_hf.recombine(stored, 0, measure="none", weights=weights)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("quality", "said"),
    [
        (
            "corect",
            "score.quality: must be a criterion, or a list that weighs several: .*, got 'corect', did you mean `c",
        ),
        ([{"correct": 1}], "score.quality: a list weighs two criteria or more, found 1; write `quality: correct`"),
        ([], "score.quality: a list weighs two criteria or more, found 0; name them"),
        (
            [{"correct": 1, "column": 2}],
            "score.quality: an entry must be one criterion with its weight, as in `judge: 0",
        ),
        (["correct", "column"], "score.quality: an entry must be one criterion with its weight"),
        ([{"correct": 1}, {"correct": 2}], "score.quality: `correct` is weighed twice; give it one weight"),
        (
            [{"correct": -1}, {"column": 2}],
            "the weight of `correct` must be a number above 0 and at most 1,000,000, got -1",
        ),
        ([{"correct": float("nan")}, {"column": 2}], "the weight of `correct` must be a number .* got nan"),
        ([{"correct": True}, {"column": 2}], "the weight of `correct` must be a number .* got True"),
        (
            [{"correct": 1}, {"judge": 2}],
            "score: `quality: judge` and `judge: {model: ...}` belong together, found only",
        ),
        ({"correct": 1}, "score.quality: must be a criterion, or a list that weighs several"),
    ],
)
def test_a_list_that_weighs_nothing_is_refused(quality: Any, said: str) -> None:
    with pytest.raises(RecipeError, match=said.replace("{", r"\{").replace("(", r"\(")):
        read_section(score.Settings, {"quality": quality}, "score")


def test_the_settings_of_one_criterion_are_written_as_before() -> None:
    assert score.Settings().model_dump(mode="json")["quality"] == "correct"
    mixed = read_section(score.Settings, {"quality": [{"correct": 2}, {"column": 1}]}, "score")
    assert mixed.model_dump(mode="json")["quality"] == [{"correct": 2.0}, {"column": 1.0}]
    assert mixed.weights == {"correct": 2, "column": 1}


def test_every_criterion_has_a_function_a_word_and_a_column() -> None:
    assert get_args(Criterion) == CRITERIA
    assert {*CRITERIA} == {*quality.CRITERIA}
    assert [column.name for column in REWARDS.optional[: len(CRITERIA)]] == [f"quality_{name}" for name in CRITERIA]
