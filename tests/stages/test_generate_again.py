"""What is asked again and what is not: reruns, what is appended, early stop, escalation, limits. Calls are counted."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from rows import assignment, prompt

from persyn_hf.backends.answers import Request
from persyn_hf.backends.engines.transformers import TransformersEngine
from persyn_hf.backends.journal import Journal
from persyn_hf.core.mixing import chosen_responses
from persyn_hf.errors import BudgetReached, RecipeError
from persyn_hf.recipe.file import load_recipe
from persyn_hf.recipe.roles import Price, Teacher
from persyn_hf.recipe.strict import read_section
from persyn_hf.runner.plan import make_plan
from persyn_hf.schemas import ASSIGNMENTS, PROMPTS, RESPONSES
from persyn_hf.stage import NO_LIMITS, Context, Limits, Result
from persyn_hf.stages import generate, prompts


pytestmark = pytest.mark.heavy


SETTINGS: dict[str, Any] = {"samples": 2, "max_tokens": 100, "batch_tokens": 4096, "dtype": "float32"}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """Every request that a model was really asked."""
    asked: list[Request] = []
    plain = TransformersEngine.generate

    def counted(self: TransformersEngine, batches: Any) -> Any:
        for batch in batches:
            asked.extend(batch)
            yield from plain(self, [batch])

    monkeypatch.setattr(TransformersEngine, "generate", counted)
    return asked


def pool(zoo: Path, *names: str, **more: Any) -> tuple[Teacher, ...]:
    return tuple(Teacher(name=name, model=str(zoo / name), **more) for name in names)


def questions(root: Path, number: int, skill: str | None = None) -> Dataset:
    lines = (root / "recipes" / "tiny" / "prompts.jsonl").read_text().splitlines()
    found = [row for row in map(json.loads, lines) if skill in (None, row["skill"])][:number]
    rows = [prompt(row["question"], reference=row["answer"], topic=row["skill"]) for row in found]
    return PROMPTS.dataset(rows)


def assign(
    asked: Dataset, teachers: tuple[Teacher, ...], scores: list[float] | None = None, sure: tuple[float, ...] = ()
) -> Dataset:
    """All prompts to every teacher or, with scores, to the first by a router that prefers the pool's order."""
    given = teachers[:1] if scores else teachers
    rows = [
        assignment(
            row["prompt_id"],
            teacher.name,
            scores=scores or [],
            confidence=sure[number % len(sure)] if sure else None,
            source="router" if scores else "rule",
        )
        for number, row in enumerate(asked)
        for teacher in given
    ]
    return ASSIGNMENTS.dataset(rows)


def run(
    folder: Path,
    teachers: tuple[Teacher, ...],
    asked: Dataset,
    scores: list[float] | None = None,
    limits: Limits = NO_LIMITS,
    sure: tuple[float, ...] = (),
    **changes: Any,
) -> Result:
    context = Context(seed=0, work_dir=folder, teachers=teachers, limits=limits, recipe="tests/again")
    settings = read_section(generate.Settings, SETTINGS | changes, "generate")
    assignments = assign(asked, teachers, scores, sure)
    result = generate.run(settings, context, prompts=asked, assignments=assignments)
    assert isinstance(result.data, Dataset)
    RESPONSES.check(result.data, "responses")
    return result


def take(calls: list[Request]) -> list[Request]:
    taken = calls[:]
    calls.clear()
    return taken


def test_only_truncated_answers_are_asked_again_with_a_larger_limit(
    tmp_path: Path, root: Path, zoo: Path, calls: list[Request]
) -> None:
    teachers, asked = pool(zoo, "llama-verbal"), questions(root, 12)
    before = run(tmp_path, teachers, asked, max_tokens=30)
    cut = {(r["prompt_id"], r["sample_index"]) for r in before.data if r["finish_reason"] == "length"}
    assert 2 < len(cut) < len(take(calls)), "the limit must cut some answers and not all"
    after = run(tmp_path, teachers, asked, max_tokens=120, rerun=["truncated"])
    again = take(calls)
    assert {(r.prompt_id, r.sample_index) for r in again} == cut
    assert {r.sampling.max_tokens for r in again} == {120}
    whole = {(r["prompt_id"], r["sample_index"]): r["response"] for r in before.data if r["finish_reason"] == "stop"}
    kept = {(r["prompt_id"], r["sample_index"]): r["response"] for r in after.data}
    assert {cell: kept[cell] for cell in whole} == whole
    assert after.counts["truncated"] < before.counts["truncated"]
    assert run(tmp_path, teachers, asked, max_tokens=30).data.to_dict() == before.data.to_dict(), "the old are kept"
    assert run(tmp_path, teachers, asked, max_tokens=120, rerun=["truncated"]).data.to_dict() == after.data.to_dict()
    assert take(calls) == []
    run(tmp_path, teachers, asked, max_tokens=120)  # without the word, another limit is another question
    assert len(take(calls)) == 24 - len(cut)


