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
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from persyn_hf.backends.answers import Answer, Entry, Request
from persyn_hf.backends.engines import Engine
from persyn_hf.backends.engines import ask as journalled
from persyn_hf.backends.engines.batch.notes import Sender
from persyn_hf.backends.engines.counting import fill, is_uncounted
from persyn_hf.backends.engines.open_engine import open_engine, open_local
from persyn_hf.backends.engines.samples import Sample, is_right, split_response, to_sample
from persyn_hf.backends.engines.settings import BY_SERVER
from persyn_hf.backends.grading.journalled import Grader
from persyn_hf.backends.grading.verdicts import row_of
from persyn_hf.backends.journal import Journal
from persyn_hf.errors import RecipeError
from persyn_hf.recipe.roles import Teacher
from persyn_hf.stage import Context
from persyn_hf.stages.generate.budget import open_budget
from persyn_hf.stages.generate.graded import can_be_graded, grade
from persyn_hf.stages.generate.requests import Prompt, cell_requests
from persyn_hf.stages.generate.settings import Settings, engine_options, num_samples


T = TypeVar("T")

AT_A_TIME = 1000  # cells whose answers are in memory together


@dataclass(kw_only=True)
class Asked:
    """The record of what one teacher was asked in this step."""

    teacher: Teacher
    tally: journalled.Tally
    requests: dict[str, list[Request]] = field(default_factory=dict)  # prompt_id -> one request per sample
    rounds: dict[str, int] = field(default_factory=dict)  # prompt_id -> round in which it was asked; 0: assigned
    # With `rerun: truncated`: key of a request -> key of the same request with a smaller `max_tokens`, whose answer
    # came to its end and stands for it.
    stands: dict[str, str] = field(default_factory=dict)
    params_b: float | None = None  # billions of active parameters
    engine: Engine | None = None  # that was opened last; it is closed
    new: int = 0  # answers that this run has paid for


