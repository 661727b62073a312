"""Run a model inside lm-evaluation-harness, without the harness's log and bars."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from persyn_hf.backends.chat import DATE
from persyn_hf.backends.loading import suitable_threads
from persyn_hf.stage import Progress


BARS = ("tqdm", "tqdm_asyncio")


def make_lm(model: Any, tokenizer: Any, batch_size: int, progress: Progress) -> Any:
    """Make the harness's HFLM with three changes: progress, no slow stop check, a count of answers that were cut."""
    from lm_eval.models.huggingface import HFLM

    class StudentLM(HFLM):
        cut = 0
        what = ""

        def generate_until(self, requests: Any, **kwargs: Any) -> Any:
            progress.start(self.what, total=len(requests))
            with suitable_threads(self.model):
                return super().generate_until(requests, **kwargs)

        def loglikelihood(self, requests: Any, **kwargs: Any) -> Any:
            progress.start(self.what, total=len(requests))
            with suitable_threads(self.model):
                return super().loglikelihood(requests, **kwargs)

        def _model_generate(self, context: Any, max_length: int, stop: list[str], **kwargs: Any) -> Any:
            # The harness decodes the batch at every token to look for the eos text; `generate` stops on it anyway.
            stop = [text for text in stop if text != self.tokenizer.eos_token]
            out = super()._model_generate(context=context, max_length=max_length, stop=stop, **kwargs)
            ends = self.model.generation_config.eos_token_id
            new = out[:, context.shape[1] :]
            ended = sum(new == token for token in (ends if isinstance(ends, list) else [ends])).any(dim=1)
            self.cut += int((~ended).sum())
            return out

    # A rendered chat template already holds its special tokens: add_bos_token=False adds none, as in training.
    lm = StudentLM(
        pretrained=model,
        tokenizer=tokenizer,
        batch_size=batch_size,
        add_bos_token=False,
        chat_template_args={"strftime_now": DATE.strftime},  # the date that the student was trained with
    )
    lm.set_cache_hook(make_hook(progress))
    return lm


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
