"""What a student says to the items of a task, read in one place whichever engine asked it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from persyn_hf.backends import chat, generation
from persyn_hf.backends import loading as models
from persyn_hf.backends.engines.local_prompts import context_length
from persyn_hf.backends.harness.work import Work
from persyn_hf.backends.thoughts import split_thoughts
from persyn_hf.errors import InputError


Spoken = tuple[str, bool]  # all that was said, and whether an end token ended it
Ask = Callable[[list[Any], Work], list[Any]]  # requests, and what is asked by them -> what each gave


@dataclass(frozen=True, kw_only=True)
class Said:
    """An answer: without its thoughts, up to the task's stop text. `cut`: neither that nor an end token came."""

    answer: str
    reasoning: str | None = None
    cut: bool = False

    @property
    def without_answer(self) -> bool:
        """Say whether there are thoughts and nothing else."""
        return self.reasoning is not None and not self.answer


@dataclass(kw_only=True)
class Sheet:
    """The answers to the items of one task, by item; `too_long`: the items that do not fit and were not asked.

    `positions`: of prompt and answer together. The harness itself would cut what does not fit from the left.
    """

    tokenizer: Any
    ends: Sequence[int]
    positions: int
    task: str = ""
    said: dict[int, Said] = field(default_factory=dict)
    too_long: set[int] = field(default_factory=set)

    def begin(self, task: str) -> None:
        """Forget the task before."""
        self.task, self.said, self.too_long = task, {}, set()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of templated texts, which hold their special tokens."""
        found: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        return found

    def heard(self, ids: Sequence[int], ends: Sequence[int]) -> Spoken:
        """Return the text of new tokens up to the first end token, and whether there is one."""
        text, _, ended = chat.until_end(self.tokenizer, ids, ends)
        return text, ended

    def ask(self, requests: Sequence[Any], ask: Ask) -> list[str]:
        """Have the harness's requests answered by `ask`; return the answers, "" where a prompt does not fit.

        A stop text that ends a student in the middle of its thoughts is no end: it is asked again without.
        """
        options = requests[0].args[1]
        stops, max_tokens = [text for text in options["until"] if text], options["max_gen_toks"]
        special = {str(text): token for token, text in self.tokenizer.added_tokens_decoder.items() if text.special}
        ends = sorted({*self.ends, *(special[text] for text in stops if text in special)})
        asked = self._fitting(requests, [request.args[0] for request in requests], max_tokens)
        for until in (stops, []):
            texts = [[str(request.args[0])] for request in asked]
            spoken = ask(asked, Work(texts=texts, max_tokens=max_tokens, stops=until, ends=ends))
            for request, one in zip(asked, spoken, strict=True):
                self.said[request.doc_id] = read(request.args[0], one, stops)
            asked = [request for request in asked if self.said[request.doc_id].without_answer]
            if not (stops and asked):
                break
        return [self.said[request.doc_id].answer if request.doc_id in self.said else "" for request in requests]

    def weigh(self, requests: Sequence[Any], ask: Ask) -> list[tuple[float, bool]]:
        """Have choices weighed; return log-likelihoods, 0 for all choices of an item of which one does not fit."""
        asked = self._fitting(requests, ["".join(request.args) for request in requests], 1)
        found = map(tuple, ask(asked, Work(texts=[list(request.args) for request in asked])))
        return [(0.0, False) if request.doc_id in self.too_long else next(found) for request in requests]

    def fits(self, texts: Sequence[str], max_tokens: int) -> list[bool]:
        """Say of each prompt whether it leaves room for an answer of `max_tokens`.

        Raises:
            InputError: not one does.
        """
        lengths = [len(ids) for ids in self.encode(texts)]
        if lengths and min(lengths) > self.positions - max_tokens:
            raise InputError(
                f"no item of `{self.task}` can be asked: the shortest prompt has {min(lengths)} tokens, the student "
                f"{self.positions} positions, {max_tokens} of them for the answer; lower `evaluate.max_tokens`, give "
                "fewer examples, or leave the task out"
            )
        return [length <= self.positions - max_tokens for length in lengths]

    def _fitting(self, requests: Sequence[Any], texts: Sequence[str], max_tokens: int) -> list[Any]:
        fits = self.fits(texts, max_tokens)
        self.too_long |= {request.doc_id for request, fit in zip(requests, fits, strict=True) if not fit}
        return [request for request in requests if request.doc_id not in self.too_long]


def open_sheet(model: str, revision: str | None, template: str | None, positions: int | None = None) -> Sheet:
    """Make the sheet of a student; `positions` where it is to have others than its own."""
    tokenizer = models.load_tokenizer(model, revision, template)
    ends = generation.end_tokens(model, revision, tokenizer, chat.end_of_turn(tokenizer, model))
    return Sheet(tokenizer=tokenizer, ends=ends, positions=positions or context_length(model, revision))


def read(prompt: str, spoken: Spoken, stops: Sequence[str]) -> Said:
    """Take the thoughts off, then what follows the first stop text; thoughts that were never closed hold no answer."""
    text, ended = spoken
    whole, reasoning = split_thoughts(text, prompt)
    answer = whole
    for stop in stops:
        answer = answer.split(stop, 1)[0]
    return Said(answer=answer, reasoning=reasoning, cut=not ended and answer == whole)
