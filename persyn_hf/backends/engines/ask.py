"""Ask an engine through the journal: what it holds is not asked again, what is new is written before anything else.

Answers arrive in any order and a run may be killed at any time, so the order of the work is strict. Requests become
batches; a batch goes to the engine only if the budget allows it; its answers are first written to the journal, then
settled in the budget, and only then graded and counted. For an engine whose answers depend on the batch
(`fixed_batches`), the batches are part of the question, so the journal keeps their plan. An example:

    requests a b c d e              the journal knows e from another step
    plan, made and stored once      [a b] [c d]
    run 1 writes a b, is killed     c and d were generated, but are not in the journal: they are lost
    run 2 reads the same plan       [a b] is answered; [c d] is asked again whole, with the same seed
    nothing is left                 the plan is dropped

A budget that allows [a b] but not [c d] as well reserves the most that a and b can cost, so the engine sees the end of
its batches after [a b]. When a and b are settled at what they did cost, [c d] is tried once more; only a batch that
does not fit while nothing is in flight ends the run (`BudgetReached`).

Requests are not held: they are made once to see which are answered, and those that are not once more when they are
sent. Between the two the driver keeps a number of 8 bytes for each that is to be asked.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from persyn_hf.backends.answers import Answer, Batch, Requests
from persyn_hf.backends.dataset_rows import in_parts
from persyn_hf.backends.engines import Engine
from persyn_hf.backends.engines.batch.notes import Notes
from persyn_hf.backends.engines.counting import fill_answers, is_uncounted
from persyn_hf.backends.engines.limits import Budget
from persyn_hf.backends.engines.planned import Keys, fixed_batches
from persyn_hf.backends.journal import Journal
from persyn_hf.core.endings import is_cut
from persyn_hf.errors import EngineError, UnderWay
from persyn_hf.stage import Progress


T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Named:
    """What messages call who is asked, and the setting that bounds its errors."""

    who: str
    what: str  # its work, for the progress
    bound: str = "generate.max_error_rate"


@dataclass(kw_only=True)
class Tally:
    """The progress of one teacher in one step, for `persyn status`. The journal books its answers on this name."""

    teacher: str
    progress: Progress
    total: int
    done: int = 0
    errors: Counter[str] = field(default_factory=Counter)  # reason -> number, of this run

    def begin(self, done: int) -> None:
        """Note that the teacher's turn has come, and that `done` answers were there before."""
        self.done += done
        now = {"begun": time.time(), "before": self.done}
        self.progress.tally(self.teacher, done=self.done, total=self.total, errors=dict(self.errors), **now)

    def add(self, done: int, errors: Sequence[str] = ()) -> None:
        """Count `done` further answers, of which those in `errors` are errors with these reasons."""
        self.done += done
        self.errors.update(errors)
        self.progress.tally(self.teacher, done=self.done, total=self.total, errors=dict(self.errors))


class _Affordable:
    """The batches up to the first one that the budget does not allow; `next` is that one, None after the last.

    It may be read again: it goes on where it stopped. `taken` counts the batches.
    """

    def __init__(self, batches: Iterable[Batch], teacher: str, budget: Budget) -> None:
        self._batches, self._teacher, self._budget = iter(batches), teacher, budget
        self.next: Batch | None = next(self._batches, None)
        self.taken = 0

    def __iter__(self) -> Iterator[Batch]:
        while self.next is not None and self._budget.reserve(self._teacher, self.next):
            self.taken += 1
            batch, self.next = self.next, next(self._batches, None)
            yield batch


@dataclass(frozen=True, kw_only=True)
class _Todo:
    """The batches that are to be asked, made anew by each call, and the number of their requests."""

    number: int
    batches: Callable[[], Iterator[Batch]]
    step: str | None = None  # by which the journal knows the plan of fixed batches


def answer(
    requests: Requests,
    engine: Engine,
    journal: Journal,
    budget: Budget,
    tally: Tally,
    *,
    batch_tokens: int,
    max_error_rate: float,
    rerun_errors: bool,
    arrived: Callable[[Sequence[Answer]], None],
    named: Named | None = None,
) -> int:
    """Have every request answered in the journal, and return the number of answers that are new.

    `arrived` gets answers once they are journalled. `batch_tokens` is part of what a plan is known by; with
    `rerun_errors`, a journalled error counts as no answer. Without a name it is a teacher that is asked.

    Raises:
        BudgetReached: a limit allows no further batch; what was in flight is journalled.
        EngineError: the engine has failed, or too many requests have.
    """
    teacher, progress = tally.teacher, tally.progress
    called = named or of_teacher(teacher)
    todo = _todo(requests, engine, journal, batch_tokens, rerun_errors)
    _check_not_under_way(todo.batches(), engine, journal, called)
    left = todo.number
    progress.start(called.what, len(requests), len(requests) - left)
    tally.begin(len(requests) - left)
    errors: Counter[str] = Counter()
    new = 0
    affordable = _Affordable(_in_order(todo, engine, budget), teacher, budget)
    while affordable.next is not None:
        affordable.taken = 0
        for raw in engine.generate(affordable):
            answers = [_refuse_silence(said) for said in raw]
            try:
                new += journal.write(answers, teacher=teacher, supersede_errors=rerun_errors)
            except KeyboardInterrupt:  # a write that was cut is undone as a whole, and these answers are paid for
                journal.write(answers, teacher=teacher, supersede_errors=rerun_errors)
                raise
            if any(map(is_uncounted, answers)):
                answers = fill_answers(engine.counter, journal, answers)
            budget.settle(teacher, answers)
            arrived(answers)
            left -= len(answers)
            reasons = [said.error for said in answers if said.error is not None]
            tally.add(len(answers), reasons)
            progress.advance(len(answers))
            errors.update(reasons)
            check_errors(errors, len(requests), called, max_error_rate)
        if not affordable.taken:
            raise budget.stop(teacher, affordable.next, left)
    if left:
        raise EngineError(f"{called.who}: its engine ended with {left} requests unanswered; run again")
    if todo.step is not None:
        journal.drop_plan(todo.step)
    return new


