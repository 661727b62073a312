"""Every kind of prompt of every kind of artifact opens, and what is said of its choice is true."""

import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rows import assignment, prompt, response, reward, user
from space_samples import SETTINGS, STUDENT, TEACHERS

from persyn_hf.schemas import ASSIGNMENTS, PROMPTS, RESPONSES, REWARDS
from persyn_hf.space.collection import open_shelf
from persyn_hf.space.events import Desk
from persyn_hf.store.local import Store


pytestmark = pytest.mark.heavy  # seconds in all; `make test-fast` has two minutes


Rows = dict[str, list[dict[str, Any]]]  # kind of artifact -> its rows
SCHEMAS = {schema.kind: schema for schema in (PROMPTS, REWARDS, ASSIGNMENTS, RESPONSES)}
TURNS = {
    "plain": user("What is **2 + 2**?"),
    "empty": [],
    "system": [{"role": "system", "content": "Be brief."}, *user("Why?")],
    "long": [*user("One?"), {"role": "assistant", "content": "1"}, *user("Two?")],
    "blank": user(""),
}
# Of teachers small, large and thinker on each prompt: reward, rank. `empty` was not measured.
REWARD = {
    "plain": [(1.0, 1), (1.0, 1), (0.4, 3)],
    "system": [(0.0, 3), (0.6, 2), (1.0, 1)],
    "long": [(0.3, 1), (0.3, 1), (0.3, 1)],
    "blank": [(None, None), (0.5, 1), (0.5, 1)],
}
POOL = [str(teacher["name"]) for teacher in TEACHERS]


def rows_of_all() -> Rows:
    """A store in which `small` is the router's choice for each prompt."""
    measured = [
        reward(name, teacher, value, rank=rank, quality_raw=value, quality_reward=value, learnability_reward=value)
        for name, cells in REWARD.items()
        for teacher, (value, rank) in zip(POOL, cells, strict=True)
    ]
    routed = {"scores": [2.0, 1.5, -1.0], "margin": 0.5, "confidence": 0.75, "source": "router"}
    answers = [
        response(name, teacher, f"It is *{teacher}*.", is_correct=teacher != "small", num_tokens=4)
        for name in TURNS
        for teacher in POOL
        if name != "blank"
    ]
    return {
        "prompts": [prompt("", name, messages=turns, reference="4", topic="sums") for name, turns in TURNS.items()],
        "rewards": measured,
        "assignments": [assignment(name, "small", **routed) for name in TURNS],
        "responses": answers,
    }


def desk_of(folder: Path, rows: Rows, pool: list[dict[str, Any]] = TEACHERS, **settings: Any) -> Desk:
    """The pages of artifacts with these rows; kinds without rows are not there."""
    store, inputs = Store(folder / "store"), {}
    for kind, schema in SCHEMAS.items():
        if rows[kind]:
            own = {"rewards": SETTINGS, "assignments": {"kind": "persyn"} | settings}.get(kind, {})
            fields = {"stage": kind, "teachers": pool, "student": STUDENT, "settings": own, "inputs": dict(inputs)}
            own_schema = schema.having(rows[kind][0])
            put = store.put(repo=f"org/{kind}", schema=schema, data=own_schema.dataset(rows[kind]), fields=fields)
            inputs[kind] = {"ref": put.ref, "digest": put.digest}
    return Desk(open_shelf([], store))


def opened(desk: Desk, name: str) -> str:
    """The pane of an opened prompt."""
    shown = desk.show(desk.defaults | {"view": "prompts", "prompt": name})
    assert not any(words in part for words in ("fault of ours", "cannot be shown") for part in shown.values())
    return html.unescape(shown["opened"])


def opens(desk: Desk, *names: str) -> None:
    """All prompts open, the last one as a page of its own, and they are listed in every order."""
    for name in names:
        shown = opened(desk, name)
        assert f"<code>{name}</code>" in shown and "chosen</span>" in shown and "Why</h3>" in shown
    page = html.unescape(desk.page({"view": ["prompts"], "prompt": [names[-1]]}))
    assert opened(desk, names[-1]) in page and "fault of ours" not in page
    for sort in ("place", "-regret"):
        listed = desk.show(desk.defaults | {"view": "prompts", "sort": sort})["prompts"]
        assert [name for name in names if f"prompt={name}" not in listed] == []


def without(kind: str) -> Callable[[Rows], Rows]:
    return lambda rows: rows | {kind: []}


def routed_to_two(rows: Rows) -> Rows:
    both = [row | {"teacher": teacher} for row in rows["assignments"] for teacher in ("small", "large")]
    return rows | {"assignments": both}


def ruled(rows: Rows) -> Rows:
    return rows | {"assignments": [assignment(name, "large") for name in TURNS]}


def changed(kind: str, **values: Any) -> Callable[[Rows], Rows]:
    return lambda rows: rows | {kind: [row | values for row in rows[kind]]}


