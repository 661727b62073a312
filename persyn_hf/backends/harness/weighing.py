"""Weigh continuations of contexts, each token that several of them begin with once.

The choices of a multiple-choice item share its question, and its items the examples before it. The harness runs every
context anew with each choice: of TruthfulQA's tokens that is 9 in 10. Here the rows (a context and a continuation) are
sorted by their tokens and cut into batches. What all rows of a batch begin with is run once, and its keys and values
serve the batch; what the next batch begins with is kept of them.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel

Row = tuple[list[int], list[int]]  # tokens of a context and of its continuation, none empty
Weight = tuple[float, bool]  # log-likelihood of the continuation in nats, and whether each token is the likeliest one

# What a forward pass costs beside its tokens, in tokens: on a GPU a few dozen take as long as one.
CALL_ON_CPU, CALL_ON_GPU = 16, 512


def can_share(model: "PreTrainedModel") -> bool:
    """Say whether the model keeps keys and values of all tokens: no state of its own (Mamba), no sliding window."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    if model.config.is_encoder_decoder or model._is_stateful:
        return False
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)


def weigh(model: "PreTrainedModel", rows: Sequence[Row], batch_size: int) -> list[Weight]:
    """Return the weight of every row, in order.

    The numbers are those of a pass over each row by itself but for the rounding of sums in another order.
    """
    import torch

    order = sorted(range(len(rows)), key=lambda place: sum(rows[place], []))
    ordered = [rows[place] for place in order]
    found: dict[int, Weight] = {}
    before = Prefix(model)
    call = CALL_ON_CPU if model.device.type == "cpu" else CALL_ON_GPU
    with torch.inference_mode():
        for begin, end, shared in cut(ordered, batch_size, call):
            batch = ordered[begin:end]
            cache = before.run(sum(batch[0], [])[:shared], len(batch))
            found |= zip(order[begin:end], _run(model, batch, shared, cache), strict=True)
    return [found[place] for place in range(len(rows))]


def cut(rows: Sequence[Row], most: int, call: int) -> Iterator[tuple[int, int, int]]:
    """Cut sorted rows into batches of at most `most`, such that they cost the fewest tokens; yield begin, end, shared.

    `shared` is the number of tokens that all rows of the batch begin with, less than any of their contexts has: the
    last token of a context says what comes first of the continuation. A batch costs its shared tokens but for those
    that the row before it begins with as well, as many times its longest rest as it has rows, and `call`.
    """
    texts = [[*context, *continuation] for context, continuation in rows]
    same = [0, *(common(one, other) for one, other in zip(texts, texts[1:], strict=False))]  # with the row before
    least = [0.0] + [float("inf")] * len(rows)  # the cost of the rows before each place
    best = [(0, 0)] * (len(rows) + 1)  # where the last of their batches begins, and what it shares
    for begin in range(len(rows)):
        shared, longest = len(texts[begin]), 0
        for end in range(begin + 1, min(begin + most, len(rows)) + 1):
            row = end - 1
            shared = min(shared, len(rows[row][0]) - 1, same[row] if row > begin else shared)
            longest = max(longest, len(texts[row]) - 1)
            fresh = max(0, shared - same[begin])
            cost = least[begin] + call * (1 + (fresh > 0)) + fresh + (end - begin) * (longest - shared)
            if cost < least[end]:
                least[end], best[end] = cost, (begin, shared)
    ends, end = [], len(rows)
    while end:
        ends.append(end)
        end = best[end][0]
    for end in reversed(ends):
        yield best[end][0], end, best[end][1]


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """Count the tokens that both begin with."""
    return next(
        (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


class Prefix:
    """Keys and values of the tokens that the last batch began with."""

    def __init__(self, model: "PreTrainedModel") -> None:
        self._model = model
        self._tokens: list[int] = []
        self._cache: Any = None

    def run(self, tokens: list[int], repeats: int) -> "DynamicCache":
        """Return keys and values of the tokens, `repeats` times as a batch; only what is new of them is run."""
        import torch
        from transformers import DynamicCache

        kept = common(self._tokens, tokens)
        if not kept:
            self._cache = DynamicCache(config=self._model.config)  # one of no tokens cannot be repeated
        elif kept < len(self._tokens):
            self._cache.crop(kept - len(self._tokens))
        if tokens[kept:]:
            ids = torch.tensor([tokens[kept:]], device=self._model.device)
            self._model(input_ids=ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        self._tokens = tokens
        cache: DynamicCache = copy.deepcopy(self._cache)
        cache.batch_repeat_interleave(repeats)
        return cache


def _run(model: "PreTrainedModel", batch: Sequence[Row], shared: int, cache: "DynamicCache") -> list[Weight]:
    """Run what the rows do not share. Padding follows them, where no token of theirs sees it."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    rests = [torch.tensor([*context, *continuation][shared:-1]) for context, continuation in batch]
    ids = pad_sequence(rests, batch_first=True).to(model.device)
    logits: Any = model(input_ids=ids, past_key_values=cache, use_cache=True).logits
    weights = []
    for (context, continuation), row in zip(batch, logits, strict=True):
        first = len(context) - 1 - shared
        logprobs = row[first : first + len(continuation)].float().log_softmax(dim=-1)
        wanted = torch.tensor(continuation, device=logprobs.device)
        likeliest = bool((logprobs.argmax(dim=-1) == wanted).all())
        weights.append((float(logprobs.gather(1, wanted[:, None]).sum()), likeliest))
    return weights
