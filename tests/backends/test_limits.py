"""A limit of money where a server counts no tokens."""

from dataclasses import replace

import pytest
from journal_samples import answer, request

from persyn_hf.backends.engines.limits import Budget
from persyn_hf.errors import BudgetReached, EngineError
from persyn_hf.stage import Limits


def per_token(teacher: str, prompt_tokens: float, tokens: float, seconds: float) -> float:
    return 0.0 if teacher == "free" else (prompt_tokens + tokens) / 1000


def budget(max_cost: float | None = 1.0, **uncounted: int) -> Budget:
    return Budget(
        Limits(max_cost=max_cost, are_options=True), generations=0, cost=0.0, money=per_token, uncounted=uncounted
    )


def test_a_teacher_that_is_not_counted_is_refused_after_its_first_answer() -> None:
    first, second = request("a"), request("b")
    limited = budget()
    assert limited.reserve("t", [first])
    limited.settle("t", [answer(first, num_tokens=None)])
    assert not limited.reserve("t", [second])
    with pytest.raises(
        EngineError, match=r"--max-cost 1 cannot be kept for the teacher `t`: its server counts no tok"
    ):
        raise limited.stop("t", [second], 1)
    assert limited.reserve("another", [second]), "a teacher that is counted goes on"


def test_without_a_limit_or_a_price_it_may_go_on_and_so_may_errors() -> None:
    first, second = request("a"), request("b")
    for open_budget, teacher in ((budget(None), "t"), (budget(), "free")):
        assert open_budget.reserve(teacher, [first])
        open_budget.settle(teacher, [answer(first, num_tokens=None)])
        assert open_budget.reserve(teacher, [second])
    failing = budget()
    assert failing.reserve("t", [first])
    failing.settle("t", [answer(first, text="", error="HTTP 500", num_tokens=0)])
    assert failing.reserve("t", [second])


def test_what_earlier_runs_left_uncounted_is_remembered() -> None:
    assert not budget(t=3).reserve("t", [request("a")])
    assert isinstance(budget(0.001).stop("t", [replace(request("a"))], 1), BudgetReached)


def test_a_limit_is_named_as_it_was_given() -> None:
    for are_options, named in ((True, "--max-generations"), (False, "`max_generations`")):
        limits = Limits(max_generations=1, are_options=are_options)
        stop = Budget(limits, generations=1, cost=0.0, money=per_token).stop("t", [request("a")], 1)
        assert str(stop).startswith(f"{named} 1: this recipe has asked for 1, ")
