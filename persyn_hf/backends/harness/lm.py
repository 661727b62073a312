"""Be a model of lm-evaluation-harness, without the harness's log and bars."""

import contextlib
import logging
from collections.abc import Iterator
from functools import partial
from typing import Any

from persyn_hf.backends.chat import DATE
from persyn_hf.backends.harness.answers import Sheet
from persyn_hf.backends.harness.work import Engine, Kept, Work


BARS = ("tqdm", "tqdm_asyncio")


def make_lm(sheet: Sheet, kept: Kept, engine: Engine) -> Any:
    """Make a model of the harness, which has an engine answer what `kept` does not know."""
    from jinja2 import TemplateError
    from lm_eval.api.model import LM

    class StudentLM(LM):
        what = ""
        tokenizer_name = ""

        def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
            to_answer = add_generation_prompt
            ending = {"add_generation_prompt": to_answer, "continue_final_message": not to_answer}
            render = partial(sheet.tokenizer.apply_chat_template, tokenize=False, **ending)
            try:
                return str(render(chat_history, strftime_now=DATE.strftime))  # the date of the student's training
            except TemplateError:  # as the harness does: of a template that knows no system turn
                others = [turn for turn in chat_history if turn["role"] != "system"]
                return str(render(others, strftime_now=DATE.strftime))

        def generate_until(self, requests: Any) -> Any:
            return sheet.ask(requests, self._ask)

        def loglikelihood(self, requests: Any) -> Any:
            return sheet.weigh(requests, self._ask)

        def loglikelihood_rolling(self, requests: Any) -> Any:
            raise NotImplementedError

        def _ask(self, _: Any, work: Work) -> list[Any]:
            return kept.ask(self.what, work, engine)

    return StudentLM()


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
