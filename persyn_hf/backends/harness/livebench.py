"""Evaluate on LiveBench, whose own scripts ask the student's server and score its answers; average the scores."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from persyn_hf.backends import chat, generation
from persyn_hf.backends import loading as models
from persyn_hf.backends.engines.settings import VllmSettings
from persyn_hf.backends.harness import Answered
from persyn_hf.backends.harness.livebench_scripts import LiveBench
from persyn_hf.backends.harness.served import serve
from persyn_hf.backends.harness.summary import interval
from persyn_hf.core.item_weights import group_weights
from persyn_hf.errors import InputError


DATES = re.compile(r"strftime_now\(\s*(['\"])(.*?)\1\s*\)")  # in a chat template


def ask_livebench(
    bench: LiveBench,
    model: str,
    revision: str | None,
    template: str | None,
    *,
    dtype: models.Dtype,
    settings: VllmSettings,
    log: Path,
) -> tuple[dict[str, Answered], dict[str, Any]]:
    """Ask and score all questions; return each by its name, category/task/id, and the line of metrics.

    Raises `InputError` where `max_tokens` is too large, and `EngineError` where server or scripts fail.
    """
    tokenizer = models.load_tokenizer(model, revision, template)
    own = as_trained(tokenizer, model, revision, bench.folder)

    @contextmanager
    def open_server() -> Iterator[str]:
        with serve(model, revision, tokenizer, dtype=dtype, settings=settings, log=log, own=own) as (client, sheet):
            if bench.settings.max_tokens >= sheet.positions:
                raise InputError(
                    f"`evaluate.livebench.max_tokens` is {bench.settings.max_tokens}, but the student has "
                    f"{sheet.positions} "
                    "positions for question and answer together; lower it"
                )
            yield client.base_url.removesuffix("/completions")

    workers = settings.concurrency * settings.data_parallel_size
    bench.answer(open_server, workers=workers, starts=settings.max_restarts + 1)
    bench.judge()
    items = bench.items()
    return items, summarise(bench, items)


def as_trained(tokenizer: Any, model: str, revision: str | None, folder: Path) -> dict[str, str]:
    """Make the arguments by which vLLM writes conversations as the student learned them, and stops where it did.

    The files that they name are written into `folder`.
    """
    template, defaults = folder / "chat_template.jinja", folder / "generation"
    dated = DATES.sub(lambda found: json.dumps(chat.DATE.strftime(found[2])), tokenizer.get_chat_template())
    template.write_text(dated, encoding="utf-8")
    defaults.mkdir(exist_ok=True)
    ends = generation.end_tokens(model, revision, tokenizer, chat.end_of_turn(tokenizer, model))
    (defaults / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}), encoding="utf-8")
    return {"--chat-template": str(template), "--generation-config": str(defaults)}


def summarise(bench: LiveBench, items: Mapping[str, Answered]) -> dict[str, Any]:
    """Compute the line of metrics.

    `accuracy` is LiveBench's average, the mean over categories of their means over tasks; `groups` has these. The
    standard error treats items as independent draws, each with its weight in the average.
    """
    scores = {name: item.score for name, item in items.items() if item.score is not None}
    accuracy, stderr = _mean(scores)
    low, high = interval(accuracy, stderr, len(scores))
    lengths = bench.lengths()
    parts = (name.split("/") for name in scores)
    groups = sorted({group for category, task, _ in parts for group in (category, f"{category}/{task}")})
    inside = {group: {name: scores[name] for name in scores if name.startswith(f"{group}/")} for group in groups}
    return {
        "metric": "mean of categories",
        "accuracy": accuracy,
        "stderr": stderr,
        "low": low,
        "high": high,
        "num_items": len(items),
        "unjudged": len(items) - len(scores),
        "mean_tokens": sum(lengths) / len(lengths) if lengths else None,
        "cut": sum(length >= bench.settings.max_tokens for length in lengths),
        "groups": {group: _mean(scores)[0] for group, scores in inside.items()},
    }


def _mean(scores: Mapping[str, float]) -> tuple[float | None, float | None]:
    """Compute the mean over the groups that the names tell, and its standard error; None where nothing is scored."""
    if not scores:
        return None, None
    weights, values = group_weights(list(scores)), np.array(list(scores.values()))
    mean = float(weights @ values / weights.sum())
    return mean, math.sqrt(float(((weights * (values - mean)) ** 2).sum())) / float(weights.sum())
