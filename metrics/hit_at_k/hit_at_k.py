"""Hit@k of a router, by the `evaluate` library: `evaluate.load("metrics/hit_at_k")`."""

import datasets
import evaluate
import numpy as np

from persyn_hf.core.metrics import hit_at_k
from persyn_hf.core.statistics import means


DESCRIPTION = """\
Share of prompts whose routed teacher, the one with the highest predicted score, has at least the k-th best measured
reward. Teachers with equal scores count as a random choice among them; cells that were not measured are NaN."""

INPUTS = """\
Args:
    predictions: list of lists of float, (num_prompts, num_teachers): the router's scores.
    references: list of lists of float, same shape: the measured rewards.
    k: int, 1 by default.
Returns:
    hit_at_k: float, 0 to 1.
Examples:
    >>> metric = evaluate.load("metrics/hit_at_k")
    >>> metric.compute(predictions=[[0.9, 0.1, 0.5], [0.2, 0.7, 0.1]], references=[[1.0, 0.0, 0.4], [0.9, 0.3, 0.0]])
    {'hit_at_k': 0.5}
"""


class HitAtK(evaluate.Metric):
    """See `DESCRIPTION`."""

    def _info(self) -> evaluate.MetricInfo:
        scores = datasets.List(datasets.Value("float64"))
        features = datasets.Features({"predictions": scores, "references": scores})
        return evaluate.MetricInfo(description=DESCRIPTION, citation="", inputs_description=INPUTS, features=features)

    def _compute(self, predictions: list[list[float]], references: list[list[float]], k: int = 1) -> dict[str, float]:
        hits = hit_at_k(predictions, references, k)
        return {"hit_at_k": float(means(np.asarray(hits)[:, None])[0])}
