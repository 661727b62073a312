"""Have the grader judge samples: those that can be judged, and have no verdict yet."""

from dataclasses import replace

from persyn_hf.backends.engines.samples import Sample
from persyn_hf.backends.grading.journalled import Grader
from persyn_hf.backends.grading.verdicts import row_of
from persyn_hf.stages.generate.requests import Prompt


def grade(grader: Grader, samples: list[Sample]) -> list[Sample]:
    """Judge the samples that can be graded and have no verdict yet; returns all samples, in order."""
    open_rows = [
        row
        for row, sample in enumerate(samples)
        if sample.entry.error is None and sample.is_correct is None and can_be_graded(grader, sample.prompt)
    ]
    judged = list(samples)
    verdicts = grader.judge([row_of(samples[row].prompt, samples[row].response) for row in open_rows])
    for row, verdict in zip(open_rows, verdicts, strict=True):
        assert verdict is None or isinstance(verdict, bool)  # a number is a verdict of `score` only
        judged[row] = replace(samples[row], is_correct=verdict)
    return judged


def can_be_graded(grader: Grader, prompt: Prompt) -> bool:
    """Tell whether a grader has what it needs to judge answers to a prompt."""
    return prompt["reference"] is not None or not grader.needs_reference