def said(judge: str, reason: str, verdict: float | None = 8.0, shown: str = "", fault: str | None = None) -> Rows:
    reply = {"judge": judge, "shown": shown, "reason": reason, "verdict": verdict, "fault": fault}
    return {"verdicts": [reply]}  # type: ignore[dict-item]


def judged(rows: Rows) -> Rows:
    """Two criteria; judges were asked about `small` twice, about `large` in a pair, and not about the last."""
    replies = {
        "small": said("gpt", "It says **four**, <b>briefly</b>.")["verdicts"]
        + said("claude", "I cannot tell.", None, fault="no_verdict")["verdicts"],
        "large": said("gpt", "", 0.0, "as A, against small")["verdicts"],
    }
    measured = [
        row | {"quality_correct": 1.0, "quality_judge": None, "verdicts": replies.get(row["teacher"])}
        for row in rows["rewards"]
    ]
    return rows | {"rewards": measured}


KINDS: dict[str, Callable[[Rows], Rows]] = {
    "everything": lambda rows: rows,
    "nothing measured": without("rewards"),
    "nothing answered": without("responses"),
    "no router": ruled,
    "several teachers for a prompt": routed_to_two,
    "reasoning alone": changed("responses", response="", reasoning="I think **hard**."),
    "errors": changed("responses", response="", status="error", error="timeout", selected=False),
    "asked in a second round": changed("responses", round=1),
    "a number that is none": changed("assignments", margin=float("nan"), scores=[float("nan")] * 3),
    "fewer scores than teachers": changed("assignments", scores=[1.0]),
    "judged by two criteria": judged,
    "nothing but the choice": lambda rows: rows | {"rewards": [], "responses": []},
}


def test_what_criteria_and_judges_say_stands_with_the_answer(tmp_path: Path) -> None:
    desk = desk_of(tmp_path, judged(rows_of_all()))
    written = desk.show(desk.defaults | {"view": "prompts", "prompt": "plain"})["opened"]
    assert "correct,<br>raw</th>" in written and "judge,<br>raw</th>" in written
    assert written.count('class="said"') == 2, "nobody judged the last one"
    assert "It says **four**, &lt;b&gt;briefly&lt;/b&gt;." in written, "text of a judge is text"
    shown = " ".join(re.sub(r"<[^>]+>", "", written).split())
    assert "gpt: 8" in shown and "claude: no verdict that could be read I cannot tell." in html.unescape(shown)
    assert "gpt shown as A, against small: the other is better It gave no reason." in " ".join(shown.split())
    plain = desk_of(tmp_path / "plain", rows_of_all())
    assert 'class="said"' not in opened(plain, "plain") and opened(plain, "plain").count("raw</th>") == 1


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_prompt_opens(tmp_path: Path, kind: str) -> None:
    opens(desk_of(tmp_path, KINDS[kind](rows_of_all())), *TURNS)


NULLABLE = [(kind, column.name) for kind, schema in SCHEMAS.items() for column in schema.columns if column.nullable]


def test_a_null_in_any_nullable_column_opens(tmp_path: Path) -> None:
    """For each of these columns there is a prompt that has everything but it."""
    whole = rows_of_all()
    rows: Rows = {kind: [] for kind in SCHEMAS}
    names = [f"{kind}-{column}" for kind, column in NULLABLE]
    for name, (lacking, column) in zip(names, NULLABLE, strict=True):
        for kind, of in whole.items():
            left_out = {column: None} if kind == lacking else {}
            rows[kind] += [row | {"prompt_id": name} | left_out for row in of if row["prompt_id"] == "plain"]
    assert len(names) > 15
    opens(desk_of(tmp_path, rows), *names)


def test_nulls_in_all_nullable_columns_open(tmp_path: Path) -> None:
    rows = rows_of_all()
    for kind, column in NULLABLE:
        rows = changed(kind, **{column: None})(rows)
    opens(desk_of(tmp_path, rows), *TURNS)


def test_a_pool_of_one_teacher_opens(tmp_path: Path) -> None:
    rows = {kind: [row for row in of if row.get("teacher", "small") == "small"] for kind, of in rows_of_all().items()}
    rows["assignments"] = [row | {"scores": [2.0], "margin": None} for row in rows["assignments"]]
    desk = desk_of(tmp_path, rows, TEACHERS[:1])
    opens(desk, *TURNS)
    assert "small was chosen by the router's score, 2 (units of the router's score)." in opened(desk, "plain")


def test_an_assignment_without_its_prompts_opens(tmp_path: Path) -> None:
    desk = desk_of(tmp_path, rows_of_all())
    alone = {ref: item for ref, item in desk.shelf.items.items() if item.kind == "assignments"}
    desk = Desk(type(desk.shelf)(items=alone))
    opens(desk, *TURNS)
    assert "The text of this prompt is not here." in opened(desk, "plain")


