"""Ask a judge through the journal, and read its verdicts.

A judge is asked as a teacher is: by the same engines, under the same limits, and each reply is in the journal before
anything reads it. So a killed run asks nothing twice, and another alpha, student or panel asks only what is new.

Structured output is asked for in the forms of `structured.formats`, one after another. The first question goes out
alone; where its error says that the server does not know the form, no other question is sent in it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from persyn_hf.backends.answers import Answer, Entry, Listed, Request, Said
from persyn_hf.backends.engines import Engine, ask
from persyn_hf.backends.engines.batch.notes import NOBODY, Notes, Sender
from persyn_hf.backends.engines.counting import fill
from persyn_hf.backends.engines.limits import Budget
from persyn_hf.backends.engines.samples import add_known, split_response
from persyn_hf.backends.journal import Journal
from persyn_hf.backends.judging.opening import asked_formats, num_gpus, open_judge
from persyn_hf.backends.judging.questions import Question, make_requests
from persyn_hf.backends.judging.rubrics import Rubric
from persyn_hf.backends.judging.settings import Judge, JudgeSettings, engine_options
from persyn_hf.backends.judging.structured import Asked, is_refusal
from persyn_hf.backends.judging.verdicts import WINNER_FORM, Form, Verdict, read_reason, read_verdict, score_form
from persyn_hf.core.cost import Cost, answers_cost
from persyn_hf.core.endings import is_cut
from persyn_hf.errors import EngineError
from persyn_hf.stage import Progress
from persyn_hf.text import readable


Reply = tuple[Request, Entry]

SHOWN = 120  # characters of a reply in an error


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What a judge has said: the verdicts of each question, one per sample, and what they cost."""

    judge: Judge
    verdicts: list[list[Verdict]]
    reasons: list[list[str]]  # as `verdicts`: what the judge gives as its reason, "" where it says nothing
    cost: Cost
    new: int  # replies that this run has paid for

    @property
    def faults(self) -> Counter[str]:
        """The reasons of the replies without a verdict, with their numbers."""
        return Counter(verdict.fault for some in self.verdicts for verdict in some if verdict.fault is not None)

    @property
    def means(self) -> list[float | None]:
        """The mean verdict of each question, over the samples that have one; None where none has."""
        values = [[v.value for v in some if v.value is not None] for some in self.verdicts]
        return [sum(some) / len(some) if some else None for some in values]


@dataclass(kw_only=True)
class _Unread:
    """The replies of a judge that hold no verdict, of `total`; too many of them are refused."""

    settings: JudgeSettings
    named: ask.Named
    total: int
    faults: Counter[str] = field(default_factory=Counter)
    example: str = ""

    def add(self, fault: str, text: str) -> None:
        """Count one more. Raises `EngineError` as soon as it is certain that the share is too large."""
        self.example = self.example or text
        self.faults[fault] += 1
        number, bound = self.faults.total(), self.settings.max_error_rate
        if number > bound * self.total:
            kinds = ", ".join(f"{kind} {times}" for kind, times in self.faults.most_common())
            raise EngineError(
                f"{self.named.who}: {number} of {self.total} replies hold no verdict ({kinds}), the bound "
                f"`{self.named.bound}` is {bound:g}; one of them: {readable(self.example)[:SHOWN]!r}. Take another "
                "judge, rubric or `max_tokens`, or raise the bound: what was answered is kept"
            )


