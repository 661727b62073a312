"""Evaluate a student by lm-evaluation-harness, on tasks that it ships or on questions that math-verify grades.

    questions.py   questions with reference answers, from a file or a dataset
    stock.py       tasks of the harness, their items from the Hub or from a file
    stock_items.py which metric and which filter of theirs counts, and an item's score
    ifeval.py      what IFEval's checks need
    student.py     what answers them, item by item
    answers.py     what is said: what fits, thoughts, stop texts, cuts
    lm.py          the student as a model of the harness
    work.py        what it is asked, and what is kept of its answers
    local.py       who answers: a student in this process
    served.py      a student under a vLLM server
    launched.py    students in processes on other machines
    recorded.py    answers that were given elsewhere
    summary.py     scores and their intervals

The harness builds the prompts, weighs choices and scores its own tasks; generation is ours. Grading by math-verify
comes after generation, for all items at once, in worker processes that can be killed: the harness would grade in its
own process, where math-verify can hang. Instead of `lm_eval.simple_evaluate`, the functions that it calls are used,
because it also scans all installed packages and asks the Hub for the model.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One item of a task with its answer. The score is 0 to 1, or None where it was not, or could not be, judged.

    `extracted` is what the task's filter took out of the prediction to judge it, where that is another text.
    """

    prompt: str
    reference: str | None
    prediction: str
    score: float | None
    reasoning: str | None = None
    extracted: str | None = None
    finish_reason: str | None = None  # stop, length, too_long; None: nothing was generated
    by_filter: list[float | None] = field(default_factory=list)  # scores, of a task with several filters
    parts: list[bool] = field(default_factory=list)  # of an item with several things to judge; `score` is their mean
