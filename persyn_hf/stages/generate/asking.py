"""Ask teachers through the journal, and read from it what a step has got.

Every sample of every cell is a `Request` with a key: the digest of model, engine, prompt and sampling. The journal is
a table from keys to answers that all recipes of a store share. Asking a teacher means: make the requests, look up
their keys, and send to the engine only those without an answer. Reading means: look up all keys. So a step reads the
same samples whether this run asked for them, a killed run before it, or another strategy.

Example: a pool of two prompts, p1 and p2, both assigned to teacher A, with `samples: 2` and `escalate: 1`.

- Round 0, `ask(A, [p1, p2], 0)`: four requests. The journal has three answers, left by a killed run; one is sent. With
  `stop_when_correct` the first sample of p1 and p2 would be asked first, the second only of the prompt that failed.
- `failed([p1, p2])` reads and grades the answers: p2 has no right one.
- Round 1, `ask(B, [p2], 1)`: two more requests, both sent. The rows of these responses have `round` 1.
- `samples` yields the six samples. `new` says how many answers this run has paid for, here one of A's and two of B's.

Prompts are known by the numbers of their rows, 8 bytes each; requests and answers are in memory a thousand cells at a
time. So a step of ten million prompts needs no more than some hundred megabytes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from persyn_hf.backends.answers import Answer, Request
from persyn_hf.backends.dataset_rows import NameIndex, Rows
from persyn_hf.backends.engines import Engine
from persyn_hf.backends.engines import ask as journalled
from persyn_hf.backends.engines.batch.notes import Sender
from persyn_hf.backends.engines.open_engine import open_engine, open_local
from persyn_hf.backends.engines.samples import Sample, is_right, split_response
from persyn_hf.backends.engines.settings import BY_SERVER
from persyn_hf.backends.grading.journalled import Grader
from persyn_hf.backends.grading.verdicts import row_of
from persyn_hf.backends.journal import Journal
from persyn_hf.core.arrays import BoolArray, IntArray
from persyn_hf.errors import RecipeError
from persyn_hf.recipe.roles import Teacher
from persyn_hf.stage import Context
from persyn_hf.stages.generate.budget import open_budget
from persyn_hf.stages.generate.graded import can_be_graded
from persyn_hf.stages.generate.reading import Asked, Reading, in_cells
from persyn_hf.stages.generate.requests import CellRequests, Prompt, cell_requests
from persyn_hf.stages.generate.settings import Settings, engine_options, num_samples


if TYPE_CHECKING:
    from datasets import Dataset


class Asking:
    """The asking of one `generate` step: its journal, grader and budget, and what each teacher was asked so far.

    index: of the names of `prompts`.
    """

    def __init__(
        self,
        settings: Settings,
        context: Context,
        journal: Journal,
        grader: Grader | None,
        prompts: "Dataset",
        index: NameIndex,
    ) -> None:
        self._settings, self._context = settings, context
        self._journal, self._grader = journal, grader
        folder = journal.path.parent
        self._folders: dict[str, Any] = {"log_dir": folder / "logs", "state_dir": folder / "unfinished"}
        self._prompts, self._index = Rows(prompts), index
        self._reading = Reading(settings=settings, journal=journal, grader=grader)
        self.asked: dict[str, Asked] = {}
        self._budget = open_budget(settings, context, journal)

    def expect(self, teacher: Teacher, num_prompts: int) -> None:
        """Show a teacher, whose turn comes later, to `persyn status`."""
        total = num_prompts * num_samples(self._settings, teacher)
        tally = journalled.Tally(teacher=teacher.name, progress=self._context.progress, total=total)
        self.asked[teacher.name] = Asked(teacher=teacher, tally=tally)
        tally.add(0)

    def check_key(self, teacher: Teacher, rows: IntArray) -> None:
        """Refuse a missing API key before another teacher spends hours; answers in the journal need none.

        Raises:
            RecipeError: the teacher's server wants a key that is not set, and some prompt is not answered yet.
        """
        options = engine_options(self._settings, teacher)
        if options["kind"] not in BY_SERVER:
            return
        try:
            options["server"].api_key()
        except RecipeError:
            with open_local(**self._folders, **options) as engine:
                for _, pairs in in_cells(self._cells(engine, teacher, rows)):
                    if len(self._journal.answered(request.key for request, _ in pairs)) < len(pairs):
                        raise

    def ask_all(self, cells: Mapping[str, IntArray], round: int) -> None:
        """Have the cells of several teachers (name -> rows of the prompts, ascending) answered.

        Batches of all teachers are sent first. Those who answer at once are asked while the batches go on, and what
        is waited for at last goes on together. `round` and what is raised are as of `ask`, and further:

        Raises:
            UnderWay: batches are under way, and the run is not to wait for them; all others are asked.
        """
        asked = [teacher for teacher in self._context.teachers if teacher.name in cells]
        later = [teacher for teacher in asked if engine_options(self._settings, teacher)["kind"] == "batch"]
        for teacher in later:
            self._send(teacher, cells[teacher.name])
        ordered = [*(teacher for teacher in asked if teacher not in later), *later]
        journalled.together(partial(self.ask, teacher, cells[teacher.name], round) for teacher in ordered)

    def _send(self, teacher: Teacher, rows: IntArray) -> None:
        """Send the batches of a teacher, of the samples that it is asked first; `ask` collects them."""
        with self._open(teacher) as engine:
            engine.when_waiting(self._context.progress.waiting)
            cells = self._cells(engine, teacher, rows)
            if self._settings.stop_when_correct:
                cells = cells.of(rows, range(1))
            journalled.send(
                self._reading.without_shorter(cells),
                engine,
                self._journal,
                self._budget,
                teacher.name,
                rerun_errors="errors" in self._settings.rerun,
            )

    def _open(self, teacher: Teacher) -> Engine:
        """Open a teacher's engine; nothing is loaded or sent yet."""
        limits, options = self._context.limits, engine_options(self._settings, teacher)
        sender = Sender(recipe=self._context.recipe, payee=teacher.name, waits=limits.wait_for_batches)
        return open_engine(self._settings.executor, sender=sender, **self._folders, **options)

    def ask(self, teacher: Teacher, rows: IntArray, round: int) -> None:
        """Have the samples of a teacher's cells, prompts by their rows, answered in the journal.

        All are asked at once; or, with `stop_when_correct`, the first sample of every prompt, then the second of those
        without a right answer, and so on. `round` is 0 for assigned cells, k for the k-th teacher tried after them.

        Raises:
            BudgetReached: the limits allow no more; what was answered is in the journal.
            EngineError: the teacher cannot be run, or too many of its answers failed.
        """
        if teacher.name not in self.asked:
            self.expect(teacher, 0)
        asked = self.asked[teacher.name]
        with self._open(teacher) as engine:
            engine.when_waiting(self._context.progress.waiting)
            fresh = self._cells(engine, teacher, rows)
            asked.add(fresh, round)
            asked.params_b, asked.engine = teacher.params_b or engine.params_b, engine
            self._count_earlier(asked, fresh)
            if round:
                asked.tally.total += len(fresh)
            if not self._settings.stop_when_correct:
                self._answer(engine, asked, fresh)
                return
            left, samples = rows, len(fresh.samples)
            for index in range(samples):
                cells = fresh.of(left, range(index, index + 1))
                self._answer(engine, asked, cells)
                right = self._reading.right(asked, cells)
                asked.tally.total -= (samples - index - 1) * int(right.sum())
                left = left[~right]

    def was_asked(self, teacher: str, rows: IntArray) -> BoolArray:
        """Say of each prompt, by its row, whether this step has asked a teacher about it."""
        asked = self.asked.get(teacher)
        if asked is None or asked.cells is None:
            return np.zeros(len(rows), dtype=bool)
        return np.isin(rows, asked.cells.rows)

    @property
    def num_escalated(self) -> int:
        """Return the number of cells that were asked in addition to the assigned ones."""
        return sum(int((asked.rounds > 0).sum()) for asked in self.asked.values())

    def failed(self, rows: IntArray) -> IntArray:
        """Return those of some prompts to which no answer is right, and of which an answer is wrong or all are errors.

        Prompts are given by their rows. A prompt whose only answers without error could not be judged has not failed.
        An answer that was cut off is not right.
        """
        right, wrong, unjudged = (np.zeros(len(self._prompts), dtype=bool) for _ in range(3))
        for _, samples in self.samples(list(self.asked), rows):
            told = [sample for sample in samples if sample.entry.error is None]
            for row, sample in zip(self._index.rows([s.prompt["prompt_id"] for s in told]), told, strict=True):
                verdicts = {True: right, False: wrong, None: unjudged}
                verdict = is_right(sample) if sample.is_correct else sample.is_correct
                verdicts[verdict][row] = True
        return rows[~right[rows] & (wrong[rows] | ~unjudged[rows])]

    def samples(self, teachers: Sequence[str], rows: IntArray | None = None) -> Iterator[tuple[str, list[Sample]]]:
        """Yield the graded samples of one teacher after another, in the order of the prompts, some cells at a time.

        rows: of the prompts whose samples are wanted; null is all.
        """
        for name in teachers:
            asked = self.asked.get(name)
            if asked is not None and asked.cells is not None:
                wanted = None if rows is None else np.flatnonzero(np.isin(asked.cells.rows, rows))
                for places, pairs in in_cells(asked.cells, wanted):
                    rounds = np.repeat(asked.rounds[places], len(asked.cells.samples))
                    yield name, self._reading.read(asked, pairs, rounds)

    def _cells(self, engine: Engine, teacher: Teacher, rows: IntArray) -> CellRequests:
        """Return the requests of a teacher's cells, one per sample."""

        def make(prompt: Prompt, samples: Iterable[int]) -> list[Request]:
            return cell_requests(self._settings, self._context.seed, engine, teacher, prompt, samples)

        return CellRequests(make, self._prompts, rows, range(num_samples(self._settings, teacher)))

    def _answer(self, engine: Engine, asked: Asked, requests: CellRequests) -> None:
        """Have requests answered, except those for which a shorter answer stands."""
        settings = self._settings
        open_requests = self._reading.without_shorter(requests)
        asked.tally.add(len(requests) - len(open_requests))
        asked.new += journalled.answer(
            open_requests,
            engine,
            self._journal,
            self._budget,
            asked.tally,
            batch_tokens=settings.batch_tokens,
            max_error_rate=settings.max_error_rate,
            rerun_errors="errors" in settings.rerun,
            arrived=self._arrived,
        )

    def _arrived(self, answers: Sequence[Answer]) -> None:
        """Have new answers graded in the background while teachers go on answering."""
        if self._grader is None:
            return
        told = [answer for answer in answers if answer.error is None]
        prompts = self._prompts.at(self._index.rows([answer.request.prompt_id for answer in told]))
        rows = [
            row_of(prompt, split_response(answer.request, answer, self._settings.think_tags)[0])
            for prompt, answer in zip(prompts, told, strict=True)
            if can_be_graded(self._grader, prompt)
        ]
        if rows:
            self._grader.submit(rows)

    def _count_earlier(self, asked: Asked, cells: CellRequests) -> None:
        """Count what answers took that earlier runs left uncounted: a limit on money needs to know."""
        if self._context.limits.max_cost is not None and self._budget.uncounted(asked.teacher.name):
            for _, pairs in in_cells(cells):
                self._reading.entries(asked, {request.key: request for request, _ in pairs})
            self._budget = open_budget(self._settings, self._context, self._journal)
