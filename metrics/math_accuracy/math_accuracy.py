"""Accuracy of mathematical answers, by the `evaluate` library: `evaluate.load("metrics/math_accuracy")`."""

from typing import Any

import datasets
import evaluate

from persyn_hf.backends.grading.pool import Verifier


DESCRIPTION = """\
Share of answers that agree with their reference, judged by math-verify in worker processes, so that an answer which
would hang it costs its time-out and no more. What cannot be judged is counted apart, never as wrong."""

INPUTS = """\
Args:
    predictions: list of str: answers, with or without their working.
    references: list of str: reference answers.
    timeout_s: float, seconds of processor time for one answer, 5 by default.
    workers: int, processes, 1 by default.
Returns:
    accuracy: float, 0 to 1, over the judged answers; None: none could be judged.
    unjudged: int.
Examples:
    >>> metric = evaluate.load("metrics/math_accuracy")
    >>> metric.compute(predictions=["It is \\\\boxed{0.5}.", "7"], references=["1/2", "8"])
    {'accuracy': 0.5, 'unjudged': 0}
"""


class MathAccuracy(evaluate.Metric):
    """See `DESCRIPTION`."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        features = datasets.Features({"predictions": text, "references": text})
        return evaluate.MetricInfo(description=DESCRIPTION, citation="", inputs_description=INPUTS, features=features)

    def _compute(
        self, predictions: list[str], references: list[str], timeout_s: float = 5.0, workers: int = 1
    ) -> dict[str, Any]:
        with Verifier(workers=workers, timeout_s=timeout_s) as verifier:
            verdicts = verifier.grade(list(zip(references, predictions, strict=True)))
        judged = [verdict for verdict in verdicts if verdict is not None]
        return {
            "accuracy": sum(judged) / len(judged) if judged else None,
            "unjudged": len(verdicts) - len(judged),
        }
