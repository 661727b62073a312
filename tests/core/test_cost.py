"""Costs add up and scale; money, the ledger and the ways to choose teachers against numbers worked by hand."""

from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persyn_hf.core.cost import (
    FIELDS,
    Cost,
    answers_cost,
    counterfactual,
    from_line,
    generate_then_select,
    generation_flops,
    ledger,
    money,
    one_teacher_each,
    route_then_generate,
    unmeasured,
)
from persyn_hf.recipe.roles import Price


NUMBERS = st.integers(min_value=0, max_value=10**9)
COSTS = st.builds(Cost, **{name: NUMBERS if name == "requests" else st.none() | NUMBERS for name in FIELDS})
# Two teachers: 4 samples of 10 + 100 tokens, 2 samples of 20 + 1000 tokens.
CELLS = {
    "small": answers_cost(4, 40, 400, 2.0, gpus=1, params_b=1, price=Price(prompt=1, completion=2)),
    "large": answers_cost(2, 40, 2000, 30.0, gpus=4, params_b=10, price=Price(gpu_hour=6)),
}


def test_flops():
    assert generation_flops(1.5, 1000) == 3e12


@pytest.mark.parametrize(
    ("price", "found"),
    [
        (None, None),
        (Price(), 0),
        (Price(prompt=2), 2 * 0.5),
        (Price(completion=8), 8 * 0.25),
        (Price(gpu_hour=3), 3 * 2),
        (Price(prompt=2, completion=8, gpu_hour=3), 1 + 2 + 6),
    ],
)
def test_money_of_half_a_million_tokens_in_a_quarter_out_and_two_gpu_hours(price, found):
    assert money(price, 500_000, 250_000, 7200) == found


def test_money_is_unknown_only_where_what_is_charged_is_unknown():
    assert money(Price(completion=8), None, 250_000, None) == 2
    assert money(Price(prompt=1, completion=8), None, 250_000, 0) is None
    assert money(Price(completion=8, gpu_hour=3), 0, 250_000, None) is None


def test_the_cost_of_some_answers():
    assert asdict(CELLS["small"]) == {
        "requests": 4,
        "prompt_tokens": 40,
        "completion_tokens": 400,
        "seconds": 2.0,
        "gpu_seconds": 2.0,
        "flops": 2e9 * 440,
        "money": pytest.approx((40 + 2 * 400) / 1e6),
    }
    assert CELLS["large"].gpu_seconds == 120 and CELLS["large"].money == pytest.approx(0.2)
    server = answers_cost(1, 10, 10, 1.0, gpus=None, params_b=None, price=None)
    assert (server.seconds, server.gpu_seconds, server.flops, server.money) == (1.0, None, None, None)
    assert answers_cost(1, 10, 10, 1.0, gpus=0, params_b=None, price=Price(gpu_hour=9)).money == 0


@given(COSTS, COSTS, COSTS, st.integers(min_value=1, max_value=50))
def test_costs_add_up_in_any_order_and_scale(a, b, c, times):
    assert a + b == b + a and (a + b) + c == a + (b + c)
    assert a + Cost() == a
    assert a * times == sum([a] * times, Cost())
    assert (a + b) * times == a * times + b * times


@given(COSTS, COSTS)
def test_what_is_unknown_of_a_part_is_unknown_of_the_sum_and_of_nothing_else(a, b):
    for name in FIELDS:
        unknown = getattr(a, name) is None or getattr(b, name) is None
        assert (getattr(a + b, name) is None) == unknown


def test_no_answers_cost_nothing_even_where_their_price_is_unknown():
    assert unmeasured(4) * 0 == Cost()
    assert unmeasured(4) * 2 == unmeasured(8)


def test_the_ledger():
    found = ledger(CELLS, {"small": 1, "large": 2})
    assert found["teachers"]["small"]["new"] == 1 and found["teachers"]["small"]["reused"] == 3
    total = found["total"]
    assert (total["requests"], total["new"], total["reused"]) == (6, 3, 3)
    assert (total["prompt_tokens"], total["completion_tokens"], total["gpu_seconds"]) == (80, 2400, 122.0)
    assert total["flops"] == 2e9 * 440 + 2e10 * 2040
    assert total["money"] == pytest.approx(0.20084)
    assert ledger({**CELLS, "free": unmeasured(1)}, dict.fromkeys((*CELLS, "free"), 0))["total"]["money"] is None
    assert ledger({}, {}) == {"teachers": {}, "total": {**asdict(Cost()), "new": 0, "reused": 0}}


@given(COSTS)
def test_a_line_is_read_back(cost):
    assert from_line(ledger({"a": cost}, {"a": 0})["teachers"]["a"]) == cost


def test_a_line_of_an_older_manifest_lacks_what_it_did_not_know():
    found = from_line({"requests": 3, "prompt_tokens": 30, "completion_tokens": 60, "seconds": 1.5, "flops": None})
    assert found == Cost(
        requests=3, prompt_tokens=30, completion_tokens=60, seconds=1.5, gpu_seconds=None, flops=None, money=None
    )


def test_generations_of_the_paper():
    """50K prompts, 19 teachers, 2.5K labelled: 95K against 950K, ten times fewer; math 45K against 150K."""
    nineteen, fifteen = ({str(n): unmeasured(1) for n in range(number)} for number in (19, 15))
    assert route_then_generate(50_000, 2500, nineteen).requests == pytest.approx(95_000)
    assert generate_then_select(50_000, nineteen).requests == 950_000
    assert route_then_generate(10_000, 2500, fifteen).requests == pytest.approx(45_000)
    assert generate_then_select(10_000, fifteen).requests == 150_000


def test_the_rest_follows_the_allocation():
    """10 labelled prompts at 4 + 2 samples, 90 more, of which 60 go to the small teacher and 30 to the large."""
    found = route_then_generate(100, 10, CELLS, {"small": 2 / 3, "large": 1 / 3})
    assert found.requests == pytest.approx(10 * 6 + 60 * 4 + 30 * 2)
    assert found.completion_tokens == pytest.approx(10 * 2400 + 60 * 400 + 30 * 2000)
    assert found.money == pytest.approx(10 * 0.20084 + 60 * 0.00084 + 30 * 0.2)
    assert route_then_generate(100, 10, CELLS).requests == pytest.approx(60 + 90 * 3)


def test_a_teacher_that_gets_nothing_may_be_unknown():
    cells = {**CELLS, "unpriced": unmeasured(4)}
    assert one_teacher_each(10, cells, {"small": 1.0, "unpriced": 0.0}) == CELLS["small"] * 10
    assert one_teacher_each(9, cells).money is None and one_teacher_each(9, cells).requests == pytest.approx(30)


def test_the_counterfactual():
    found = counterfactual(100, 10, CELLS)
    assert (found["num_prompts"], found["num_labelled"]) == (100, 10)
    assert found["generate_then_select"]["requests"] == 600
    assert found["generate_then_select"]["completion_tokens"] == 240_000
    assert found["car"]["requests"] == 60 + 90 * 3
    assert found["car"]["completion_tokens"] == pytest.approx(24_000 + 90 * (400 + 2000) / 2)
    assert "requests" not in found["estimated"] and set(found["estimated"]) < set(found["car"])
    partly = counterfactual(100, 10, {**CELLS, "large": unmeasured(2)})
    assert partly["generate_then_select"]["requests"] == 600
    assert partly["generate_then_select"]["flops"] is None and partly["car"]["money"] is None
