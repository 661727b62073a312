"""Reckon what answers cost, and what other ways to choose teachers would have cost (PerSyn, section 2.2 and Table 1).

Tokens are those of the teacher's own tokenizer. Seconds are the time that its engine is busy. FLOPs are floating-point
operations, not their rate. Money is in the one currency of the recipe's prices. None is what is not known.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from persyn_hf.recipe.roles import Price


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of n answers. Every field grows with their number, so costs add up, and a mean is a cost times 1/n."""

    requests: float = 0
    prompt_tokens: float | None = 0
    completion_tokens: float | None = 0
    seconds: float | None = 0
    gpu_seconds: float | None = 0  # seconds x GPUs that the engine holds; 0 without a GPU
    flops: float | None = 0
    money: float | None = 0

    def __add__(self, other: "Cost") -> "Cost":
        """Add two costs field by field; a field that is unknown of either is unknown of the sum."""
        pairs = ((name, getattr(self, name), getattr(other, name)) for name in FIELDS)
        return _cost({name: None if a is None or b is None else a + b for name, a, b in pairs})

    def __mul__(self, factor: float) -> "Cost":
        """Return the cost of `factor` times as many answers; that of no answers at all is known: 0 in every field."""
        values = ((name, getattr(self, name)) for name in FIELDS)
        return _cost({name: None if value is None else value * factor for name, value in values if factor})


FIELDS = tuple(field.name for field in fields(Cost))


def _cost(values: Mapping[str, Any]) -> Cost:
    """Make a cost from some of its fields; the others are 0."""
    return Cost(**values)


def answers_cost(
    requests: int,
    prompt_tokens: float | None,
    completion_tokens: float | None,
    seconds: float,
    *,
    gpus: float | None,
    params_b: float | None,
    price: Price | None,
) -> Cost:
    """Return the cost of one teacher's answers.

    Args:
        requests: answers.
        prompt_tokens, completion_tokens: of all of them together; None: a server did not count them.
        seconds: that the engine was busy.
        gpus: GPUs that the engine holds while it is busy; None: not known, as for a server.
        params_b: active parameters in billions; None: not known.
        price: of the teacher; None: not known.
    """
    gpu_seconds = None if gpus is None else seconds * gpus
    unknown = None in (params_b, prompt_tokens, completion_tokens)
    return Cost(
        requests=requests,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        seconds=seconds,
        gpu_seconds=gpu_seconds,
        flops=None if unknown else generation_flops(params_b or 0, (prompt_tokens or 0) + (completion_tokens or 0)),
        money=money(price, prompt_tokens, completion_tokens, gpu_seconds),
    )


def unmeasured(requests: int) -> Cost:
    """Return the cost of answers of which nothing is known but their number."""
    return _cost({**dict.fromkeys(FIELDS), "requests": requests})


def generation_flops(params_b: float, num_tokens: float) -> float:
    """Return the FLOPs of a forward pass over `num_tokens`: 2 per token and parameter.

    params_b: active parameters in billions. Example: 100 tokens of a model of 7 billion take 1.4e12 FLOPs.
    """
    return 2 * params_b * 1e9 * num_tokens


def money(
    price: Price | None, prompt_tokens: float | None, completion_tokens: float | None, gpu_seconds: float | None
) -> float | None:
    """Return the money that tokens and GPU-seconds cost; None: there is no price, or an amount it needs is not known.

    Example: 2 per million prompt tokens and 8 per million generated ones make 1,000 and 500 tokens cost 0.006.
    """
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
    """Return the cost ledger of a manifest: one line per teacher in `teachers`, and their `total`; None: not known.

    new: per teacher, the answers that this step was the first to pay for. The others, `reused` in a line, were in the
    journal already.
    """
    lines = {name: _line(cost, new[name]) for name, cost in teachers.items()}
    return {"teachers": lines, "total": _line(sum(teachers.values(), Cost()), sum(new[name] for name in teachers))}


def _line(cost: Cost, new: int) -> dict[str, Any]:
    """Return one line of a ledger."""
    return {**asdict(cost), "new": new, "reused": cost.requests - new}


def from_line(line: Mapping[str, Any]) -> Cost:
    """Return the cost that a ledger line holds; a field that it does not name is unknown."""
    return _cost({name: line.get(name) for name in FIELDS} | {"requests": line.get("requests", 0)})


def generate_then_select(num_prompts: float, cells: Mapping[str, Cost]) -> Cost:
    """Return the cost where every teacher answers every prompt.

    cells: per teacher, the cost of one (prompt, teacher) cell with all its samples.
    """
    return sum(cells.values(), Cost()) * num_prompts


def one_teacher_each(
    num_prompts: float, cells: Mapping[str, Cost], allocation: Mapping[str, float] | None = None
) -> Cost:
    """Return the cost where one teacher answers each prompt.

    cells: as in `generate_then_select`; allocation: share of the prompts per teacher, default even.
    """
    shares = allocation or dict.fromkeys(cells, 1 / len(cells))
    return sum((cells[name] * (share * num_prompts) for name, share in shares.items()), Cost())


def route_then_generate(
    num_prompts: int, num_labelled: int, cells: Mapping[str, Cost], allocation: Mapping[str, float] | None = None
) -> Cost:
    """Return the cost where every teacher answers the labelled prompts, and one teacher each of the other prompts.

    With N prompts, m of them labelled, and n teachers, m * n + (N - m) cells are asked. Example: 1,000 prompts, 100 of
    them labelled, and 5 teachers are 500 + 900 = 1,400 cells, where generate-then-select asks 5,000.

    CAR costs the same with all other prompts given to one teacher. Which one it is comes out of the labelled answers;
    until then the even allocation is the mean over the pool.
    """
    rest = one_teacher_each(num_prompts - num_labelled, cells, allocation)
    return generate_then_select(num_labelled, cells) + rest


def counterfactual(num_prompts: int, num_labelled: int, cells: Mapping[str, Cost]) -> dict[str, Any]:
    """Return what the same prompts would cost with generate-then-select and with CAR, as lines of a manifest.

    Args:
        num_prompts: prompts that the student may be trained on, with the labelled ones, without dev.
        num_labelled: prompts that every teacher answers, so that teachers can be compared (calibration).
        cells: per teacher of the pool, the mean cost of one cell over its measured answers, or `unmeasured(samples)`.

    The number of requests is exact (for CAR: where all teachers are sampled alike). `estimated` names all other
    fields.
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
