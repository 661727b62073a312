"""A small store with all that the Space reads: drawn numbers, and texts that must never be more than text."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rows import assignment, prompt, response, reward

from persyn_hf.core.rewards import recombine
from persyn_hf.schemas import ASSIGNMENTS, PROMPTS, RESPONSES, REWARDS
from persyn_hf.store.local import Store
from persyn_hf.store.stored import Stored


TEACHERS = [
    {"name": "small", "family": "a", "params_b": 1.0},
    {"name": "large", "family": "a", "params_b": 8.0},
    {"name": "thinker", "family": "b", "params_b": 8.0, "long_cot": True},
]
POOL = [str(teacher["name"]) for teacher in TEACHERS]
STUDENT = {"name": "s", "model": "org/student"}
SETTINGS = {"alpha": 0.4, "normalisation": "minmax", "learnability": "mean_logprob", "in_part": False}
COST = {"teachers": {name: {"requests": 60, "flops": 60e9 * (n + 1)} for n, name in enumerate(POOL)}}

EVIL = [
    "<script>window.ran = 'script'</script>",
    '<img src="x" onerror="window.ran = \'img\'">',
    "<a href=\"javascript:window.ran = 'link'\">click</a> [click](javascript:window.ran=1)",
    "</div></section><svg onload=\"window.ran = 'svg'\"><iframe srcdoc='<script>parent.ran = 1</script>'></iframe>",
    "${(window.ran = 'template')} {{constructor.constructor('window.ran = 1')()}} {% raw %}",
    r"$\href{javascript:window.ran=1}{x}$ $\text{<img src=x onerror=window.ran=1>}$ $\rule{9999em}{9999em}$",
]
MATHS = r"So $x^2 = \frac{1}{4}$, hence \boxed{\frac{1}{2}}."
NUMBER = 60  # prompts
UNSHOWN = [  # address, words of what is said instead
    ("assignment=org/x@v1", "there is no assignment `org/x@v1`; there is org/assignments-s-persyn@v1"),
    ("view=none", "there is no view `none`; there is allocation, prompts"),
    ("alpha=<script>", "alpha is given as `<script>`, and a number is needed"),
    ("split=none", "there is no split `none`; there is all, calibration, pool"),
    ("view=prompts&sort=x;--", "there is no sort `x;--`; there is place, margin"),
    ("view=whatif&alpha=7", "alpha is given as `7`, and 0 to 1 is needed"),
    ("view=prompts&prompt=none", "holds no prompt `none`"),
    ("view=prompts&teacher=small&correct=wrong&q=nowhere", "No prompt passes"),
    ("view=router&assignment=org/assignments-s-strong@v1", "made by the strategy `strong`"),
]


def prompt_id(number: int) -> str:
    return f"{(number + 1) * 0x9E3779B97F4A7C15 % 2**64:016x}"


def prompts() -> list[dict[str, Any]]:
    return [
        prompt(
            EVIL[number] if number < len(EVIL) else f"Question {number}?",
            prompt_id(number),
            reference=str(number),
            source="made",
            topic=["sums", "=products", None][number % 3],
            split="calibration" if number % 3 == 0 else "pool",
        )
        for number in range(NUMBER)
    ]


def rewards() -> list[dict[str, Any]]:
    draw = random.Random(0)
    rows = []
    for asked in prompts():
        for teacher in POOL:
            quality = None if draw.random() >= 0.95 else float(draw.random() < 0.7)
            values = {"quality_raw": quality, "mean_logprob": -draw.random(), "sum_logprob": -10.0}
            values |= {"num_tokens": 10, "sum_min_rank": 20.0, "split": asked["split"]}
            rows.append(reward(asked["prompt_id"], teacher, **values))
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    made = recombine(columns, 0.4)
    return [row | {name: values[place] for name, values in made.items()} for place, row in enumerate(rows)]


def assignments(kind: str) -> list[dict[str, Any]]:
    draw = random.Random(1)
    rows = []
    for asked in prompts():
        scores = [draw.gauss(0, 1) for _ in POOL]
        best, second = sorted(scores, reverse=True)[:2]
        routed = {"teacher": POOL[scores.index(best)], "scores": scores, "margin": best - second, "source": "router"}
        decided = routed if kind == "persyn" else {"teacher": "large"}
        rows.append(assignment(asked["prompt_id"], split=asked["split"], **decided))
    return rows


def responses() -> list[dict[str, Any]]:
    rows = []
    for place, (asked, teacher) in enumerate((asked, teacher) for asked in prompts() for teacher in POOL):
        number = place // len(POOL)
        text = EVIL[number] if number < len(EVIL) else "y" * 1_000_000 if number == 7 else MATHS
        values = {"num_prompt_tokens": 5, "num_tokens": 10 + place, "is_correct": [True, False, None][place % 3]}
        rows.append(response(asked["prompt_id"], teacher, text, split=asked["split"], **values))
    return rows


def fill(store: Store, scored: Sequence[str] = ("calibration", "pool")) -> dict[str, Stored]:
    """Put everything into the store, rewards of the splits `scored`; by name."""
    made: dict[str, Stored] = {}

    def put(name: str, schema: Any, rows: list[dict[str, Any]], *inputs: str, **more: Any) -> None:
        fields = {"stage": schema.kind, "teachers": TEACHERS, "student": STUDENT, **more}
        fields["inputs"] = {made[of].kind: {"ref": made[of].ref, "digest": made[of].digest} for of in inputs}
        made[name] = store.put(repo=f"org/{name}", schema=schema, data=schema.dataset(rows), fields=fields)

    put("prompts", PROMPTS, prompts())
    measured = [row for row in rewards() if row["split"] in scored]
    put("rewards-s", REWARDS, measured, "prompts", settings=SETTINGS)
    for kind in ("persyn", "strong"):
        put(f"assignments-s-{kind}", ASSIGNMENTS, assignments(kind), "prompts", "rewards-s", settings={"kind": kind})
    put("responses", RESPONSES, responses(), "prompts", "assignments-s-persyn", cost=COST)
    return made


def blob(stored: Stored, ending: str = ".parquet") -> Path:
    return next(path for path in sorted(stored.path.rglob(f"*{ending}"))).resolve()
