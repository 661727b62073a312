"""A small store with all that the Space reads: drawn numbers, and texts that must never be more than text."""

import random
from pathlib import Path
from typing import Any

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


def prompt_id(number: int) -> str:
    return f"{(number + 1) * 0x9E3779B97F4A7C15 % 2**64:016x}"


def prompts() -> list[dict[str, Any]]:
    return [
        {
            "prompt_id": prompt_id(number),
            "messages": [{"role": "user", "content": EVIL[number] if number < len(EVIL) else f"Question {number}?"}],
            "reference": str(number),
            "source": "made",
            "topic": ["sums", "=products", None][number % 3],
            "split": "calibration" if number % 3 == 0 else "pool",
        }
        for number in range(NUMBER)
    ]


def rewards() -> list[dict[str, Any]]:
    draw = random.Random(0)
    rows = []
    for prompt in prompts():
        for teacher in POOL:
            measured = draw.random() < 0.95
            rows.append(
                {
                    **{"prompt_id": prompt["prompt_id"], "teacher": teacher, "split": prompt["split"]},
                    **{"quality_raw": float(draw.random() < 0.7) if measured else None, "num_tokens": 10},
                    **{"mean_logprob": -draw.random(), "sum_logprob": -10.0, "sum_min_rank": 20.0, "truncated": False},
                }
            )
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    made = recombine(columns, 0.4)
    return [row | {name: values[place] for name, values in made.items()} for place, row in enumerate(rows)]


def assignments(kind: str) -> list[dict[str, Any]]:
    draw = random.Random(1)
    rows = []
    for prompt in prompts():
        scores = [draw.gauss(0, 1) for _ in POOL]
        best, second = sorted(scores, reverse=True)[:2]
        routed = {"teacher": POOL[scores.index(best)], "scores": scores, "margin": best - second, "source": "router"}
        ruled = {"teacher": "large", "scores": [], "margin": None, "source": "rule"}
        decided = routed if kind == "persyn" else ruled
        rows.append({"prompt_id": prompt["prompt_id"], "split": prompt["split"], "confidence": None, **decided})
    return rows


def responses() -> list[dict[str, Any]]:
    rows = []
    for place, (prompt, teacher) in enumerate((prompt, teacher) for prompt in prompts() for teacher in POOL):
        number = place // len(POOL)
        text = EVIL[number] if number < len(EVIL) else "y" * 1_000_000 if number == 7 else MATHS
        rows.append(
            {
                **{"prompt_id": prompt["prompt_id"], "teacher": teacher, "split": prompt["split"], "sample_index": 0},
                **{"response": text, "reasoning": None, "finish_reason": "stop", "num_prompt_tokens": 5},
                **{"num_tokens": 10 + place, "is_correct": [True, False, None][place % 3], "quality": None},
                **{"selected": True, "round": 0, "status": "ok", "error": None},
            }
        )
    return rows


def fill(store: Store) -> dict[str, Stored]:
    """Put everything into the store; by name."""
    made: dict[str, Stored] = {}

    def put(name: str, schema: Any, rows: list[dict[str, Any]], *inputs: str, **more: Any) -> None:
        fields = {"stage": schema.kind, "teachers": TEACHERS, "student": STUDENT, **more}
        fields["inputs"] = {made[of].kind: {"ref": made[of].ref, "digest": made[of].digest} for of in inputs}
        made[name] = store.put(repo=f"org/{name}", schema=schema, data=schema.dataset(rows), fields=fields)

    put("prompts", PROMPTS, prompts())
    put("rewards-s", REWARDS, rewards(), "prompts", settings=SETTINGS)
    for kind in ("persyn", "strong"):
        put(f"assignments-s-{kind}", ASSIGNMENTS, assignments(kind), "prompts", "rewards-s", settings={"kind": kind})
    put("responses", RESPONSES, responses(), "prompts", "assignments-s-persyn", cost=COST)
    return made


def blob(stored: Stored, ending: str = ".parquet") -> Path:
    return next(path for path in sorted(stored.path.rglob(f"*{ending}"))).resolve()
