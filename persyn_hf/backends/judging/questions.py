"""Make the questions to a judge: the rubric filled in, and how the verdict is to be written.

`persyn plan` and the step itself make the same questions, and look them up in the journal by the same keys.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from persyn_hf.backends.answers import Messages, Request, Sampling, seed_from
from persyn_hf.backends.engines import Engine
from persyn_hf.backends.judging.rubrics import Mode, Rubric, Scale
from persyn_hf.backends.judging.settings import JudgeSettings


REPLY = "Reply with one JSON object and nothing else: {form}. {meaning}"
REASON = "The reason is one or two sentences. "


@dataclass(frozen=True, kw_only=True)
class Shown:
    """An answer as a judge is shown it, with the row of its prompt."""

    prompt: Mapping[str, Any]
    text: str


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question about one answer, or about two in one order: their places in the list of answers."""

    prompt_id: str
    places: tuple[int, ...]
    text: str


def make_questions(settings: JudgeSettings, rubric: Rubric, answers: Sequence[Shown]) -> list[Question]:
    """Make the questions about answers, by prompt in the order of its first answer.

    An answer whose prompt lacks the reference that the rubric shows is asked nothing about. Pairs of equal texts are
    not asked about either: they tie.
    """
    by_prompt: dict[str, list[int]] = {}
    for place, answer in enumerate(answers):
        if answer.prompt["reference"] is not None or not rubric.needs_reference:
            by_prompt.setdefault(answer.prompt["prompt_id"], []).append(place)
    ending = how_to_reply(settings.mode, rubric.scale, settings.reason)
    questions = []
    for prompt_id, places in by_prompt.items():
        prompt = answers[places[0]].prompt
        known = {"prompt": _shown(prompt["messages"]), "reference": str(prompt["reference"])}
        for order in _orders(settings, prompt_id, places, answers):
            texts = [answers[place].text for place in order]
            names = ("answer",) if settings.mode == "pointwise" else ("answer_a", "answer_b")
            text = rubric.fill(**known, **dict(zip(names, texts, strict=True)))
            questions.append(Question(prompt_id=prompt_id, places=order, text=f"{text.strip()}\n\n{ending}"))
    return questions


def _orders(
    settings: JudgeSettings, prompt_id: str, places: Sequence[int], answers: Sequence[Shown]
) -> list[tuple[int, ...]]:
    """Return the places that each question about the answers to one prompt shows, a pair in both orders at once."""
    if settings.mode == "pointwise":
        return [(place,) for place in places]
    circle = sorted(places, key=lambda place: (seed_from(prompt_id, answers[place].text), place))
    steps = num_steps(len(circle), settings.opponents)
    met = {frozenset((circle[at], circle[(at + step) % len(circle)])) for step in steps for at in range(len(circle))}
    pairs = sorted(tuple(sorted(pair)) for pair in met)
    differ = [pair for pair in pairs if answers[pair[0]].text != answers[pair[1]].text]
    return [order for first, second in differ for order in ((first, second), (second, first))]


def num_steps(number: int, opponents: int | None) -> range:
    """Return how far apart in a circle of so many answers two are that are compared; all of them without `opponents`.

    The circle's order is drawn by prompt and text, so a further answer changes few pairs. Example: with 2 opponents
    each of 5 answers is compared with its two neighbours, 5 pairs of 10.
    """
    half = number // 2
    return range(1, 1 + (half if opponents is None else min(half, -(-opponents // 2))))


def num_pairs(number: int, opponents: int | None) -> int:
    """Return the pairs among so many answers that are compared."""
    return sum(number if 2 * step != number else number // 2 for step in num_steps(number, opponents))


def how_to_reply(mode: Mode, scale: Scale, with_reason: bool) -> str:
    """Return the sentences that say how the verdict is to be written, as `verdicts` reads it."""
    reason = '"reason": "...", ' if with_reason else ""
    if mode == "pointwise":
        form, meaning = f'{{{reason}"score": N}}', f"N is a whole number from {scale[0]} (worst) to {scale[1]} (best)."
    else:
        form, meaning = f'{{{reason}"winner": W}}', 'W is "A", "B", or "tie" where neither answer is better.'
    return REPLY.format(form=form, meaning=f"{REASON if with_reason else ''}{meaning}")


def make_requests(settings: JudgeSettings, seed: int, engine: Engine, question: Question) -> list[Request]:
    """Make the requests of a question, one per sample. Greedy ones depend on no seed, as those of teachers."""
    greedy = settings.temperature == 0
    sampling = Sampling(
        temperature=settings.temperature,
        top_p=1.0 if greedy else settings.top_p,
        top_k=0,
        max_tokens=settings.max_tokens,
        seed=0,
    )
    prepared = engine.prepare([{"role": "user", "content": question.text}])
    return [
        Request(
            prompt_id=question.prompt_id,
            model=engine.model,
            engine=engine.kind,
            sample_index=index,
            prompt=prepared,
            sampling=sampling if greedy else replace(sampling, seed=seed_from(seed, question.prompt_id, index)),
        )
        for index in range(settings.samples)
    ]


def _shown(messages: Messages) -> str:
    """Return a conversation as text: a single question as it is, several turns with their roles."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"[{turn['role']}]\n{turn['content']}" for turn in messages)
