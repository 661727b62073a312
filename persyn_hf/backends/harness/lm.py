"""Run a model inside lm-evaluation-harness, without the harness's log and bars."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from persyn_hf.backends import generation
from persyn_hf.backends.chat import DATE
from persyn_hf.backends.harness import weighing
from persyn_hf.backends.harness.answers import Sheet, Spoken
from persyn_hf.backends.loading import suitable_threads
from persyn_hf.stage import Progress


BARS = ("tqdm", "tqdm_asyncio")


def make_lm(model: Any, sheet: Sheet, batch_size: int, progress: Progress) -> Any:
    """Make the harness's HFLM with progress, and with generation of our own, which cuts no prompt."""
    from lm_eval.models.huggingface import HFLM

    class StudentLM(HFLM):
        what = ""

        def generate_until(self, requests: Any, **_: Any) -> Any:
            with suitable_threads(self.model):
                return sheet.ask(requests, self._complete)

        def loglikelihood(self, requests: Any, **kwargs: Any) -> Any:
            parent = super().loglikelihood

            def weigh(asked: Any) -> Any:
                progress.start(self.what, total=len(asked))
                return parent(asked, **kwargs)

            with suitable_threads(self.model):
                return sheet.weigh(requests, weigh)

        def _loglikelihood_tokens(self, requests: Any, **kwargs: Any) -> Any:
            if not shares:
                return super()._loglikelihood_tokens(requests, **kwargs)
            rows = [(context, continuation) for _, context, continuation in requests]
            return weighing.weigh(self.model, rows, batch_size, progress.advance)

        def _complete(self, requests: Any, stops: list[str], ends: list[int], max_tokens: int) -> list[Spoken]:
            """Answer greedily, in batches of similar length, the longest first."""
            progress.start(self.what, total=len(requests))
            encoded = sheet.encode([request.args[0] for request in requests])
            order = sorted(range(len(requests)), key=lambda place: (-len(encoded[place]), encoded[place]))
            config = generation.request(max_tokens=max_tokens, ends=ends, pad=self.tokenizer.pad_token_id)
            spoken: dict[int, Spoken] = {}
            for begin in range(0, len(order), batch_size):
                batch = order[begin : begin + batch_size]
                inputs = self.tokenizer.pad(
                    {"input_ids": [encoded[place] for place in batch]}, padding_side="left", return_tensors="pt"
                ).to(self.device)
                length = inputs["input_ids"].shape[1]
                until = [make_stop(self.tokenizer, stops, length)] if stops else []
                out = self.model.generate(**inputs, generation_config=config, stopping_criteria=until)
                heard = [sheet.heard(row, ends) for row in out[:, length:].tolist()]
                spoken |= dict(zip(batch, heard, strict=True))
                progress.advance(len(batch))
            return [spoken[place] for place in range(len(requests))]

    generation.prepare(model)
    shares = weighing.can_share(model)
    # A rendered chat template already holds its special tokens: add_bos_token=False adds none, as in training.
    lm = StudentLM(
        pretrained=model,
        tokenizer=sheet.tokenizer,
        batch_size=batch_size,
        max_length=sheet.positions,
        add_bos_token=False,
        chat_template_args={"strftime_now": DATE.strftime},  # the date that the student was trained with
    )
    lm.set_cache_hook(make_hook(progress))
    return lm


def make_stop(tokenizer: Any, stops: list[str], length: int) -> Any:
    """Make a criterion by which `generate` ends each row at a stop text. `length` is that of the prompts, in tokens.

    A text of n bytes lies within the last n tokens that are not special.
    """
    import torch
    from transformers import StoppingCriteria

    window = max(len(stop.encode("utf-8")) for stop in stops) + 2

    class Stop(StoppingCriteria):
        def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
            tails = tokenizer.batch_decode(input_ids[:, length:][:, -window:], skip_special_tokens=True)
            found = [any(stop in tail for stop in stops) for tail in tails]
            return torch.tensor(found, device=input_ids.device, dtype=torch.bool)

    return Stop()


def make_hook(progress: Progress) -> Any:
    """Make the hook that the harness calls with every answer to keep it; this one only counts."""

    class Hook:
        def add_partial(self, attr: str, req: Any, res: Any) -> None:
            progress.advance()

    return Hook()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the harness's log and progress bars; faults that matter are exceptions."""
    from lm_eval.api import model, task
    from lm_eval.models import api_models, huggingface

    modules = (model, task, huggingface, api_models)
    bars = [(module, name) for module in modules for name in BARS if hasattr(module, name)]
    shown = [getattr(module, name) for module, name in bars]
    loggers = [logging.getLogger(name) for name in ("lm_eval", "transformers", "asyncio")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    for module, name in bars:
        setattr(module, name, _hidden(getattr(module, name)))
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for (module, name), bar in zip(bars, shown, strict=True):
            setattr(module, name, bar)


def _hidden(bar: Any) -> Any:
    class Hidden(bar):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **(kwargs | {"disable": True}))

    return Hidden