def test_a_teacher_is_appended_and_one_is_dropped(tmp_path: Path, root: Path, zoo: Path, calls: list[Request]) -> None:
    asked, two = questions(root, 8), pool(zoo, "gemma-terse", "qwen-gen")
    before = run(tmp_path, two, asked)
    assert len(take(calls)) == 32
    after = run(tmp_path, (*two, *pool(zoo, "mistral-eq")), asked)
    assert len({r.model for r in calls}) == 1
    assert len(take(calls)) == 16
    assert after.data.select(range(32)).to_dict() == before.data.to_dict()
    dropped = run(tmp_path, two[1:], asked)
    assert take(calls) == []
    assert dropped.data.to_dict() == before.data.select(range(16, 32)).to_dict()


def test_appended_prompts_cost_only_themselves(tmp_path: Path, root: Path, zoo: Path, calls: list[Request]) -> None:
    teachers, asked = pool(zoo, "gemma-terse"), questions(root, 14)
    run(tmp_path, teachers, asked.select(range(9)))
    assert len(take(calls)) == 18
    run(tmp_path, teachers, asked)
    assert {r.prompt_id for r in calls} == set(asked["prompt_id"][9:])
    assert len(take(calls)) == 10


def test_prompts_that_are_appended_to_the_source_leave_calibration_and_dev_alone(tmp_path: Path) -> None:
    def splits(number: int, **settings: Any) -> dict[str, str]:
        path = tmp_path / "prompts.jsonl"
        path.write_text("".join(json.dumps({"prompt": f"question {i}"}) + "\n" for i in range(number)))
        values = {"path": str(path), "calibration": 20, "dev": 10, **settings}
        context = Context(seed=0, work_dir=tmp_path)
        data = prompts.run(read_section(prompts.Settings, values, "prompts"), context).data
        return dict(zip(data["prompt_id"], data["split"], strict=True))  # type: ignore[index]

    first = splits(100)
    held = {name for name, split in first.items() if split != "pool"}
    appended = splits(150, draw_from=100)
    assert {name: appended[name] for name in first} == first
    assert {appended[name] for name in appended.keys() - first.keys()} == {"pool"}
    drawn_anew = {name for name, split in splits(150).items() if split != "pool"}
    assert len(held & drawn_anew) >= 10, "without it, only the lots of the new ones come in between"


def test_further_samples_only_while_none_is_correct(
    tmp_path: Path, root: Path, zoo: Path, calls: list[Request]
) -> None:
    teachers, asked = pool(zoo, "gemma-terse"), questions(root, 24)
    result = run(tmp_path, teachers, asked, samples=3, stop_when_correct=True)
    per_prompt = Counter(r.prompt_id for r in take(calls))
    rows: dict[str, list[bool]] = {}
    for row in result.data:
        rows.setdefault(row["prompt_id"], []).append(row["is_correct"])
    for name, verdicts in rows.items():
        assert per_prompt[name] == len(verdicts)
        assert True not in verdicts[:-1], "nothing is asked after a correct answer"
        assert verdicts[-1] is True or len(verdicts) == 3
    assert {1, 3} <= set(per_prompt.values())
    everything = run(tmp_path, teachers, asked, samples=3)
    assert len(take(calls)) == 72 - per_prompt.total()
    assert everything.counts["requested"] == 72
    again = run(tmp_path, teachers, asked, samples=3, stop_when_correct=True)
    assert take(calls) == []
    assert again.data.to_dict() == result.data.to_dict(), "what others asked for does not change it"


