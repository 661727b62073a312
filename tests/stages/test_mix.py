"""Stage `mix`: one training row per assigned prompt, and a count for each that falls out."""

import pytest
from datasets import Dataset
from rows import assignment, prompt, reward, row

from persyn_hf.errors import InputError
from persyn_hf.recipe.roles import Teacher
from persyn_hf.schemas import ASSIGNMENTS, PROMPTS, RESPONSES, REWARDS, SFT
from persyn_hf.stage import Context
from persyn_hf.stages import mix


def prompts(ids="pqrstu") -> Dataset:
    return PROMPTS.dataset([prompt(f"ask {name}", name, reference="4") for name in ids])


def assignments(cells: dict[str, str], extra=()) -> Dataset:
    return ASSIGNMENTS.dataset([assignment(p, t) for p, t in [*cells.items(), *extra]])


def responses(*cells: dict) -> Dataset:
    usual = {"response": "4", "num_tokens": 10, "is_correct": True}
    return RESPONSES.dataset([row(RESPONSES, **{**usual, **cell}) for cell in cells])


ASSIGNED = {"u": "a", "q": "b", "p": "a", "r": "a", "s": "b"}
RESPONSES_ = (
    {"prompt_id": "s", "teacher": "b", "status": "error", "finish_reason": "error", "selected": False, "error": "x"},
    {"prompt_id": "r", "teacher": "a", "finish_reason": "length"},
    {"prompt_id": "q", "teacher": "b", "is_correct": False, "num_tokens": 30, "response": "5"},
    {"prompt_id": "p", "teacher": "b", "response": "of another"},
    {"prompt_id": "p", "teacher": "a", "selected": False, "response": "unselected"},
    {"prompt_id": "p", "teacher": "a", "sample_index": 1},
)


def run(tmp_path, rewards=None, **settings):
    context = Context(seed=0, work_dir=tmp_path, teachers=(Teacher(name="b"), Teacher(name="a"), Teacher(name="c")))
    inputs = {"assignments": assignments(ASSIGNED), "responses": responses(*RESPONSES_), "rewards": rewards}
    found = mix.run(mix.Settings(**settings), context, prompts=prompts(), **inputs)
    SFT.check(found.data, "sft")
    return found


def test_rows_stand_in_prompt_order_and_drops_are_counted(tmp_path):
    found = run(tmp_path)
    assert found.data["prompt_id"][:] == ["p", "q"], "t was assigned to nobody"
    assert found.data[0] == {
        "prompt": [{"role": "user", "content": "ask p"}],
        "completion": [{"role": "assistant", "content": "4"}],
        "prompt_id": "p",
        "teacher": "a",
        "reward": None,
    }
    assert found.counts == {
        "assigned": 5,
        "dropped_missing": 1,
        "dropped_error": 1,
        "dropped_truncated": 1,
        "dropped_empty": 0,
        "dropped_incorrect": 0,
        "incorrect": 1,
        "unjudged": 0,
        "escalated": 0,
    }
    assert found.metrics == {
        "correct_share": 0.5,
        "allocation": {"b": 0.5, "a": 0.5, "c": 0.0},
        "mean_tokens": {"b": 30.0, "a": 10.0},
    }


def test_wrong_answers_can_be_left_out(tmp_path):
    found = run(tmp_path, keep_incorrect=False)
    assert found.data["prompt_id"][:] == ["p"] and found.counts["dropped_incorrect"] == 1


def test_measured_rewards_travel_along(tmp_path):
    rewards = REWARDS.dataset([reward("p", "a", 0.7)])
    assert run(tmp_path, rewards).data["reward"][:] == [0.7, None]


