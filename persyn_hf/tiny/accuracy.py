"""The accuracy of a tiny model: greedy decoding, graded on the last whole number in a box."""

from typing import TYPE_CHECKING, NamedTuple

from persyn_hf.tiny.questions import SKILLS, Question
from persyn_hf.tiny.styles import boxed_answer


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

MAX_NEW_TOKENS = 200
"""The longest correct response of any style is about 150 tokens."""


class Accuracy(NamedTuple):
    """The shares of right answers, by skill and by level, and how long responses are."""

    by_skill: dict[str, float]
    """Share of right answers for each skill, and over all questions under `all`."""
    by_level: dict[str, float]
    mean_tokens: float
    """Tokens per response, <|end|> not counted."""


def answer_greedily(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerFast", questions: list[str], batch: int = 200
) -> list[str]:
    """Return one response per question, in their order, without special tokens."""
    import torch

    responses = [""] * len(questions)
    order = sorted(range(len(questions)), key=lambda index: len(questions[index]))
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        texts = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": questions[index]}], tokenize=False, add_generation_prompt=True
            )
            for index in chosen
        ]
        inputs = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left")
        with torch.inference_mode():
            ids = model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
        decoded = tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        for index, text in zip(chosen, decoded, strict=True):
            responses[index] = text
    return responses


def measure_accuracy(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerFast", questions: list[Question]
) -> Accuracy:
    """Ask a model every question and return how often it is right."""
    responses = answer_greedily(model, tokenizer, [question.question for question in questions])
    right = [
        boxed_answer(response) == question.answer for question, response in zip(questions, responses, strict=True)
    ]

    def share(kept: list[bool]) -> float:
        """Return the share of true values, to four decimals."""
        return round(sum(kept) / len(kept), 4)

    answered = list(zip(questions, right, strict=True))
    by_skill = {skill: share([ok for question, ok in answered if question.skill == skill]) for skill in SKILLS}
    by_level = {str(level): share([ok for question, ok in answered if question.level == level]) for level in (1, 2)}
    tokens = [len(ids) for ids in tokenizer(responses, add_special_tokens=False)["input_ids"]]
    return Accuracy(by_skill | {"all": share(right)}, by_level, round(sum(tokens) / len(tokens), 1))
