"""The in-process engine: a teacher under `transformers`, in fixed batches of similar length.

An answer depends on its request and on the batch that the request is in. So the journal's plan fixes the batches, and
each is seeded by its own keys: a batch that a kill cut short gives the same answers when it is done again. One that
takes long is not begun again, but goes on from a state that was kept (`engines.unfinished`).
"""

import weakref
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from persyn_hf.backends import chat, generation
from persyn_hf.backends import loading as models
from persyn_hf.backends.answers import Answer, Batch, Messages, Prepared, Request, Requests, refuse, seed_from
from persyn_hf.backends.engines import Engine, unfinished
from persyn_hf.backends.engines import local_prompts as rendered
from persyn_hf.errors import EngineError


if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, PreTrainedModel


class TransformersEngine(Engine):
    """One teacher. The tokenizer is loaded at once, the weights at the first batch that needs them.

    `state_dir` is a folder for the states of batches that take long; None: they are begun again after a kill.
    """

    fixed_batches = True

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        *,
        batch_tokens: int,
        dtype: models.Dtype = "auto",
        device: str = "auto",
        system_prompt: str | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
        state_dir: Path | None = None,
    ) -> None:
        self.model = models.identify(model, revision)
        self.tokenizer = models.load_tokenizer(model, revision)
        # Where tags of thoughts are special tokens, answers of earlier versions lack them: they are not these.
        self.kind = f"transformers/{dtype}" + (" thoughts" if chat.special_thoughts(self.tokenizer) else "")
        self.tokenizer.padding_side = "left"
        self._source = (model, revision, dtype, device)
        self._batch_tokens = batch_tokens
        self._system_prompt = system_prompt
        self._template_kwargs = rendered.known_kwargs(self.tokenizer, model, template_kwargs or {})
        self._state_dir = state_dir
        self._loaded: PreTrainedModel | None = None

    def close(self) -> None:
        """Free the weights."""
        loaded = None if self._loaded is None else weakref.ref(self._loaded)
        self._loaded = None
        models.release(loaded)

    @cached_property
    def context_length(self) -> int:
        """The number of positions that the model knows, prompt and answer together."""
        return rendered.context_length(*self._source[:2])

    @cached_property
    def params_b(self) -> float | None:
        """The number of parameters in billions; None for a Hub model, whose files may not be here."""
        return rendered.params_b(self._source[0])

    def prepare(self, messages: Messages) -> Prepared:
        """Render a conversation; the teacher's system prompt goes in front of one that has none of its own."""
        return rendered.prepare(
            self.tokenizer, messages, self._system_prompt, self.context_length, self._template_kwargs
        )

    def plan(self, requests: Requests) -> Iterator[Batch]:
        """Group requests into batches of at most `batch_tokens`, padding and room for answers included, longest first.

        All rows of a batch have the same limit on new tokens. Refused requests form a batch of their own. Those of one
        length are in memory together.
        """
        everything = np.arange(len(requests))
        refused = np.fromiter((r.prompt.refusal is not None for r in requests.take(everything)), bool, len(requests))
        if refused.any():
            yield sorted(requests.take(np.flatnonzero(refused)), key=lambda r: r.key)
        askable = np.flatnonzero(~refused)
        lengths = np.fromiter((r.prompt.num_tokens for r in requests.take(askable)), np.int64, len(askable))
        current: Batch = []
        for length in np.unique(lengths)[::-1]:
            same = requests.take(askable[lengths == length])
            for request in sorted(same, key=lambda r: (r.prompt.text, r.key)):
                limit = self._new_tokens(request)
                longest = current[0].prompt.num_tokens if current else 0
                full = (len(current) + 1) * (longest + limit) > self._batch_tokens
                if current and (full or limit != self._new_tokens(current[0])):
                    yield current
                    current = []
                current.append(request)
        if current:
            yield current

    def generate(self, batches: Iterable[Batch]) -> Iterator[list[Answer]]:
        """Answer batch after batch; the caller has journalled the answers to one when it asks for the next."""
        for batch in batches:
            askable = [request for request in batch if not request.prompt.refusal]
            answers = [refuse(request) for request in batch if request.prompt.refusal]
            yield answers + (self._answer(askable) if askable else [])
            unfinished.remove(self._state(askable))

    def _new_tokens(self, request: Request) -> int:
        return rendered.new_tokens(request, self.context_length)

    def _answer(self, batch: Batch) -> list[Answer]:
        import torch

        model = self._model()
        inputs = self.tokenizer(
            [request.prompt.text for request in batch], add_special_tokens=False, padding=True, return_tensors="pt"
        ).to(model.device)
        devices = [model.device] if model.device.type == "cuda" else []
        try:
            with torch.inference_mode(), models.suitable_threads(model), torch.random.fork_rng(devices=devices):
                torch.manual_seed(seed_from([request.key for request in batch]))  # the keys hold the run's seed
                config = self._generation_config(batch)
                new, seconds = unfinished.generate(model, inputs, config, self._state(batch))
        except torch.OutOfMemoryError:
            raise EngineError(
                f"the teacher `{self._source[0]}` ran out of memory at a batch of {len(batch)} requests; "
                f"lower `generate.batch_tokens` (now {self._batch_tokens}) and run again"
            ) from None
        return [self._read(request, row, seconds / len(batch)) for request, row in zip(batch, new, strict=True)]

    def _state(self, batch: Batch) -> Path | None:
        """Return the file of a batch's state; its keys hold all that its answers depend on."""
        if self._state_dir is None:
            return None
        return self._state_dir / f"{seed_from([request.key for request in batch]):016x}.pt"

    def _read(self, request: Request, row: "torch.Tensor", seconds: float) -> Answer:
        text, num_tokens, ended = chat.until_end(self.tokenizer, row.tolist(), self._ends)
        reason = "stop" if ended else "length"
        return Answer(request=request, text=text, finish_reason=reason, num_tokens=num_tokens, seconds=seconds)

    def _generation_config(self, batch: Batch) -> "GenerationConfig":
        sampling = batch[0].sampling
        return generation.request(
            max_tokens=self._new_tokens(batch[0]),
            ends=self._ends,
            pad=self.tokenizer.pad_token_id,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
        )

    def _model(self) -> "PreTrainedModel":
        """Load the weights once, and take the model's own sampling defaults (top_k, penalties) away."""
        if self._loaded is None:
            model, revision = self._source[:2]
            self._loaded = models.load_causal_lm(*self._source)
            generation.prepare(self._loaded)
            ends = chat.ends_of_answers(self.tokenizer)
            self._ends = generation.end_tokens(model, revision, self.tokenizer, *ends)
            if self.tokenizer.pad_token_id is None:
                self.tokenizer.pad_token = self.tokenizer.eos_token
        return self._loaded
