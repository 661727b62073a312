"""Have the judge or the command of `score.quality` say which of several samples is best (`choose_by: quality`).

Only samples that could be kept are judged: of a cell those that `contenders` names, where they differ. The questions
are those of `score`, which finds the verdicts on the kept samples in the journal.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from persyn_hf.backends.engines.samples import Sample, answered, contenders
from persyn_hf.backends.grading.numbered import number_all
from persyn_hf.backends.grading.verdicts import row_of
from persyn_hf.backends.journal import Journal
from persyn_hf.backends.judging.panel import hear_panel, means_of, verdicts_of
from persyn_hf.backends.judging.questions import Shown
from persyn_hf.core.cost import ledger
from persyn_hf.core.criteria import mix_criteria
from persyn_hf.stage import Context
from persyn_hf.stages.generate.settings import ChosenBy


Samples = tuple[str, list[Sample]]  # of a teacher


@dataclass(kw_only=True)
class Chosen:
    """The samples of all teachers, with a quality where they were judged, and what that took."""

    samples: Iterable[Samples]
    counts: dict[str, int] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)


def judge_samples(by: ChosenBy, context: Context, journal: Journal, chunks: Iterable[Samples]) -> Chosen:
    """Give each sample that contends for its cell a quality; it is None where it could not be judged.

    All answers of the step are in memory. Where a judge and a command both count, the qualities of a cell's samples
    are weighed as those of a prompt's teachers are.

    Raises:
        BudgetReached: the run's limits allow no more.
        EngineError: a judge cannot be run, or too many of its replies hold no verdict.
    """
    of_teachers = list(chunks)
    chosen = Chosen(samples=of_teachers)
    places = [(number, row) for number, (_, samples) in enumerate(of_teachers) for row in _contested(samples)]
    judged = [of_teachers[number][1][row] for number, row in places]
    said: dict[str, list[float | None]] = {}
    if by.judge is not None:
        shown = [Shown(prompt=sample.prompt, text=sample.response) for sample in judged]
        questions, panel = hear_panel(by.judge, context, journal, shown)
        said["judge"] = means_of(len(judged), questions, verdicts_of(questions, panel))
        faults = sum((heard.faults for heard in panel), Counter[str]())
        chosen.counts |= {f"unread_{fault}": number for fault, number in sorted(faults.items())}
        lines = ledger({heard.judge.payee: heard.cost for heard in panel}, {h.judge.payee: h.new for h in panel})
        chosen.cost["judges"] = lines["teachers"]
    if by.command.run:
        rows = [row_of(sample.prompt, sample.response) for sample in judged]
        said["command"] = number_all(by.command, journal, context.progress, rows)
    chosen.counts["samples_judged"] = len(judged)
    for (number, row), quality in zip(places, _weighed(by, said, places, judged), strict=True):
        samples = of_teachers[number][1]
        samples[row] = replace(samples[row], quality=quality)
    return chosen


def _contested(samples: Sequence[Sample]) -> list[int]:
    """Return the rows of the samples whose cells have several answers to choose from."""
    rows = (contenders(samples, cell) for cell in answered(samples).values())
    return [row for some in rows if len({samples[row].response for row in some}) > 1 for row in some]


def _weighed(
    by: ChosenBy,
    said: Mapping[str, Sequence[float | None]],
    places: Sequence[tuple[int, int]],
    judged: Sequence[Sample],
) -> Sequence[float | None]:
    """Return one quality per sample: what the only criterion says, or what several make, within each cell."""
    if len(said) == 1:
        (values,) = said.values()
        return values
    columns: dict[str, Sequence[Any]] = {
        "prompt_id": [
            f"{number} {sample.prompt['prompt_id']}" for (number, _), sample in zip(places, judged, strict=True)
        ],
        "teacher": [str(sample.index) for sample in judged],
    }
    return mix_criteria(columns, said, {name: by.weights[name] for name in said})
