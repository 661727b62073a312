"""The folders under metrics/ with the real `evaluate` package, without network."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persyn_hf.core import metrics as core


evaluate = pytest.importorskip("evaluate")

SCORES = [[0.9, 0.1, 0.5], [0.2, 0.7, 0.1], [0.3, 0.3, 0.1], [0.5, 0.6, 0.7]]
REWARDS = [[1.0, 0.0, 0.4], [0.75, 0.25, 0.0], [1.0, 0.5, 0.0], [1.0, 0.0, math.nan]]


@pytest.fixture
def load(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("datasets.config.HF_MODULES_CACHE", str(tmp_path))
    return lambda name: evaluate.load(str(root / "metrics" / name), cache_dir=str(tmp_path))


def test_hit_at_k(load: Any) -> None:
    """Right; second best; an even choice of best and second; the only measured two, scored the wrong way round."""
    metric = load("hit_at_k")
    assert metric.compute(predictions=SCORES, references=REWARDS) == {"hit_at_k": (1 + 0 + 0.5 + 0) / 4}
    assert metric.compute(predictions=SCORES, references=REWARDS, k=2) == {"hit_at_k": 1.0}
    batches = load("hit_at_k")
    for scores, rewards in zip(SCORES, REWARDS, strict=True):
        batches.add(prediction=scores, reference=rewards)
    assert batches.compute() == {"hit_at_k": 0.375}


def test_regret(load: Any) -> None:
    found = load("regret").compute(predictions=SCORES, references=REWARDS)
    assert found == {"regret": (0 + 0.5 + 0.25 + 1.0) / 4}
    rng = np.random.default_rng(0)
    scores, rewards = rng.normal(size=(50, 7)), rng.normal(size=(50, 7))
    found = load("regret").compute(predictions=scores.tolist(), references=rewards.tolist())
    assert found["regret"] == pytest.approx(core.regret(scores, rewards).mean(), abs=1e-12)


def test_math_accuracy(load: Any) -> None:
    """Right, wrong, and a reference that nobody can read."""
    metric = load("math_accuracy")
    found = metric.compute(predictions=["It is \\boxed{0.5}.", "7", "7"], references=["1/2", "8", "?"])
    assert found == {"accuracy": 0.5, "unjudged": 1}
    assert metric.compute(predictions=["7"], references=["?"]) == {"accuracy": None, "unjudged": 1}


@pytest.mark.parametrize("name", ["hit_at_k", "regret", "math_accuracy"])
def test_the_examples_are_true(load: Any, name: str) -> None:
    metric = load(name)
    lines = metric.inputs_description.splitlines()
    (call,) = (line.partition("metric.compute")[2] for line in lines if "metric.compute" in line)
    assert eval(f"metric.compute{call}") == eval(lines[-1])  # noqa: S307  # our own text