def send(
    requests: Requests, engine: Engine, journal: Journal, budget: Budget, teacher: str, *, rerun_errors: bool
) -> None:
    """Have an engine send ahead what is to be answered, as far as the budget allows: `answer` collects it."""
    todo = _todo(requests, engine, journal, 0, rerun_errors)
    _check_not_under_way(todo.batches(), engine, journal, of_teacher(teacher))
    engine.send(_Affordable(todo.batches(), teacher, budget))


def _in_order(todo: _Todo, engine: Engine, budget: Budget) -> Iterable[Batch]:
    """Return the batches; where some are under way they come first, whatever the limits leave for the rest."""
    if engine.collects_from is None:
        return todo.batches()
    return sorted(todo.batches(), key=lambda batch: not budget.is_under_way(batch))


def _check_not_under_way(batches: Iterable[Batch], engine: Engine, journal: Journal, called: Named) -> None:
    """Refuse to ask what is under way in batches that the engine does not collect: both would be paid for.

    Raises:
        EngineError: says where they are.
    """
    notes = Notes.beside(journal.path)
    noted = {key for note in notes if note.service != engine.collects_from for key in note.keys}
    missing = {request.key for batch in batches for request in batch if request.key in noted} if noted else set()
    others = [note for note in notes.holding(missing) if note.service != engine.collects_from] if missing else []
    if others:
        files = " and ".join(str(notes.path(note)) for note in others[:3]) + (" and others" if others[3:] else "")
        raise EngineError(
            f"{called.who}: {len(missing):,} of the answers that are missing are under way in batches at "
            f"{others[0].service}, and would be paid for twice; collect them with `engine: batch` and that url, or "
            f"remove {files} to ask for them anew"
        )


def together(asking: Iterable[Callable[[], T]]) -> list[T]:
    """Ask several, and return what each returns: batches of one do not keep those of another from being collected.

    Raises:
        UnderWay: batches are under way, and the run is not to wait for them; all have been asked.
    """
    done: list[T] = []
    left: list[str] = []
    for ask in asking:
        try:
            done.append(ask())
        except UnderWay as batches:
            left.append(str(batches))
    if left:
        raise UnderWay("; ".join(left))
    return done


def of_teacher(teacher: str) -> Named:
    """Return what messages call a teacher."""
    return Named(who=f"teacher `{teacher}`", what=f"generate {teacher}")


def check_errors(errors: Mapping[str, int], total: int, called: Named, max_error_rate: float) -> None:
    """Raise `EngineError` as soon as it is certain that too large a share of `total` requests fails."""
    counted = Counter(errors)
    if counted.total() > max_error_rate * total:
        reason, times = counted.most_common(1)[0]
        raise EngineError(
            f"{called.who}: {counted.total()} of {total} responses failed, the bound `{called.bound}` "
            f"is {max_error_rate}; {times} times: {reason}. Mend the cause and run again with --rerun errors, "
            "or raise the bound"
        )


def _todo(requests: Requests, engine: Engine, journal: Journal, batch_tokens: int, rerun_errors: bool) -> "_Todo":
    """Find the requests that the journal has no answer to; a key that several have is asked once.

    Where answers depend on their batch (`fixed_batches`), the batches are fixed at the first start of the step. A
    resumed run keeps to that plan, skips the batches that are answered and asks the others whole.
    """
    whole = engine.fixed_batches
    keys, open_numbers = Keys(len(requests), whole=whole), [np.zeros(0, np.int64)]
    for numbers in in_parts(np.arange(len(requests))):
        some = [request.key for request in requests.take(numbers)]
        keys.add(some)
        answered = journal.answered(some, errors=not rerun_errors)
        open_numbers.append(numbers[[key not in answered for key in some]])
    missing = keys.once(np.concatenate(open_numbers))
    if not whole:
        return _Todo(number=len(missing), batches=lambda: ([request] for request in requests.take(missing)))
    step = keys.step(batch_tokens, rerun_errors)
    number, batches = fixed_batches(step, requests, keys, missing, engine, journal, rerun_errors)
    return _Todo(number=number, batches=batches, step=step)


def _refuse_silence(answer: Answer) -> Answer:
    """Turn an empty answer into an error: it cannot be graded, scored or trained on, and a rerun may ask again."""
    if answer.error is not None or is_cut(answer.finish_reason) or answer.text.strip() or answer.reasoning:
        return answer
    return replace(answer, text="", finish_reason="error", error="the answer is empty")