def reasons(desk: Desk, name: str) -> list[str]:
    found = re.search('<ul class="why">(.*?)</ul>', opened(desk, name), re.DOTALL)
    assert found is not None
    return re.findall("<li>(.*?)</li>", found[1])


def test_ties_are_said_in_words(tmp_path: Path) -> None:
    desk = desk_of(tmp_path, rows_of_all())
    assert reasons(desk, "plain") == [
        "small was chosen by the router's score, 2 (units of the router's score), with a lead of 0.5.",
        "By what dev showed, with such a lead it is as good as the best, 75% of the time.",
        "Measured of small: reward 1 = 0.6 × quality 1 + 0.4 × learnability 1, rank 1 of 3, tied with large.",
    ]
    assert "rank 1 of 3, tied with large and thinker." in reasons(desk, "long")[-1]
    assert reasons(desk, "system")[-1] == "The best measured: thinker, reward 1."
    assert reasons(desk, "blank")[-1] == "The best measured: large and thinker, which are tied, reward 0.5."
    assert reasons(desk, "empty")[-1] == "No answer to this prompt was scored, so only the scores are known."
    assert opened(desk, "plain").count(">tied</span>") == 2 and 'title="Tied with large"' in opened(desk, "plain")


@pytest.mark.parametrize(
    ("rows", "settings", "said"),
    [
        (ruled, {"kind": "strong"}, "large was given by rule: the strategy looks at no score of this prompt."),
        (ruled, {"kind": "oracle"}, "large was given by rule: nothing of this prompt was measured, and its mean"),
        (
            changed("assignments", teacher="large", source="rule", margin=None, confidence=None),
            {"kind": "reassign", "to_teacher": "large", "from_teachers": ["small"]},
            "large was given by rule: it takes over the prompts of small.",
        ),
        (
            ruled,
            {"kind": "reassign", "to_teacher": "large", "from_teachers": None},
            "large was given by rule: it takes over the prompts of the Long-CoT teachers, or had the prompt before.",
        ),
        (
            changed("assignments", source="oracle", confidence=None),
            {"kind": "no_learnability"},
            "small was chosen by the measured reward at alpha 0, 2, with a lead of 0.5.",
        ),
        (
            changed("assignments", source="oracle", scores=[1.0, 1.0, 0.0], margin=0.0),
            {"kind": "oracle"},
            "small was chosen by the measured reward, 1, the same as of large.",
        ),
        (
            changed("assignments", teacher="large"),
            {"budget": {"flops": 1}},
            "large was chosen although 1 of 3 score higher than its 1.5 (units of the router's score): a",
        ),
        (routed_to_two, {"per_prompt": 2}, "large was chosen as well: 1.5 (units of the router's score) is number 2"),
    ],
)
def test_why_is_true_of_every_kind(tmp_path: Path, rows: Any, settings: dict[str, Any], said: str) -> None:
    desk = desk_of(tmp_path, rows(rows_of_all()), **settings)
    assert any(line.startswith(said) for line in reasons(desk, "plain")), reasons(desk, "plain")


def test_a_teacher_that_was_asked_afterwards_is_named(tmp_path: Path) -> None:
    rows = rows_of_all()
    rows["responses"] = [
        row | {"round": POOL.index(row["teacher"]), "is_correct": row["teacher"] == "thinker"}
        for row in rows["responses"]
    ]
    lines = reasons(desk_of(tmp_path, rows), "system")
    assert [line for line in lines if "afterwards" in line] == [
        "large was asked afterwards, in round 1, because no answer before it was right; its own is wrong.",
        "thinker was asked afterwards, in round 2, because no answer before it was right; its own is right.",
    ]


def test_neighbours_of_prompts_with_several_teachers_are_in_no_circle(tmp_path: Path) -> None:
    rows = routed_to_two(rows_of_all())
    rows["responses"] = [
        row | {"num_tokens": 10 * place + (5 if row["teacher"] == "large" else 200 - 30 * place)}
        for place, row in enumerate(rows["responses"])
    ]
    desk = desk_of(tmp_path, rows, per_prompt=2)
    for sort in ("place", "regret", "tokens", "-tokens"):
        asked = desk.defaults | {"view": "prompts", "sort": sort}
        first = re.search(r"prompt=(\w+)", desk.show(asked)["prompts"])
        assert first is not None
        seen = [first[1]]
        while found := re.search(
            r'id="next-prompt" href="[^"]*?prompt=(\w+)', desk.show(asked | {"prompt": seen[-1]})["opened"]
        ):
            seen.append(found[1])
            assert len(seen) <= len(TURNS)
        assert sorted(seen) == sorted(TURNS)
        back = re.search(
            r'id="previous-prompt" href="[^"]*?prompt=(\w+)', desk.show(asked | {"prompt": seen[-1]})["opened"]
        )
        assert back is not None and back[1] == seen[-2]
