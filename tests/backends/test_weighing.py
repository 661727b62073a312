"""Continuations are weighed as by a pass over each row by itself, and what rows share is run once."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from persyn_hf.backends import loading
from persyn_hf.backends.harness.weighing import Row, can_share, cut, weigh


TOKENS = st.lists(st.integers(3, 5), min_size=1, max_size=6)
ROWS = st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def model(zoo: Path) -> Any:
    return loading.load_causal_lm(str(zoo / "qwen-student"), None, "float32", "cpu")


def alone(model: Any, row: Row) -> tuple[float, bool]:
    """The weight of a row by the definition: one pass over it, no cache, no padding."""
    import torch

    context, continuation = row
    with torch.inference_mode():
        logits = model(torch.tensor([[*context, *continuation]]), use_cache=False).logits[0, len(context) - 1 : -1]
    logprobs = logits.log_softmax(dim=-1)
    total = sum(float(logprobs[place, token]) for place, token in enumerate(continuation))
    return total, logprobs.argmax(dim=-1).tolist() == continuation


def rows_of(pairs: list[Row]) -> list[Row]:
    return sorted(pairs, key=lambda row: [*row[0], *row[1]])


@given(ROWS, st.integers(1, 5))
@example([([3], [3]), ([3], [3])], 2)
@example([([3, 3], [3]), ([3], [3, 3])], 2)  # the same tokens, another border
def test_rows_weigh_what_they_weigh_alone(model: Any, rows: list[Row], batch_size: int) -> None:
    found = weigh(model, rows, batch_size)
    for (total, likeliest), row in zip(found, rows, strict=True):
        expected, best = alone(model, row)
        assert total == pytest.approx(expected, abs=1e-4)
        assert likeliest == best


@given(ROWS, st.integers(1, 5), st.sampled_from([0, 3, 100]))
def test_batches_hold_every_row_once_and_share_what_all_begin_with(rows: list[Row], most: int, call: int) -> None:
    ordered = rows_of(rows)
    batches = list(cut(ordered, most, call))
    assert [place for begin, end, _ in batches for place in range(begin, end)] == list(range(len(rows)))
    for begin, end, shared in batches:
        assert 0 < end - begin <= most
        assert all(shared < len(context) for context, _ in ordered[begin:end])
        assert len({tuple([*context, *rest][:shared]) for context, rest in ordered[begin:end]}) == 1


def test_batches_end_where_questions_do() -> None:
    """Two questions with three choices each, after the same four tokens."""
    examples = [9, 9, 9, 9]
    rows = [
        (examples + question, choice) for question in ([1, 2, 3, 4, 5], [2, 3, 4, 5, 6]) for choice in ([1], [2], [3])
    ]
    # two batches: 8 fresh tokens and 3 x 1, then 4 (the examples are there) and 3 x 1; one batch: 4 and 6 x 5
    assert list(cut(rows, 6, 0)) == [(0, 3, 8), (3, 6, 8)]
    # a pass that costs as much as 100 tokens: one for what is shared, one for the rests
    assert list(cut(rows, 6, 100)) == [(0, 6, 4)]


def test_a_question_is_run_once(model: Any) -> None:
    """20 questions of 30 tokens after 50 of examples, 5 choices of 4 tokens: 8,400 tokens one by one."""
    rows = [([7] * 50 + [number] * 30, [choice] * 4) for number in range(10, 30) for choice in range(3, 8)]
    ran: list[int] = []
    hook = model.register_forward_pre_hook(
        lambda _, __, inputs: ran.append(inputs["input_ids"].numel()), with_kwargs=True
    )
    try:
        weigh(model, rows, 32)
    finally:
        hook.remove()
    # the examples, the questions but for their last token, and that token and three of the choice for each of 100
    assert sum(ran) == 50 + 20 * 29 + 100 * 4


@pytest.mark.parametrize(
    ("name", "settings", "shares"),
    [
        ("Qwen2Config", {}, True),
        ("LlamaConfig", {}, True),
        ("MistralConfig", {"sliding_window": 16}, False),
        ("Gemma3TextConfig", {}, False),  # five layers of six have a sliding window
        ("MambaConfig", {}, False),
        ("Qwen3NextConfig", {"num_experts": 2, "num_experts_per_tok": 1}, False),  # linear attention
    ],
)
def test_models_that_keep_less_than_all_tokens_share_nothing(
    name: str, settings: dict[str, Any], shares: bool
) -> None:
    import transformers

    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8}
    config = getattr(transformers, name)(**(sizes | (heads if name != "MambaConfig" else {}) | settings))
    assert can_share(transformers.AutoModelForCausalLM.from_config(config)) is shares
