"""Real artifacts of every kind, small: what the tests of the store write and read."""

import random
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from safetensors.numpy import save_file

from persyn_hf.contract import ModelSchema, Schema
from persyn_hf.schemas import SCHEMAS


TEXTS = ["", "plain", "été 数学 🧮", 'a | b\n"quoted" \\ back', "x" * 500, "<b>&amp;</b>", "\u2028\x00\x7f"]
DATASETS = [schema for schema in SCHEMAS.values() if isinstance(schema, Schema)]
MODELS = [schema for schema in SCHEMAS.values() if isinstance(schema, ModelSchema)]


def rows_of(schema: Schema, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of random values, configs and splits interleaved, nulls wherever they may be."""
    draw = random.Random(seed)
    return [{column.name: _value(column, schema, draw) for column in schema.columns} for _ in range(count)]


def _value(column: Any, schema: Schema, draw: random.Random) -> Any:
    if column.name == schema.split_by:
        return draw.choice(["calibration", "dev", "pool"])
    if column.name == schema.config_by:
        return draw.choice(["Qwen2.5-0.5B", "b_1", "a"])
    if column.nullable and draw.random() < 0.4:
        return None
    if column.dtype == "messages":
        return [{"role": "user", "content": draw.choice(TEXTS)} for _ in range(draw.randrange(3))]
    if column.dtype.startswith("list<"):
        return [draw.uniform(-1e9, 1e9) for _ in range(draw.randrange(4))]
    make = {"string": lambda: draw.choice(TEXTS), "int64": lambda: draw.randrange(-(2**62), 2**62)}
    make |= {"float64": lambda: draw.uniform(-1, 1), "bool": lambda: draw.random() < 0.5}
    return make[column.dtype]()


def dataset_of(schema: Schema, rows: list[dict[str, Any]]) -> Dataset:
    return Dataset.from_dict({name: [row[name] for row in rows] for name in schema.names}, features=schema.features)


def model_folder(folder: Path, seed: int = 0) -> Path:
    """A folder as `save_pretrained` leaves it, with a file in a subfolder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "tiny"}')
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text("{}")
    weights = np.random.default_rng(seed).normal(size=(8, 8)).astype(np.float32)
    save_file({"weight": weights}, folder / "model.safetensors")
    return folder


def fields(stage: str = "generate", **more: Any) -> dict[str, Any]:
    """What the runner knows of an artifact."""
    values = {
        "stage": stage,
        "settings": {"samples": 4, "sampling": {"temperature": 0.6}},
        "seed": 7,
        "fingerprint": "f" * 64,
        "teachers": [{"name": "a", "model": "org/a", "revision": "main"}, {"name": "b_1", "model": None}],
        "student": {"name": "s", "model": "org/student"},
        "counts": {"rows": 12, "dropped_error": 1, "unjudged": 2},
        "metrics": {"accuracy": 0.25, "by_teacher": {"a": {"n": 3, "mean": 0.5}, "b_1": {"n": 4, "mean": None}}},
        "cost": {"gpu_seconds": 1.5},
        "packages": {"datasets": "5.2"},
        "code_version": 1,
    }
    return {**values, **more}


def link(*stored: Any) -> dict[str, dict[str, str]]:
    """`inputs` of a manifest, keyed by kind."""
    return {item.kind: {"ref": item.ref, "digest": item.digest} for item in stored}