def test_escalation_asks_the_next_teachers_where_nobody_is_right(
    tmp_path: Path, root: Path, zoo: Path, calls: list[Request]
) -> None:
    """gemma-terse is weak at multiplication, qwen-math is made for it; mistral-eq is the router's last choice."""
    teachers, asked = pool(zoo, "gemma-terse", "mistral-eq", "qwen-math"), questions(root, 16, skill="mul")
    result = run(tmp_path, teachers, asked, scores=[0.9, 0.1, 0.5], escalate=2)
    by_round: dict[int, dict[str, list[Any]]] = {0: {}, 1: {}, 2: {}}
    for row in result.data:
        by_round[row["round"]].setdefault(row["prompt_id"], []).append((row["teacher"], row["is_correct"]))
    failed = {p for p, found in by_round[0].items() if not any(right for _, right in found)}
    assert set(by_round[0]) == set(asked["prompt_id"]) and failed
    assert set(by_round[1]) == failed
    assert {teacher for found in by_round[1].values() for teacher, _ in found} == {"qwen-math"}
    failed_twice = {p for p, found in by_round[1].items() if not any(right for _, right in found)}
    assert failed_twice < failed and set(by_round[2]) == failed_twice
    assert len(take(calls)) == 2 * (16 + len(failed) + len(failed_twice))
    assert result.counts["escalated"] == len(failed) + len(failed_twice)
    assigned = {p: ["gemma-terse"] for p in asked["prompt_id"]}
    chosen = chosen_responses(assigned, result.data, {})
    assert all(chosen[p]["teacher"] == "qwen-math" and chosen[p]["is_correct"] for p in failed - failed_twice)
    assert all(chosen[p]["is_correct"] for p in set(asked["prompt_id"]) - failed)
    assert run(tmp_path, teachers, asked, scores=[0.9, 0.1, 0.5], escalate=2).data.to_dict() == result.data.to_dict()
    assert take(calls) == []


def test_escalation_stops_where_the_router_was_sure(tmp_path: Path, root: Path, zoo: Path) -> None:
    teachers, asked = pool(zoo, "gemma-terse", "mistral-eq", "qwen-math"), questions(root, 16, skill="mul")
    result = run(
        tmp_path, teachers, asked, scores=[0.9, 0.1, 0.5], sure=(0.95, 0.9, 0.2), escalate=1, escalate_below=0.9
    )
    right = {row["prompt_id"] for row in result.data if row["round"] == 0 and row["is_correct"]}
    again = {row["prompt_id"] for row in result.data if row["round"] == 1}
    unsure = set(asked["prompt_id"][2::3])
    assert again == unsure - right
    assert again and (set(asked["prompt_id"]) - unsure - right)


def test_escalation_needs_scores_and_verdicts(tmp_path: Path, root: Path, zoo: Path) -> None:
    teachers, asked = pool(zoo, "gemma-terse", "qwen-math"), questions(root, 2)
    with pytest.raises(RecipeError, match="has 1 for 2 teachers; use the assignments of a router"):
        run(tmp_path, teachers, asked, scores=[0.5], escalate=1)
    with pytest.raises(
        RecipeError, match="`escalate` needs answers that are generated and verified, found `verify: n"
    ):
        run(tmp_path, teachers, asked, scores=[0.5, 0.1], escalate=1, verify="none")
    with pytest.raises(RecipeError, match="`stop_when_correct` needs answers that are generated"):
        run(tmp_path, teachers, asked, stop_when_correct=True, verify="none")


def test_a_limit_on_generations_stops_in_time_and_a_higher_one_goes_on(
    tmp_path: Path, root: Path, zoo: Path, calls: list[Request]
) -> None:
    teachers, asked = pool(zoo, "gemma-terse", "qwen-gen"), questions(root, 6)
    with pytest.raises(BudgetReached) as stop:
        run(tmp_path, teachers, asked, limits=Limits(max_generations=15), batch_tokens=600)
    reached = len(take(calls))
    assert 10 < reached <= 15
    assert str(stop.value).startswith(f"`max_generations` 15: this recipe has asked for {reached}, the next batch of")
    assert str(stop.value).endswith(
        f" and {24 - reached} answers of it are left in this step; raise it to 24 to get these"
    )
    with pytest.raises(BudgetReached):
        run(tmp_path, teachers, asked, limits=Limits(max_generations=15), batch_tokens=600)
    assert take(calls) == [], "the limit counts all runs of the recipe"
    stopped = run(tmp_path, teachers, asked, limits=Limits(max_generations=24), batch_tokens=600)
    assert len(take(calls)) == 24 - reached
    straight = run(tmp_path / "other", teachers, asked, batch_tokens=600)
    assert stopped.data.to_dict() == straight.data.to_dict()


