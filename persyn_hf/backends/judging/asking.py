"""Ask a judge through the journal, and read its verdicts.

A judge is asked as a teacher is: by the same engines, under the same limits, and each reply is in the journal before
anything reads it. So a killed run asks nothing twice, and another alpha, student or panel asks only what is new.

Structured output is asked for in the forms of `structured.formats`, one after another. The first question goes out
alone; where its error says that the server does not know the form, no other question is sent in it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from persyn_hf.backends.answers import Answer, Entry, Request, Said
from persyn_hf.backends.engines import Engine, ask
from persyn_hf.backends.engines.counting import fill
from persyn_hf.backends.engines.limits import Budget
from persyn_hf.backends.engines.open_engine import open_local
from persyn_hf.backends.engines.samples import add_known, split_response
from persyn_hf.backends.engines.settings import VllmSettings
from persyn_hf.backends.journal import Journal
from persyn_hf.backends.judging.questions import Question, make_requests
from persyn_hf.backends.judging.rubrics import Rubric
from persyn_hf.backends.judging.settings import Judge, JudgeServer, JudgeSettings
from persyn_hf.backends.judging.structured import Asked, formats, is_refusal, response_format
from persyn_hf.backends.judging.verdicts import WINNER_FORM, Form, Verdict, read_verdict, score_form
from persyn_hf.core.cost import Cost, answers_cost
from persyn_hf.core.endings import is_cut
from persyn_hf.errors import EngineError
from persyn_hf.recipe.strict import read_section
from persyn_hf.stage import Payee, Progress
from persyn_hf.text import readable


Requests = list[list[Request]]  # of each question, one per sample
SHOWN = 120  # characters of a reply in an error


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What a judge has said: the verdicts of each question, one per sample, and what they cost."""

    judge: Judge
    verdicts: list[list[Verdict]]
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
class Bench:
    """Where judges sit: all that their asking shares."""

    settings: JudgeSettings
    rubric: Rubric
    seed: int
    journal: Journal
    budget: Budget
    progress: Progress
    form: Form = field(init=False)

    def __post_init__(self) -> None:
        self.form = WINNER_FORM if self.settings.mode == "pairwise" else score_form(*self.rubric.scale)

    def hear(self, judge: Judge, questions: Sequence[Question]) -> Heard:
        """Have a judge answer every question, and read its verdicts.

        Raises:
            BudgetReached: the limits allow no more; what was answered is in the journal.
            EngineError: the judge cannot be run, or too many of its replies failed or hold no verdict.
        """
        named = ask.Named(
            who=f"judge `{judge.label}`",
            what=f"judge with {judge.label}",
            bound="score.judge.max_error_rate",
            again="--set score.judge.rerun=errors",
        )
        total = len(questions) * self.settings.samples
        tally = ask.Tally(teacher=judge.payee, progress=self.progress, total=total)
        found: dict[tuple[int, int], tuple[Request, Entry]] = {}
        left = [(place, sample) for place in range(len(questions)) for sample in range(self.settings.samples)]
        new, params_b = 0, None
        forms = asked_formats(self.settings, judge)
        for number, asked in enumerate(forms):
            with open_judge(self.settings, judge, self.rubric, asked, self.journal.path.parent) as engine:
                engine.when_waiting(self.progress.waiting)
                made = [make_requests(self.settings, self.seed, engine, question) for question in questions]
                slots = {slot: made[slot[0]][slot[1]] for slot in left}
                trial = number + 1 < len(forms)
                new += self._ask(engine, list(slots.values()), tally, named, trial)
                entries = self._read(engine, slots.values())
                params_b = judge.params_b or engine.params_b
            found |= {
                slot: (request, entries[request.key]) for slot, request in slots.items() if request.key in entries
            }
            refused = [slot for slot in left if slot not in found or is_refusal(found[slot][1].error)]
            left = refused if trial else []
            if not left:
                break
        heard = [
            [self._verdict(*found[place, sample]) for sample in range(self.settings.samples)]
            for place in range(len(questions))
        ]
        entries = {request.key: entry for request, entry in found.values()}
        cost = _cost(entries.values(), num_gpus(self.settings, judge), params_b, judge)
        self._check(named, [*found.values()], total)
        return Heard(judge=judge, verdicts=heard, cost=cost, new=new)

    def _ask(
        self, engine: Engine, requests: Sequence[Request], tally: ask.Tally, named: ask.Named, trial: bool
    ) -> int:
        """Have requests answered. With `trial` the first one goes alone, and the others only where it is not refused.

        Returns the number of answers that are new.
        """
        unread: Counter[str] = Counter()
        example: list[str] = []

        def arrived(answers: Sequence[Answer]) -> None:
            for answer in answers:
                fault = self._verdict(answer.request, answer).fault
                if fault is not None and fault != "failed":  # `ask` counts these
                    unread[fault] += 1
                    example.append(answer.text)
            self._refuse_many(named, unread, example, len(requests))

        options: dict[str, Any] = {
            "batch_tokens": self.settings.batch_tokens,
            "rerun_errors": "errors" in self.settings.rerun,
            "named": named,
        }
        rate, new = self.settings.max_error_rate, 0
        if trial and requests:
            ahead = ask.Tally(teacher=tally.teacher, progress=self.progress, total=1)
            first = requests[:1]
            new = ask.answer(
                first, engine, self.journal, self.budget, ahead, max_error_rate=1, arrived=lambda _: None, **options
            )
            if is_refusal(self.journal.read([first[0].key])[first[0].key].error):
                return new
        new += ask.answer(
            requests, engine, self.journal, self.budget, tally, max_error_rate=rate, arrived=arrived, **options
        )
        return new

    def _read(self, engine: Engine, requests: Any) -> dict[str, Entry]:
        """Read replies by key; tokens that a server has not counted are counted here, where that can be."""
        by_key = {request.key: request for request in requests}
        return fill(engine.counter, self.journal, by_key, self.journal.read(by_key))

    def _verdict(self, request: Request, said: Said) -> Verdict:
        """Read a reply: its thoughts are cut off first."""
        if said.error is not None:
            return Verdict(fault="failed")
        text, _ = split_response(request, said)
        return read_verdict(text, self.form, is_cut=is_cut(said.finish_reason))

    def _check(self, named: ask.Named, found: Sequence[tuple[Request, Entry]], total: int) -> None:
        """Refuse a judge too many of whose replies hold no verdict, whenever they came."""
        faults: Counter[str] = Counter()
        example: list[str] = []
        for request, entry in found:
            verdict = self._verdict(request, entry)
            if verdict.fault is not None:
                faults[verdict.fault] += 1
                example.append(entry.error or entry.text)
        self._refuse_many(named, faults, example, total)

    def _refuse_many(self, named: ask.Named, faults: Mapping[str, int], example: Sequence[str], total: int) -> None:
        """Raise `EngineError` as soon as it is certain that too large a share of a judge's replies is of no use."""
        number = sum(faults.values())
        if number > self.settings.max_error_rate * total:
            kinds = ", ".join(f"{kind} {times}" for kind, times in Counter(faults).most_common())
            raise EngineError(
                f"{named.who}: {number} of {total} replies hold no verdict ({kinds}), the bound `{named.bound}` is "
                f"{self.settings.max_error_rate:g}; one of them: {readable(example[0])[:SHOWN]!r}. Take another "
                "judge, rubric or `max_tokens`, or raise the bound: what was answered is kept"
            )


