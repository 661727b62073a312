"""Evaluate a student by lm-evaluation-harness, on tasks that it ships or on questions that math-verify grades.

    questions.py   questions with reference answers, from a file or a dataset
    stock.py       tasks of the harness, their items from the Hub or from a file
    student.py     what answers them, item by item
    lm.py          a student in this process
    served.py      a student under a vLLM server
    recorded.py    answers that were given elsewhere
    summary.py     scores and their intervals

The harness builds the prompts, batches and generates, and it scores its own tasks. Grading by math-verify comes after
generation, for all items at once, in worker processes that can be killed: the harness would grade in its own process,
where math-verify can hang. Instead of `lm_eval.simple_evaluate`, the functions that it calls are used, because it also
scans all installed packages and asks the Hub for the model.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One item of a task with its answer. The score is 0 to 1, or None where it was not, or could not be, judged."""

    prompt: str
    reference: str | None
    prediction: str
    score: float | None
    parts: list[bool] = field(default_factory=list)  # of an item with several things to judge; `score` is their mean
