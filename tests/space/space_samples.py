"""A small store with all that the Space reads: drawn numbers, and texts that must never be more than text."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rows import assignment, prompt, response, reward

from persyn_hf.backends import routers
from persyn_hf.backends.routers import Labelled, RouterSettings
from persyn_hf.core.rewards import recombine
from persyn_hf.schemas import ASSIGNMENTS, PROMPTS, RESPONSES, REWARDS, SCHEMAS
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
ROUTED_BY = {"prompts": "prompts", "rewards": "rewards-s"}
COST = {"teachers": {name: {"requests": 60, "flops": 60e9 * (n + 1)} for n, name in enumerate(POOL)}}
MANY = [  # with names as they are on the Hub, 42 characters long; the families of a large pool
    {"name": f"{family}-{n}-Instruct".ljust(42, "x"), "family": family, "params_b": 0.5 * 2**n, "long_cot": n == 3}
    for family, members in {"Qwen2.5": 6, "Llama-3.1": 4, "gemma-2": 3, "Mistral": 3, "phi": 2, "OLMo": 1}.items()
    for n in range(members)
]
STUDENTS = ("Qwen2.5-0.5B-Instruct", "Llama-3.2-1B-Instruct", "gemma-2-2b-it")

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
    ("view=prompts&sort=x;--", "there is no sort `x;--`; there is place"),
    ("view=whatif&alpha=7", "alpha is given as `7`, and 0 to 1 is needed"),
    ("view=prompts&prompt=none", "holds no prompt `none`"),
    ("view=prompts&teacher=small&correct=wrong&q=nowhere", "No prompt passes"),
    ("view=router&assignment=org/assignments-s-strong@v1", "made by the strategy `strong`"),
    ("view=try", "no router belongs to this assignment"),
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


def rewards(pool: Sequence[str] = POOL) -> list[dict[str, Any]]:
    draw = random.Random(0)
    rows = []
    for asked in prompts():
        for teacher in pool:
            quality = None if draw.random() >= 0.95 else float(draw.random() < 0.7)
            values = {"quality_raw": quality, "mean_logprob": -draw.random(), "sum_logprob": -10.0}
            values |= {"num_tokens": 10, "sum_min_rank": 20.0, "split": asked["split"]}
            rows.append(reward(asked["prompt_id"], teacher, **values))
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    made = recombine(columns, 0.4)
    return [row | {name: values[place] for name, values in made.items()} for place, row in enumerate(rows)]


def assignments(kind: str, pool: Sequence[str] = POOL) -> list[dict[str, Any]]:
    draw = random.Random(1)
    rows = []
    for asked in prompts():
        scores = [draw.gauss(0, 1) for _ in pool]
        best, *second = sorted(scores, reverse=True)[:2]
        routed = {"teacher": pool[scores.index(best)], "scores": scores, "source": "router"}
        routed |= {"margin": best - second[0]} if second else {}
        decided = routed if kind == "persyn" else {"teacher": pool[min(1, len(pool) - 1)]}
        rows.append(assignment(asked["prompt_id"], split=asked["split"], **decided))
    return rows


def responses(pool: Sequence[str] = POOL) -> list[dict[str, Any]]:
    rows = []
    for place, (asked, teacher) in enumerate((asked, teacher) for asked in prompts() for teacher in pool):
        number = place // len(pool)
        text = EVIL[number] if number < len(EVIL) else "y" * 1_000_000 if number == 7 else MATHS
        values = {"num_prompt_tokens": 5, "num_tokens": 10 + place, "is_correct": [True, False, None][place % 3]}
        rows.append(response(asked["prompt_id"], teacher, text, split=asked["split"], **values))
    return rows


def fill(
    store: Store,
    scored: Sequence[str] = ("calibration", "pool"),
    teachers: Sequence[dict[str, Any]] = TEACHERS,
    students: Sequence[str] = ("s",),
) -> dict[str, Stored]:
    """Put everything into the store, rewards of the splits `scored`; by name."""
    made: dict[str, Stored] = {}
    pool = [str(teacher["name"]) for teacher in teachers]
    shared = {"teachers": list(teachers)}

    def put(name: str, schema: Any, rows: list[dict[str, Any]], *inputs: str, **more: Any) -> None:
        fields = {"stage": schema.kind, **shared, **more}
        fields["inputs"] = {made[of].kind: {"ref": made[of].ref, "digest": made[of].digest} for of in inputs}
        made[name] = store.put(repo=f"org/{name}", schema=schema, data=schema.dataset(rows), fields=fields)

    put("prompts", PROMPTS, prompts(), student=STUDENT)
    measured = [row for row in rewards(pool) if row["split"] in scored]
    for student in students:
        shared["student"] = STUDENT | {"name": student}
        put(f"rewards-{student}", REWARDS, measured, "prompts", settings=SETTINGS)
        for kind in ("persyn", "strong"):
            rows, name = assignments(kind, pool), f"assignments-{student}-{kind}"
            put(name, ASSIGNMENTS, rows, "prompts", f"rewards-{student}", settings={"kind": kind})
    cost = {"teachers": {name: {"requests": 60, "flops": 60e9 * (n + 1)} for n, name in enumerate(pool)}}
    put("responses", RESPONSES, responses(pool), "prompts", f"assignments-{students[0]}-persyn", cost=cost)
    return made


def add_router(store: Store, made: Mapping[str, Stored], folder: Path) -> Stored:
    """Train a router on the sample's prompts and rewards, and put it into the store."""
    rows = rewards()
    measured = np.array([float("nan") if row["reward"] is None else row["reward"] for row in rows])
    matrix = measured.reshape(NUMBER, len(POOL))
    texts = [asked["messages"] for asked in prompts()]
    train, held = Labelled(texts[:45], matrix[:45]), Labelled(texts[45:], matrix[45:])
    routers.fit(RouterSettings(kind="ridge"), POOL, train, held, folder, seed=0)
    inputs = {word: {"ref": made[name].ref, "digest": made[name].digest} for word, name in ROUTED_BY.items()}
    fields = {"stage": "train_router", "teachers": TEACHERS, "student": STUDENT, "settings": {"kind": "ridge"}}
    return store.put(repo="org/router-s", schema=SCHEMAS["router"], data=folder, fields=fields | {"inputs": inputs})


def blob(stored: Stored, ending: str = ".parquet") -> Path:
    return next(path for path in sorted(stored.path.rglob(f"*{ending}"))).resolve()