def asked_formats(settings: JudgeSettings, judge: Judge) -> tuple[Asked, ...]:
    """Return the forms of structured output to ask a judge for, one after another."""
    options = engine_options(settings, judge)
    if options["kind"] != "server" or "response_format" in options["server"].extra:
        return ("none",)
    return formats(settings.response_format)


def open_judge(settings: JudgeSettings, judge: Judge, rubric: Rubric, asked: Asked, folder: Path) -> Engine:
    """Open the engine of a judge; nothing is loaded or sent yet. `folder` is the journal's."""
    options = engine_options(settings, judge)
    field = response_format(asked, settings.mode, rubric.scale, settings.reason)
    if field is not None:
        extra = {**options["server"].extra, "response_format": field}
        options["server"] = options["server"].model_copy(update={"extra": extra})
    return open_local(**options, log_dir=folder / "logs", state_dir=folder / "unfinished")


def engine_options(settings: JudgeSettings, judge: Judge) -> dict[str, Any]:
    """Return the arguments of `open_local` for a judge of the panel; its own sections go on top of the panel's."""
    sections: dict[str, Any] = {}
    for name, model in (("server", JudgeServer), ("vllm", VllmSettings)):
        values = getattr(settings, name).model_dump(exclude_unset=True)
        if judge is not settings:
            values |= getattr(judge, name)
        sections[name] = read_section(model, values, f"score.judge.panel.{judge.label}.{name}")
    return {
        "kind": getattr(judge, "engine", None) or settings.engine,
        "model": judge.model,
        "revision": judge.revision,
        "system_prompt": None,
        "batch_tokens": settings.batch_tokens,
        "dtype": settings.dtype,
        "device": settings.device,
        **sections,
    }


def num_gpus(settings: JudgeSettings, judge: Judge) -> float | None:
    """Return the number of GPUs that a judge holds while it answers; None: not known, as a server does not say."""
    options = engine_options(settings, judge)
    if options["kind"] == "server":
        return None
    import torch

    if not torch.cuda.is_available():
        return 0
    return int(options["vllm"].gpus) if options["kind"] == "vllm" else 1


def payees(settings: JudgeSettings) -> dict[str, Payee]:
    """Return the judges of a panel by their names in the journal."""
    return {judge.payee: Payee(judge.price, num_gpus(settings, judge)) for judge in settings.judges}


def _cost(entries: Any, gpus: float | None, params_b: float | None, judge: Judge) -> Cost:
    """Sum up what replies have cost, whenever they were paid for."""
    requests, seconds = 0, 0.0
    prompt: int | None = 0
    generated: int | None = 0
    for entry in entries:
        requests, seconds = requests + 1, seconds + entry.seconds
        prompt = add_known(prompt, entry.num_prompt_tokens if entry.error is None or entry.num_tokens else 0)
        generated = add_known(generated, entry.num_tokens)
    return answers_cost(requests, prompt, generated, seconds, gpus=gpus, params_b=params_b, price=judge.price)