def test_an_oracles_rows_carry_the_reward_that_they_were_assigned_by(tmp_path):
    """The pool is b, a, c. A measured reward goes first; a router's score is no reward."""
    scored = [
        assignment("p", "a", source="oracle", scores=[0.1, 0.9, 0.5]),
        assignment("q", "b", source="oracle", scores=[0.8, 0.2, None]),
        assignment("r", "b", source="router", scores=[0.7, 0.2, 0.1]),
        assignment("s", "b", source="oracle", scores=[]),
    ]
    cells = zip("pqrs", "abbb", strict=True)
    found = mix.run(
        mix.Settings(),
        Context(seed=0, work_dir=tmp_path, teachers=(Teacher(name="b"), Teacher(name="a"), Teacher(name="c"))),
        prompts=prompts(),
        assignments=ASSIGNMENTS.dataset(scored),
        responses=responses(*({"prompt_id": name, "teacher": teacher} for name, teacher in cells)),
        rewards=REWARDS.dataset([reward("q", "b", 0.3)]),
    )
    assert dict(zip(found.data["prompt_id"][:], found.data["reward"][:], strict=True)) == {
        "p": 0.9,
        "q": 0.3,
        "r": None,
        "s": None,
    }


def test_of_several_teachers_the_best_rewarded_answer_is_kept(tmp_path):
    """p: b has the higher reward; q: that of a is cut off and cannot be trained on; r: no reward, order decides."""
    assigned = assignments({}, extra=[(p, t) for p in "pqr" for t in ("a", "b")])
    answers = [{"prompt_id": p, "teacher": t, "response": f"{t}{p}"} for p in "pqr" for t in ("b", "a")]
    answers[3]["finish_reason"] = "length"
    values = {("p", "a"): 0.2, ("p", "b"): 0.8, ("q", "a"): 0.9, ("q", "b"): 0.1, ("r", "a"): None, ("r", "b"): None}
    measured = REWARDS.dataset([reward(p, t, v) for (p, t), v in values.items()])
    found = mix.run(
        mix.Settings(),
        Context(seed=0, work_dir=tmp_path, teachers=(Teacher(name="a"), Teacher(name="b"))),
        prompts=prompts(),
        assignments=assigned,
        responses=responses(*answers),
        pool_rewards=measured,
    )
    assert [(row["prompt_id"], row["teacher"], row["reward"]) for row in found.data] == [
        ("p", "b", 0.8),
        ("q", "b", 0.1),
        ("r", "a", None),
    ]
    assert found.data["completion"][0][0]["content"] == "bp"


def test_an_escalated_answer_is_taken_where_the_assigned_one_is_wrong(tmp_path):
    """p: b was right in round 2 after c failed in round 1; q: nobody was, so a's wrong answer stays."""
    answers = [
        {"prompt_id": "p", "teacher": "a", "is_correct": False},
        {"prompt_id": "p", "teacher": "c", "is_correct": False, "round": 1},
        {"prompt_id": "p", "teacher": "b", "response": "right", "round": 2},
        {"prompt_id": "q", "teacher": "a", "is_correct": False, "response": "wrong"},
        {"prompt_id": "q", "teacher": "b", "is_correct": False, "round": 1},
    ]
    context = Context(seed=0, work_dir=tmp_path, teachers=tuple(Teacher(name=name) for name in "abc"))
    inputs = {"assignments": assignments({"p": "a", "q": "a"}), "responses": responses(*answers)}
    found = mix.run(mix.Settings(), context, prompts=prompts(), **inputs)
    assert [(row["teacher"], row["completion"][0]["content"]) for row in found.data] == [
        ("b", "right"),
        ("a", "wrong"),
    ]
    assert found.counts["escalated"] == 1


def refusal(tmp_path, **inputs) -> str:
    given = {"prompts": prompts(), "assignments": assignments(ASSIGNED), "responses": responses(*RESPONSES_)}
    with pytest.raises(InputError) as caught:
        mix.run(mix.Settings(), Context(seed=0, work_dir=tmp_path), **{**given, **inputs})
    return str(caught.value)


def test_bad_input(tmp_path):
    twice = assignments({"p": "a"}, extra=[("p", "b")])
    assert refusal(tmp_path, assignments=twice) == (
        "1 prompts (first p) are assigned to several teachers, and no reward says whose answer to keep; give "
        "`pool_rewards`, the rewards of their responses, or assignments of one teacher each"
    )
    assert refusal(tmp_path, prompts=prompts("pq")) == (
        "3 assigned prompts (first r) are not in `prompts`; give the prompts that the assignments were made from"
    )
    assert refusal(tmp_path, responses=responses(RESPONSES_[0], RESPONSES_[1])) == (
        "none of 5 assigned prompts has a response to train on (3 missing, 1 error, 1 truncated); see `generate`"
    )


