"""Costs as tables: units that a reader takes in at once, no columns of nothing, and the ledger of a card."""

import pytest
from store_samples import fields

from persyn_hf.core.cost import answers_cost, counterfactual, ledger, unmeasured
from persyn_hf.formats import amount, duration, file_size, flops, known_columns, money, time_span
from persyn_hf.recipe.roles import Price
from persyn_hf.store.cards.card import render_card
from persyn_hf.store.manifest import Manifest


PRICED = answers_cost(4, 40, 4000, 7200.0, gpus=2, params_b=1.5, price=Price(completion=5, gpu_hour=3))
UNPRICED = answers_cost(2, 20, 1_200_000, 30.0, gpus=0, params_b=None, price=None)


def cost_section(cost):
    manifest = Manifest(kind="responses", schema_version=1, repo="me/x", digest="d" * 64, **fields(cost=cost))
    card = render_card(manifest, "v1")
    return card.partition("## Cost\n\n")[2].partition("\n## Lineage\n")[0]


@pytest.mark.parametrize(
    ("unit", "number", "text"),
    [
        (amount, 0, "0"),
        (amount, 950, "950"),
        (amount, 999.4, "999"),
        (amount, 999.6, "1.00K"),
        (amount, 1234, "1.23K"),
        (amount, 12_345, "12.3K"),
        (amount, 999_600, "1.00M"),
        (amount, 1_200_000, "1.20M"),
        (amount, 2.5e15, "2,500T"),
        (flops, 0, "0 FLOPs"),
        (flops, 3.4e15, "3.40 PFLOPs"),
        (flops, 5.6789e20, "568 EFLOPs"),
        (duration, 0.064, "0.064 s"),
        (duration, 119, "119 s"),
        (duration, 120, "2.00 min"),
        (duration, 3600, "1.00 h"),
        (duration, 36e5, "1,000 h"),
        (file_size, 950, "950 B"),
        (file_size, 1500, "1.5 kB"),
        (file_size, 999_400, "999 kB"),
        (file_size, 999_600, "1 MB"),
        (file_size, 1_250_000_000_000, "1,250.0 GB"),
        (time_span, None, "unknown"),
        (time_span, 45.4, "45 s"),
        (time_span, 725, "12 min 5 s"),
        (time_span, 12_000, "3 h 20 min"),
        (time_span, 187_200, "2 d 4 h"),
        (money, 0, "0.00"),
        (money, 0.0024, "0.002"),
        (money, 12_288.0, "12,288.00"),
    ],
)
def test_units(unit, number, text):
    assert unit(number) == text


def test_columns_that_say_nothing_are_left_out():
    def titles(*costs):
        return [column.title for column in known_columns(costs)]

    assert titles(PRICED) == ["answers", "tokens in", "tokens out", "GPU time", "compute", "money"]
    assert titles(UNPRICED) == ["answers", "tokens in", "tokens out", "time"]
    assert titles(PRICED, UNPRICED) == ["answers", "tokens in", "tokens out", "time", "GPU time", "compute", "money"]
    assert titles(unmeasured(3)) == ["answers"]


def test_the_ledger_of_a_card():
    section = cost_section(ledger({"a": PRICED, "b|1": UNPRICED}, {"a": 4, "b|1": 0}))
    assert section.startswith(
        "| teacher | answers | tokens in | tokens out | time | GPU time | compute | money | new |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
        "| a | 4 | 40 | 4.00K | 2.00 h | 4.00 h | 12.1 TFLOPs | 12.02 | 4 |\n"
        "| b\\|1 | 2 | 20 | 1.20M | 30.0 s | 0 s | – | – | 0 |\n"
        "| **total** | 6 | 60 | 1.20M | 2.01 h | 4.00 h | – | – | 4 |\n\n"
    )
    assert "2 FLOPs per active parameter" in section and "generate-then-select" not in section
    assert "completion_tokens" not in section and section.endswith("\n")


def test_the_counterfactual_of_a_card():
    """1,000 prompts, 100 labelled: 1,000 x 6 answers against 100 x 6 + 900 x 3."""
    cells = {"a": PRICED, "b": PRICED * 0.5}
    section = cost_section({**ledger(cells, {"a": 4, "b": 2}), "counterfactual": counterfactual(1000, 100, cells)})
    assert "The 1,000 prompts that a student may be trained on, 100 of them labelled, would cost" in section
    assert "| generate-then-select | 6,000 | 60.0K | 6.00M | 6,000 h | 18.2 PFLOPs | 18,030.00 |" in section
    assert "| CAR | 3,300 | 33.0K | 3.30M | 3,300 h | 10.0 PFLOPs | 9,916.50 |" in section
    cells["b"] = unmeasured(2)
    section = cost_section({**ledger({"a": PRICED}, {"a": 4}), "counterfactual": counterfactual(1000, 100, cells)})
    assert "| way | answers |\n| --- | --- |\n| generate-then-select | 6,000 |\n| CAR | 3,300 |" in section


def test_cards_of_manifests_that_hold_less():
    old = {"requests": 3, "prompt_tokens": 30, "completion_tokens": 60, "seconds": 1.5, "flops": None}
    assert cost_section({"teachers": {"a": old}}).startswith(
        "| teacher | answers | tokens in | tokens out | time | new |\n"
        "| --- | --- | --- | --- | --- | --- |\n"
        "| a | 3 | 30 | 60 | 1.50 s | – |\n"
    )
    assert cost_section({}) == cost_section({"teachers": {}}) == cost_section(ledger({}, {})) == "none\n"
    assert cost_section({"gpu_seconds": 1.5}) == "| measure | value |\n| --- | --- |\n| `gpu_seconds` | 1.5 |\n"
    both = cost_section({"teachers": {"a": {**old, "new": 3}}, "servers": 2})
    assert "| **total** | 3 |" in both and both.endswith("\n\n| measure | value |\n| --- | --- |\n| `servers` | 2 |\n")


def test_imported_responses_have_no_ledger():
    cost = {**ledger({}, {}), "counterfactual": counterfactual(3, 1, {"a": unmeasured(1)})}
    assert cost_section(cost) == "none\n"
