"""Regret of a router, by the `evaluate` library: `evaluate.load("metrics/regret")`."""

import datasets
import evaluate
import numpy as np

from persyn_hf.core.metrics import regret
from persyn_hf.core.statistics import means


DESCRIPTION = """\
Mean over prompts of the best measured reward minus the reward of the routed teacher, the one with the highest
predicted score. 0 is the oracle. Equal scores count as a random choice; cells that were not measured are NaN."""

INPUTS = """\
Args:
    predictions: list of lists of float, (num_prompts, num_teachers): the router's scores.
    references: list of lists of float, same shape: the measured rewards.
Returns:
    regret: float, 0 or more, in units of the reward.
Examples:
    >>> metric = evaluate.load("metrics/regret")
    >>> metric.compute(predictions=[[0.9, 0.1, 0.5], [0.2, 0.7, 0.1]], references=[[1.0, 0.0, 0.4], [0.75, 0.25, 0.0]])
    {'regret': 0.25}
"""


class Regret(evaluate.Metric):
    """See `DESCRIPTION`."""

    def _info(self) -> evaluate.MetricInfo:
        scores = datasets.List(datasets.Value("float64"))
        features = datasets.Features({"predictions": scores, "references": scores})
        return evaluate.MetricInfo(description=DESCRIPTION, citation="", inputs_description=INPUTS, features=features)

    def _compute(self, predictions: list[list[float]], references: list[list[float]]) -> dict[str, float]:
        return {"regret": float(means(np.asarray(regret(predictions, references))[:, None])[0])}
