"""What answers cost, and what other ways to choose teachers would have cost (PerSyn, section 2.2 and Table 1).

Tokens are those of the teacher's own tokenizer, seconds the time that its engine is busy, FLOPs floating-point
operations (not their rate), money is in the one currency of the recipe's prices. None: not known.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from persyn_hf.recipe.roles import Price


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Cost of a number of answers. Every field grows with them, so costs add up, and a mean is a cost times 1/n."""

    requests: float = 0
    prompt_tokens: float | None = 0
    completion_tokens: float | None = 0
    seconds: float | None = 0
    gpu_seconds: float | None = 0  # seconds x GPUs that the engine holds; 0 without a GPU
    flops: float | None = 0
    money: float | None = 0

    def __add__(self, other: "Cost") -> "Cost":
        """Field by field; what is unknown of either is unknown of the sum."""
        pairs = ((name, getattr(self, name), getattr(other, name)) for name in FIELDS)
        return _cost({name: None if a is None or b is None else a + b for name, a, b in pairs})

    def __mul__(self, factor: float) -> "Cost":
        """The cost of `factor` times as many answers; of none at all, everything is known to be 0."""
        values = ((name, getattr(self, name)) for name in FIELDS)
        return _cost({name: None if value is None else value * factor for name, value in values if factor})


FIELDS = tuple(field.name for field in fields(Cost))


def _cost(values: Mapping[str, Any]) -> Cost:
    return Cost(**values)


def answers_cost(
    requests: int,
    prompt_tokens: float,
    completion_tokens: float,
    seconds: float,
    *,
    gpus: float | None,
    params_b: float | None,
    price: Price | None,
) -> Cost:
    """Cost of one teacher's answers.

    Args:
        gpus: GPUs that the engine holds while it is busy; None: not known, as of a server.
        params_b: active parameters in billions; None: not known.
    """
    gpu_seconds = None if gpus is None else seconds * gpus
    return Cost(
        requests=requests,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        seconds=seconds,
        gpu_seconds=gpu_seconds,
        flops=None if params_b is None else generation_flops(params_b, prompt_tokens + completion_tokens),
        money=money(price, prompt_tokens, completion_tokens, gpu_seconds),
    )


def unmeasured(requests: int) -> Cost:
    """Answers of which nothing is known but their number."""
    return _cost({**dict.fromkeys(FIELDS), "requests": requests})


def generation_flops(params_b: float, num_tokens: float) -> float:
    """FLOPs of a forward pass over `num_tokens`: 2 per parameter and token; `params_b` in billions, active ones."""
    return 2 * params_b * 1e9 * num_tokens


def money(
    price: Price | None, prompt_tokens: float | None, completion_tokens: float | None, gpu_seconds: float | None
) -> float | None:
    """Tokens at prices per million, plus GPU-seconds at a price per hour; None without a price or what it needs."""
    if price is None:
        return None
    parts = (
        (price.prompt / 1e6, prompt_tokens),
        (price.completion / 1e6, completion_tokens),
        (price.gpu_hour / 3600, gpu_seconds),
    )
    charged = [(rate, amount) for rate, amount in parts if rate]
    if any(amount is None for _, amount in charged):
        return None
    return float(sum(rate * (amount or 0) for rate, amount in charged))


def ledger(teachers: Mapping[str, Cost], new: Mapping[str, int]) -> dict[str, Any]:
    """The lines of a manifest: `teachers` by name and their `total`; null where unknown.

    `new`: answers first paid for by this step; the others, `reused`, were in the journal already.
    """
    lines = {name: _line(cost, new[name]) for name, cost in teachers.items()}
    return {"teachers": lines, "total": _line(sum(teachers.values(), Cost()), sum(new[name] for name in teachers))}


def _line(cost: Cost, new: int) -> dict[str, Any]:
    return {**asdict(cost), "new": new, "reused": cost.requests - new}


def from_line(line: Mapping[str, Any]) -> Cost:
    """The cost that a ledger line holds; what it does not name is unknown."""
    return _cost({name: line.get(name) for name in FIELDS} | {"requests": line.get("requests", 0)})


def generate_then_select(num_prompts: float, cells: Mapping[str, Cost]) -> Cost:
    """Every teacher answers every prompt. `cells`: per teacher, the cost of one cell with all its samples."""
    return sum(cells.values(), Cost()) * num_prompts


def one_teacher_each(
    num_prompts: float, cells: Mapping[str, Cost], allocation: Mapping[str, float] | None = None
) -> Cost:
    """Each prompt is answered by one teacher; `allocation`: share of the prompts per teacher, default even."""
    shares = allocation or dict.fromkeys(cells, 1 / len(cells))
    return sum((cells[name] * (share * num_prompts) for name, share in shares.items()), Cost())


def route_then_generate(
    num_prompts: int, num_labelled: int, cells: Mapping[str, Cost], allocation: Mapping[str, float] | None = None
) -> Cost:
    """Every teacher answers the labelled prompts, one teacher each of the rest: m * n + (N - m) cells.

    CAR costs the same with all of the rest given to one teacher. Which one is known after the labelled answers only;
    until then the even allocation is its mean over the pool.
    """
    rest = one_teacher_each(num_prompts - num_labelled, cells, allocation)
    return generate_then_select(num_labelled, cells) + rest


def counterfactual(num_prompts: int, num_labelled: int, cells: Mapping[str, Cost]) -> dict[str, Any]:
    """What the same prompts cost where every teacher answers all of them, and with CAR, as lines of a manifest.

    Args:
        num_prompts: prompts that the student may be trained on, the labelled ones among them (dev prompts are not).
        num_labelled: prompts that every teacher answers, so that teachers are compared on them (calibration).
        cells: per teacher of the pool, the mean cost of one cell over its measured answers, or `unmeasured(samples)`.

    The number of requests is exact (of CAR: where all teachers are sampled alike); the rest is named as `estimated`.
    """
    ways = {
        "generate_then_select": generate_then_select(num_prompts, cells),
        "car": route_then_generate(num_prompts, num_labelled, cells),
    }
    return {
        "num_prompts": num_prompts,
        "num_labelled": num_labelled,
        "estimated": [name for name in FIELDS if name != "requests"],
        **{way: {**asdict(cost), "requests": round(cost.requests)} for way, cost in ways.items()},
    }
