"""Pretraining documents of a tiny model: question and response pairs, and drills, none on a question of the splits."""

import random
from typing import TYPE_CHECKING, NamedTuple

from persyn_hf.tiny.questions import SKILLS, Question, draw_question
from persyn_hf.tiny.styles import drill, respond
from persyn_hf.tiny.tokenizer import ASSISTANT, END, USER
from persyn_hf.tiny.zoo import ModelSpec, Phase


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class Document(NamedTuple):
    """A text that a model is trained on, in two parts."""

    prefix: str
    """Read, but not learnt: the question and the mark that opens the response."""
    target: str
    """Learnt: the response, or the whole drill, with <|end|>."""


class Example(NamedTuple):
    """A document as token ids."""

    token_ids: list[int]
    learnt_from: int
    """Index of the first token that counts in the loss."""


def draw_document(spec: ModelSpec, phase: Phase, banned: set[str], rng: random.Random) -> Document:
    """Return one drill with probability `phase.drill`, else one pair whose question is not banned."""
    if rng.random() < phase.drill:
        steps = [
            rng.choice(draw_question(rng, _draw_skill(spec, rng), rng.randint(1, 2)).steps)
            for _ in range(rng.randint(2, 5))
        ]
        return Document("", drill(steps) + END)
    question = _draw_allowed(spec, banned, rng)
    style = rng.choices(list(phase.styles), weights=list(phase.styles.values()))[0]
    return Document(f"{USER}{question.question}{END}{ASSISTANT}", respond(question, style, rng) + END)


def encode(documents: list[Document], tokenizer: "PreTrainedTokenizerFast") -> list[Example]:
    """Return documents as token ids."""
    # Prefix and target apart, so that no token spans the border; the marks next to it are single tokens anyway.
    prefixes = tokenizer([document.prefix for document in documents])["input_ids"]
    targets = tokenizer([document.target for document in documents])["input_ids"]
    return [Example(prefix + target, len(prefix)) for prefix, target in zip(prefixes, targets, strict=True)]


def _draw_skill(spec: ModelSpec, rng: random.Random) -> str:
    """Return a random skill by the weights of a model's corpus."""
    weights = spec.skill_weights()
    return rng.choices(SKILLS, weights=[weights[skill] for skill in SKILLS])[0]


def _draw_allowed(spec: ModelSpec, banned: set[str], rng: random.Random) -> Question:
    """Return a random question that is not banned, at level 2 only where its skill is a strong one."""
    while True:
        skill = _draw_skill(spec, rng)
        hard = skill in spec.strong and rng.random() < spec.level_2_share
        question = draw_question(rng, skill, 2 if hard else 1)
        if question.question not in banned:
            return question
