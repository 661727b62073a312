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
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from persyn_hf.backends.answers import Answer, Batch, Request
from persyn_hf.backends.engines import Engine
from persyn_hf.backends.engines.batch.notes import Notes
from persyn_hf.backends.engines.counting import fill_answers, is_uncounted
from persyn_hf.backends.engines.limits import Budget
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
    """The batches up to the first one that the budget does not allow; `taken` is their number."""

    def __init__(self, batches: Sequence[Batch], teacher: str, budget: Budget) -> None:
        self._batches, self._teacher, self._budget = batches, teacher, budget
        self.taken = 0

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._batches:
            if not self._budget.reserve(self._teacher, batch):
                return
            self.taken += 1
            yield batch


def answer(
    requests: Sequence[Request],
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
    step = _step(requests, batch_tokens, rerun_errors) if engine.fixed_batches else None
    todo = _todo(requests, engine, journal, step, rerun_errors)
    _check_not_under_way(todo, engine, journal, called)
    if engine.collects_from is not None:  # what is paid for comes first, whatever the limits leave for the rest
        todo.sort(key=lambda batch: not budget.is_under_way(batch))
    left = sum(len(batch) for batch in todo)
    progress.start(called.what, len(requests), len(requests) - left)
    tally.begin(len(requests) - left)
    errors: Counter[str] = Counter()
    new = 0
    while todo:
        affordable = _Affordable(todo, teacher, budget)
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
            raise budget.stop(teacher, todo[0], left)
        todo = todo[affordable.taken :]
    if left:
        raise EngineError(f"{called.who}: its engine ended with {left} requests unanswered; run again")
    if step is not None:
        journal.drop_plan(step)
    return new


def send(
    requests: Sequence[Request], engine: Engine, journal: Journal, budget: Budget, teacher: str, *, rerun_errors: bool
) -> None:
    """Have an engine send ahead what is to be answered, as far as the budget allows: `answer` collects it."""
    todo = _todo(requests, engine, journal, None, rerun_errors)
    _check_not_under_way(todo, engine, journal, of_teacher(teacher))
    engine.send(_Affordable(todo, teacher, budget))


def _check_not_under_way(todo: Sequence[Batch], engine: Engine, journal: Journal, called: Named) -> None:
    """Refuse to ask what is under way in batches that the engine does not collect: both would be paid for.

    Raises:
        EngineError: says where they are.
    """
    missing = {request.key for batch in todo for request in batch}
    notes = Notes.beside(journal.path)
    others = [note for note in notes.holding(missing) if note.service != engine.collects_from] if missing else []
    if others:
        number = len(missing & {key for note in others for key in note.keys})
        files = " and ".join(str(notes.path(note)) for note in others[:3]) + (" and others" if others[3:] else "")
        raise EngineError(
            f"{called.who}: {number:,} of the answers that are missing are under way in batches at "
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


def _step(requests: Sequence[Request], batch_tokens: int, rerun_errors: bool) -> str:
    keys = sorted(request.key for request in requests)
    return hashlib.sha256(json.dumps([keys, batch_tokens, rerun_errors]).encode()).hexdigest()


def _todo(
    requests: Sequence[Request], engine: Engine, journal: Journal, step: str | None, rerun_errors: bool
) -> list[Batch]:
    """Return the batches that the journal has no answer to.

    Where answers depend on their batch (`step`), the batches are fixed at the first start of the step. A resumed run
    keeps to that plan, skips the batches that are answered and asks the others whole.
    """
    by_key = {request.key: request for request in requests}
    answered = journal.answered(by_key, errors=not rerun_errors)
    missing = [request for key, request in by_key.items() if key not in answered]
    if step is None:
        return engine.plan(missing)
    plan = journal.plan(step, lambda: engine.plan(missing))
    return [[by_key[key] for key in batch] for batch in plan if not answered.issuperset(batch)]


def _refuse_silence(answer: Answer) -> Answer:
    """Turn an empty answer into an error: it cannot be graded, scored or trained on, and a rerun may ask again."""
    if answer.error is not None or is_cut(answer.finish_reason) or answer.text.strip() or answer.reasoning:
        return answer
    return replace(answer, text="", finish_reason="error", error="the answer is empty")