def further(tmp_path, each, *own, calibration=(), rewards=()):
    """Rows (prompt, teacher, answer) and counts of p (calibration) and q (pool), both assigned to the teacher a."""
    asked = [
        prompt(f"ask {name}", name, reference="4", split=split)
        for name, split in (("p", "calibration"), ("q", "pool"))
    ]
    found = mix.run(
        mix.Settings.model_validate({"answers_per_prompt": each}),
        Context(seed=0, work_dir=tmp_path, teachers=tuple(Teacher(name=name) for name in "abc")),
        prompts=PROMPTS.dataset(asked),
        assignments=assignments({"p": "a", "q": "a"}),
        responses=responses(*own),
        rewards=REWARDS.dataset([reward(*cell) for cell in rewards]),
        calibration=responses(*calibration),
    )
    columns = (found.data[name][:] for name in ("prompt_id", "teacher", "completion"))
    return [(name, teacher, turns[0]["content"]) for name, teacher, turns in zip(*columns, strict=True)], found.counts


def answer(prompt_id, teacher, text, sample=0, **more):
    return {"prompt_id": prompt_id, "teacher": teacher, "response": text, "sample_index": sample} | more


OWN = (
    answer("p", "a", "two and two: 4"),
    answer("q", "a", "It is 4."),
    answer("q", "a", "It is 5.", 1, selected=False, is_correct=False),
    answer("q", "a", "Four: 4", 2, selected=False),
)
PAID = (
    OWN[0],  # what is copied from calibration is in both
    answer("p", "b", "Two and  two: 4"),  # the kept one in other letters
    answer("p", "b", "2 + 2 = 4", 1, selected=False),
    answer("p", "c", "5", is_correct=False),
    answer("p", "c", "four", 1, selected=False, is_correct=None),
    answer("p", "a", "4, as 1 + 3", 1, selected=False),
    answer("p", "a", "cut off 4", 2, selected=False, finish_reason="length"),
)
REWARDED = [("p", "a", 0.5), ("p", "b", 0.9), ("p", "c", 1.0)]


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (1, []),
        (2, [("p", "b", "2 + 2 = 4")]),
        (3, [("p", "b", "2 + 2 = 4"), ("p", "a", "4, as 1 + 3")]),
        (9, [("p", "b", "2 + 2 = 4"), ("p", "a", "4, as 1 + 3"), ("p", "c", "four")]),
    ],
)
def test_further_answers_differ_in_words_and_are_right_before_unjudged(number, expected, tmp_path):
    rows, counts = further(tmp_path, {"calibration": number}, *OWN, calibration=PAID, rewards=REWARDED)
    assert rows == [("p", "a", "two and two: 4"), *expected, ("q", "a", "It is 4.")]
    assert counts.get("further", 0) == len(expected) and ("further" in counts) == (number > 1)


def test_further_answers_of_the_pool_are_its_own_samples(tmp_path):
    rows, counts = further(tmp_path, {"pool": 3}, *OWN, calibration=PAID)
    assert rows == [("p", "a", "two and two: 4"), ("q", "a", "It is 4."), ("q", "a", "Four: 4")]
    assert counts["further"] == 1 and counts["incorrect"] == 0


def test_right_answers_of_others_stand_in_where_the_assigned_one_is_left_out(tmp_path):
    own = [answer("p", "a", "cut off", finish_reason="length"), answer("q", "a", "It is 4.")]
    rows, counts = further(tmp_path, {"calibration": 2}, *own, calibration=PAID[2:4])
    assert rows == [("p", "b", "2 + 2 = 4"), ("q", "a", "It is 4.")]
    assert counts["dropped_truncated"] == 1 and counts["further"] == 1