class Asking:
    """The asking of one `generate` step: its journal, grader and budget, and what each teacher was asked so far."""

    def __init__(self, settings: Settings, context: Context, journal: Journal, grader: Grader | None) -> None:
        self._settings, self._context = settings, context
        self._journal, self._grader = journal, grader
        folder = journal.path.parent
        self._folders: dict[str, Any] = {"log_dir": folder / "logs", "state_dir": folder / "unfinished"}
        self._prompts: dict[str, Prompt] = {}
        self.asked: dict[str, Asked] = {}
        self._budget = open_budget(settings, context, journal)

    def expect(self, teacher: Teacher, num_prompts: int) -> None:
        """Show a teacher, whose turn comes later, to `persyn status`."""
        total = num_prompts * num_samples(self._settings, teacher)
        tally = journalled.Tally(teacher=teacher.name, progress=self._context.progress, total=total)
        self.asked[teacher.name] = Asked(teacher=teacher, tally=tally)
        tally.add(0)

    def check_key(self, teacher: Teacher, prompts: Sequence[Prompt]) -> None:
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
                requests = [request for row in prompts for request in self._requests(engine, teacher, row)]
            for some in _chunks(requests):
                if len(self._journal.answered(request.key for request in some)) < len(some):
                    raise

    def ask_all(self, cells: Mapping[str, Sequence[Prompt]], round: int) -> None:
        """Have the cells of several teachers (name -> prompts) answered.

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

    def _send(self, teacher: Teacher, prompts: Sequence[Prompt]) -> None:
        """Send the batches of a teacher, of the samples that it is asked first; `ask` collects them."""
        with self._open(teacher) as engine:
            engine.when_waiting(self._context.progress.waiting)
            samples = 1 if self._settings.stop_when_correct else None
            requests = [r for row in prompts for r in self._requests(engine, teacher, row)[:samples]]
            stands = self._shorter(requests)
            journalled.send(
                [request for request in requests if request.key not in stands],
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

    def ask(self, teacher: Teacher, prompts: Sequence[Prompt], round: int) -> None:
        """Have the samples of a teacher's cells answered in the journal.

        All are asked at once; or, with `stop_when_correct`, the first sample of every prompt, then the second of those
        without a right answer, and so on. `round` is 0 for assigned cells, k for the k-th teacher tried after them.

        Raises:
            BudgetReached: the limits allow no more; what was answered is in the journal.
            EngineError: the teacher cannot be run, or too many of its answers failed.
        """
        if teacher.name not in self.asked:
            self.expect(teacher, 0)
        asked = self.asked[teacher.name]
        self._prompts |= {row["prompt_id"]: row for row in prompts}
        with self._open(teacher) as engine:
            engine.when_waiting(self._context.progress.waiting)
            fresh = {row["prompt_id"]: self._requests(engine, teacher, row) for row in prompts}
            asked.requests |= fresh
            asked.rounds |= dict.fromkeys(fresh, round)
            asked.params_b, asked.engine = teacher.params_b or engine.params_b, engine
            self._count_earlier(asked, fresh)
            if round:
                asked.tally.total += sum(len(requests) for requests in fresh.values())
            if not self._settings.stop_when_correct:
                self._answer(engine, asked, [request for requests in fresh.values() for request in requests])
                return
            left = fresh
            for index in range(num_samples(self._settings, teacher)):
                self._answer(engine, asked, [requests[index] for requests in left.values()])
                right = self._right(asked, [requests[index] for requests in left.values()])
                asked.tally.total -= sum(len(requests) - index - 1 for p, requests in left.items() if p in right)
                left = {prompt_id: requests for prompt_id, requests in left.items() if prompt_id not in right}

    def was_asked(self, teacher: str, prompt_id: str) -> bool:
        """Say whether this step has asked a teacher a prompt."""
        return teacher in self.asked and prompt_id in self.asked[teacher].requests

    @property
    def num_escalated(self) -> int:
        """Return the number of cells that were asked in addition to the assigned ones."""
        return sum(round > 0 for asked in self.asked.values() for round in asked.rounds.values())

    def failed(self, prompt_ids: Sequence[str]) -> set[str]:
        """Return the prompts to which no answer is right, and of which an answer is wrong or all are errors.

        A prompt whose only answers without error could not be judged has not failed. An answer that was cut off is not
        right.
        """
        right, wrong, unjudged = set[str](), set[str](), set[str]()
        for _, samples in self.samples(list(self.asked), prompt_ids):
            for sample in samples:
                if sample.entry.error is None:
                    verdicts = {True: right, False: wrong, None: unjudged}
                    verdict = is_right(sample) if sample.is_correct else sample.is_correct
                    verdicts[verdict].add(sample.prompt["prompt_id"])
        return {p for p in prompt_ids if p not in right and (p in wrong or p not in unjudged)}

    def samples(self, teachers: Sequence[str], order: Sequence[str]) -> Iterator[tuple[str, list[Sample]]]:
        """Yield the graded samples of one teacher after another, in this order of prompts, some cells at a time."""
        for name in teachers:
            if name in self.asked:
                asked = self.asked[name]
                for ids in _chunks([p for p in order if p in asked.requests]):
                    yield name, self._read(asked, [request for p in ids for request in asked.requests[p]])

    def _requests(self, engine: Engine, teacher: Teacher, prompt: Prompt) -> list[Request]:
        return cell_requests(self._settings, self._context.seed, engine, teacher, prompt)

    def _answer(self, engine: Engine, asked: Asked, requests: Sequence[Request]) -> None:
        """Have requests answered, except those for which a shorter answer stands (`Asked.stands`)."""
        settings = self._settings
        asked.stands |= self._shorter(requests)
        open_requests = [request for request in requests if request.key not in asked.stands]
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

    def _shorter(self, requests: Sequence[Request]) -> dict[str, str]:
        """Find the requests for which a shorter answer stands, as `Asked.stands` has them."""
        rerun = self._settings.rerun
        found: dict[str, str] = {}
        for some in _chunks(requests) if "truncated" in rerun else ():
            found |= self._journal.finished_shorter(some, errors="errors" not in rerun)
        return found

    def _arrived(self, answers: Sequence[Answer]) -> None:
        """Have new answers graded in the background while teachers go on answering."""
        if self._grader is None:
            return
        rows = []
        for answer in answers:
            prompt = self._prompts[answer.request.prompt_id]
            if answer.error is None and can_be_graded(self._grader, prompt):
                rows.append(row_of(prompt, split_response(answer.request, answer, self._settings.think_tags)[0]))
        if rows:
            self._grader.submit(rows)

    def _count_earlier(self, asked: Asked, cells: Mapping[str, Sequence[Request]]) -> None:
        """Count what answers took that earlier runs left uncounted: a limit on money needs to know."""
        if self._context.limits.max_cost is not None and self._budget.uncounted(asked.teacher.name):
            for some in _chunks([request for requests in cells.values() for request in requests]):
                self._entries(asked, {request.key: request for request in some})
            self._budget = open_budget(self._settings, self._context, self._journal)

    def _entries(self, asked: Asked, requests: Mapping[str, Request]) -> dict[str, Entry]:
        """Read answers by key; tokens that a server has not counted are counted here, where that can be."""
        entries = self._journal.read(requests)
        if asked.engine is None or not any(map(is_uncounted, entries.values())):
            return entries
        return fill(asked.engine.counter, self._journal, requests, entries)

    def _right(self, asked: Asked, requests: Sequence[Request]) -> set[str]:
        """Return the prompt_ids of the requests whose answer is correct, and may be trained on."""
        samples = (sample for some in _chunks(requests) for sample in self._read(asked, some))
        return {sample.prompt["prompt_id"] for sample in samples if is_right(sample)}

    def _read(self, asked: Asked, requests: Sequence[Request]) -> list[Sample]:
        """Read the answers of requests as graded samples.

        With `stop_when_correct` a cell's samples end with its first correct one. The journal may hold later ones,
        because another strategy has asked for all of them.
        """
        keys = [asked.stands.get(request.key, request.key) for request in requests]
        entries = self._entries(asked, dict(zip(keys, requests, strict=True)))
        answered = [
            to_sample(
                self._prompts[request.prompt_id],
                request,
                entries[key],
                asked.rounds[request.prompt_id],
                self._settings.think_tags,
            )
            for request, key in zip(requests, keys, strict=True)
            if key in entries or not self._settings.stop_when_correct
        ]
        samples = grade(self._grader, answered) if self._grader is not None else answered
        if not self._settings.stop_when_correct:
            return samples
        kept, right = [], set[str]()
        for sample in samples:
            if sample.prompt["prompt_id"] not in right:
                kept.append(sample)
            if is_right(sample):
                right.add(sample.prompt["prompt_id"])
        return kept


def _chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Cut a sequence into parts of `AT_A_TIME`."""
    return (items[start : start + AT_A_TIME] for start in range(0, len(items), AT_A_TIME))
