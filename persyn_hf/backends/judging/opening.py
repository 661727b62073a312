"""Open the engines of judges, and say what they cost: as teachers' engines, with a form of reply on top."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from persyn_hf.backends.engines import Engine
from persyn_hf.backends.engines.batch.notes import NOBODY, Sender
from persyn_hf.backends.engines.open_engine import open_local
from persyn_hf.backends.engines.settings import BY_SERVER
from persyn_hf.backends.judging.rubrics import Rubric
from persyn_hf.backends.judging.settings import Judge, JudgeSettings, engine_options
from persyn_hf.backends.judging.structured import Asked, formats, response_format
from persyn_hf.backends.thoughts import split_thoughts
from persyn_hf.stage import Payee


def asked_formats(settings: JudgeSettings, judge: Judge) -> tuple[Asked, ...]:
    """Return the forms of structured output to ask a judge for, one after another."""
    options = engine_options(settings, judge)
    if options["kind"] == "vllm":  # it knows them all, and another try would start it again
        thinks = settings.response_format == "auto" and _begins_to_think(settings, judge)
        return ("none",) if thinks else formats(settings.response_format)[:1]
    server = options["server"]
    if options["kind"] not in BY_SERVER or server.api != "openai" or "response_format" in server.extra:
        return ("none",)
    return formats(settings.response_format)


def _begins_to_think(settings: JudgeSettings, judge: Judge) -> bool:
    """Tell whether the judge's template opens its thoughts: a form would have to hold within them."""
    with open_local(**engine_options(settings, judge), log_dir=Path(), state_dir=Path()) as engine:
        prompt = engine.prepare([{"role": "user", "content": "?"}]).text
    return split_thoughts("", prompt)[1] is not None


def open_judge(
    settings: JudgeSettings,
    judge: Judge,
    rubric: Rubric,
    asked: Asked,
    folder: Path,
    *,
    at_once: bool = False,
    sender: Sender = NOBODY,
) -> Engine:
    """Open the engine of a judge; nothing is loaded or sent yet.

    Args:
        folder: the journal's.
        at_once: what a batch API would answer within a day is asked of its server, under the same keys.
        sender: for whom batches are sent; it need not name the judge.
    """
    options: dict[str, Any] = engine_options(settings, judge)
    if at_once and options["kind"] == "batch":
        options["kind"] = "server"
    form = response_format(asked, settings.mode, rubric.scale, settings.reason)
    if form is not None and options["kind"] == "vllm":
        options["response_format"] = form
    elif form is not None:
        extra = {**options["server"].extra, "response_format": form}
        options["server"] = options["server"].model_copy(update={"extra": extra})
    sent = replace(sender, payee=judge.payee)
    return open_local(**options, sender=sent, log_dir=folder / "logs", state_dir=folder / "unfinished")


def num_gpus(settings: JudgeSettings, judge: Judge) -> float | None:
    """Return the number of GPUs that a judge holds while it answers; None: not known, as a server does not say."""
    options = engine_options(settings, judge)
    if options["kind"] in BY_SERVER:
        return None
    import torch

    if not torch.cuda.is_available():
        return 0
    return int(options["vllm"].gpus) if options["kind"] == "vllm" else 1


def payees(settings: JudgeSettings) -> dict[str, Payee]:
    """Return the judges of a panel by their names in the journal."""
    return {judge.payee: Payee(judge.price, num_gpus(settings, judge)) for judge in settings.judges}
