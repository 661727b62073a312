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
    prefix: str
    """Read, but not learnt: the question and the mark that opens the response."""
    target: str
    """Learnt: the response, or the whole drill, with <|end|>."""


class Example(NamedTuple):
    token_ids: list[int]
    learnt_from: int
    """Index of the first token that counts in the loss."""


def draw_document(spec: ModelSpec, phase: Phase, banned: set[str], rng: random.Random) -> Document:
    """One drill with probability `phase.drill`, else one pair whose question is not banned."""
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
    # Prefix and target apart, so that no token spans the border; the marks beside it are single tokens anyway.
    prefixes = tokenizer([one.prefix for one in documents])["input_ids"]
    targets = tokenizer([one.target for one in documents])["input_ids"]
    return [Example(prefix + target, len(prefix)) for prefix, target in zip(prefixes, targets, strict=True)]


def _draw_skill(spec: ModelSpec, rng: random.Random) -> str:
    weights = spec.skill_weights()
    return rng.choices(SKILLS, weights=[weights[skill] for skill in SKILLS])[0]


def _draw_allowed(spec: ModelSpec, banned: set[str], rng: random.Random) -> Question:
    while True:
        skill = _draw_skill(spec, rng)
        hard = skill in spec.strong and rng.random() < spec.level_2_share
        question = draw_question(rng, skill, 2 if hard else 1)
        if question.question not in banned:
            return question