def test_a_limit_on_cost_is_never_passed(tmp_path: Path, root: Path, zoo: Path, calls: list[Request]) -> None:
    """100 units per million tokens either way, so a limit of 0.2 is 2,000 tokens."""
    price = Price(prompt=100, completion=100)
    teachers, asked = pool(zoo, "qwen-gen", price=price), questions(root, 30)
    with pytest.raises(BudgetReached, match="`max_cost` 0.2: this recipe has spent 0.1.*may cost up to 0.0"):
        run(tmp_path, teachers, asked, limits=Limits(max_cost=0.2), batch_tokens=500)
    with Journal(tmp_path / "journal.sqlite", recipe="tests/again") as journal:
        spent = journal.spent("tests/again")["qwen-gen"]
    assert len(take(calls)) == spent.requests
    tokens = spent.prompt_tokens + spent.completion_tokens
    assert 1000 < tokens <= 2000
    result = run(tmp_path, teachers, asked, limits=Limits(max_cost=2), batch_tokens=500)
    assert result.counts["requested"] == 60
    line = result.cost["teachers"]["qwen-gen"]
    assert line["money"] == pytest.approx(1e-4 * (line["prompt_tokens"] + line["completion_tokens"]))


RECIPE = """
name: r
teachers: [{name: a, model: x/a}, {name: b, model: x/b}]
students: [{name: s, model: x/s}]
strategies: [%s]
prompts: {path: ./p.jsonl}
until: mix
"""


def steps(tmp_path: Path, strategy: str) -> dict[str, Any]:
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE % strategy)
    return {step.key: step for step in make_plan(load_recipe(path))}


def test_several_teachers_per_prompt_are_scored_before_they_are_mixed(tmp_path: Path) -> None:
    plain, top = (steps(tmp_path, text) for text in ("persyn", "{kind: persyn, per_prompt: 2}"))
    assert "rewards-s-persyn" not in plain
    assert top["assignments-s-persyn-top2"].settings.per_prompt == 2  # type: ignore[attr-defined]
    assert top["rewards-s-persyn-top2"].inputs == {"prompts": "prompts", "responses": "responses-s-persyn-top2"}
    assert top["sft-s-persyn-top2"].inputs["pool_rewards"] == "rewards-s-persyn-top2"
    ablation = steps(tmp_path, "{kind: no_learnability, per_prompt: 2}")
    assert ablation["rewards-s-no_learnability-top2"].settings.alpha == 0  # type: ignore[attr-defined]
    escalated = steps(tmp_path, "{kind: persyn, escalate: 1}")
    assert escalated["responses-s-persyn-escalate1"].settings.escalate == 1  # type: ignore[attr-defined]
    assert escalated["responses"].settings.escalate == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("strategy", "sentence"),
    [
        (
            "{kind: strong, escalate: 1}",
            "strategy `strong-escalate1` of kind strong has no router, and `per_prompt`, `escalate`, `confidence`",
        ),
        ("{kind: persyn, per_prompt: 2, escalate: 1}", "sets `per_prompt` and `escalate`; choose one of the two"),
        ("{kind: persyn, per_prompt: 3}", "asks for 3 teachers per prompt, the pool holds 2; lower"),
    ],
)
def test_strategies_that_cannot_be(tmp_path: Path, strategy: str, sentence: str) -> None:
    with pytest.raises(RecipeError) as caught:
        steps(tmp_path, strategy)
    assert sentence in str(caught.value)


def test_what_the_strategies_decide_cannot_be_set(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE % "persyn" + "generate: {escalate: 1}\n")
    with pytest.raises(RecipeError, match="generate: `escalate` is decided by the strategies; set it there, not here"):
        make_plan(load_recipe(path))