@dataclass(kw_only=True)
class Bench:
    """Where judges sit: all that their asking shares."""

    settings: JudgeSettings
    rubric: Rubric
    seed: int
    journal: Journal
    budget: Budget
    progress: Progress
    sender: Sender = NOBODY
    form: Form = field(init=False)
    _tried: Counter[str] = field(default_factory=Counter)  # judge -> replies to the question that goes out alone

    def __post_init__(self) -> None:
        self.form = WINNER_FORM if self.settings.mode == "pairwise" else score_form(*self.rubric.scale)

    def hear_all(self, judges: Sequence[Judge], questions: Sequence[Question]) -> list[Heard]:
        """Have several judges answer every question; batches of all are sent first. May raise as `hear` does."""
        for judge in judges:
            if engine_options(self.settings, judge)["kind"] == "batch":
                self._send(judge, questions)
        return ask.together(partial(self.hear, judge, questions) for judge in judges)

    def _send(self, judge: Judge, questions: Sequence[Question]) -> None:
        """Send the batches of a judge in the first form that its server knows; `hear` collects them."""
        forms, again = asked_formats(self.settings, judge), "errors" in self.settings.rerun
        for asked in forms if questions else ():
            if asked != forms[-1]:
                fresh, knows = self._try(judge, asked, questions, 0)
                self._tried[judge.payee] += fresh
                if not knows:
                    continue
            with self._open(judge, asked) as engine:
                engine.when_waiting(self.progress.waiting)
                requests = self._requests(engine, questions)
                ask.send(Listed(requests), engine, self.journal, self.budget, judge.payee, rerun_errors=again)
            return

    def hear(self, judge: Judge, questions: Sequence[Question]) -> Heard:
        """Have a judge answer every question, and read its verdicts.

        Raises:
            BudgetReached: the limits allow no more; what was answered is in the journal.
            EngineError: the judge cannot be run, or too many of its replies failed or hold no verdict.
        """
        named = _named(judge)
        replies, new, params_b = self._replies(judge, questions, named)
        new += self._tried.pop(judge.payee, 0)
        unread = _Unread(settings=self.settings, named=named, total=len(replies))
        verdicts = [self._verdict(request, entry) for request, entry in replies]
        for verdict, (_, entry) in zip(verdicts, replies, strict=True):
            if verdict.fault is not None:
                unread.add(verdict.fault, entry.error or entry.text)
        once = {request.key: entry for request, entry in replies}
        cost = _cost(once.values(), num_gpus(self.settings, judge), params_b, judge)
        each = self.settings.samples
        reasons = [self._reason(request, entry) for request, entry in replies]
        starts = range(0, len(verdicts), each)
        return Heard(
            judge=judge,
            verdicts=[verdicts[at : at + each] for at in starts],
            reasons=[reasons[at : at + each] for at in starts],
            cost=cost,
            new=new,
        )

    def _replies(
        self, judge: Judge, questions: Sequence[Question], named: ask.Named
    ) -> tuple[list[Reply], int, float | None]:
        """Return the reply to every sample of every question, how many are new, and the judge's size in billions."""
        total = len(questions) * self.settings.samples
        tally = ask.Tally(teacher=judge.payee, progress=self.progress, total=total)
        found: dict[int, Reply] = {}
        left = list(range(total))
        new, params_b = 0, judge.params_b
        forms = asked_formats(self.settings, judge)
        for asked in forms if left else ():
            last = asked == forms[-1]
            if not last:
                fresh, knows = self._try(judge, asked, questions, left[0])
                new += fresh
                if not knows:
                    continue
            with self._open(judge, asked) as engine:
                engine.when_waiting(self.progress.waiting)
                made = self._requests(engine, questions)
                requests = {place: made[place] for place in left}
                new += self._ask(engine, list(requests.values()), named, tally)
                entries = self._read(engine, requests.values())
                params_b = params_b or engine.params_b
            found |= {place: (request, entries[request.key]) for place, request in requests.items()}
            left = [] if last else [place for place in left if is_refusal(found[place][1].error)]
            if not left:
                break
        return [found[place] for place in range(total)], new, params_b

    def _open(self, judge: Judge, asked: Asked, *, at_once: bool = False) -> Engine:
        folder = self.journal.path.parent
        return open_judge(self.settings, judge, self.rubric, asked, folder, at_once=at_once, sender=self.sender)

    def _requests(self, engine: Engine, questions: Sequence[Question]) -> list[Request]:
        return [r for question in questions for r in make_requests(self.settings, self.seed, engine, question)]

    def _try(self, judge: Judge, asked: Asked, questions: Sequence[Question], place: int) -> tuple[int, bool]:
        """Have one request answered; returns the number of new answers, and whether the server knows the form."""
        alone = ask.Tally(teacher=judge.payee, progress=self.progress, total=1)
        with self._open(judge, asked, at_once=True) as engine:
            request = self._requests(engine, questions)[place]
            if Notes.beside(self.journal.path).holding({request.key}):  # it went out with the others, in this form
                return 0, True
            new = ask.answer(
                Listed([request]),
                engine,
                self.journal,
                self.budget,
                alone,
                batch_tokens=self.settings.batch_tokens,
                max_error_rate=1,
                rerun_errors="errors" in self.settings.rerun,
                arrived=lambda answers: None,
                named=_named(judge),
            )
        return new, not is_refusal(self.journal.read([request.key])[request.key].error)

    def _ask(self, engine: Engine, requests: Sequence[Request], named: ask.Named, tally: ask.Tally) -> int:
        """Have requests answered, and return the number of answers that are new."""
        unread = _Unread(settings=self.settings, named=named, total=len(requests))

        def arrived(answers: Sequence[Answer]) -> None:
            for answer in answers:
                fault = self._verdict(answer.request, answer).fault
                if fault is not None and fault != "failed":  # `ask` counts these
                    unread.add(fault, answer.text)

        return ask.answer(
            Listed(requests),
            engine,
            self.journal,
            self.budget,
            tally,
            batch_tokens=self.settings.batch_tokens,
            max_error_rate=self.settings.max_error_rate,
            rerun_errors="errors" in self.settings.rerun,
            arrived=arrived,
            named=named,
        )

    def _read(self, engine: Engine, requests: Iterable[Request]) -> dict[str, Entry]:
        """Read replies by key; tokens that a server has not counted are counted here, where that can be."""
        by_key = {request.key: request for request in requests}
        return fill(engine.counter, self.journal, by_key, self.journal.read(by_key))

    def _verdict(self, request: Request, said: Said) -> Verdict:
        """Read a reply: its thoughts are cut off first."""
        if said.error is not None:
            return Verdict(fault="failed")
        text, _ = split_response(request, said)
        return read_verdict(text, self.form, is_cut=is_cut(said.finish_reason))

    def _reason(self, request: Request, said: Said) -> str:
        return "" if said.error is not None else read_reason(split_response(request, said)[0])


def _named(judge: Judge) -> ask.Named:
    return ask.Named(
        who=f"judge `{judge.label}`", what=f"judge with {judge.label}", bound="score.judge.max_error_rate"
    )


def _cost(entries: Iterable[Entry], gpus: float | None, params_b: float | None, judge: Judge) -> Cost:
    """Sum up what replies have cost, whenever they were paid for."""
    requests, seconds = 0, 0.0
    prompt: int | None = 0
    generated: int | None = 0
    for entry in entries:
        requests, seconds = requests + 1, seconds + entry.seconds
        prompt = add_known(prompt, entry.num_prompt_tokens if entry.error is None or entry.num_tokens else 0)
        generated = add_known(generated, entry.num_tokens)
    return answers_cost(requests, prompt, generated, seconds, gpus=gpus, params_b=params_b, price=judge.price)
