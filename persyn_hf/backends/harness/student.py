"""Answer the items of a task by a student, under any engine."""

import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from persyn_hf.backends import chat
from persyn_hf.backends import loading as models
from persyn_hf.backends.engines.settings import VllmSettings
from persyn_hf.backends.harness import Answered
from persyn_hf.backends.harness.lm import make_lm, quiet
from persyn_hf.backends.harness.questions import MathTask
from persyn_hf.backends.harness.recorded import make_recorded
from persyn_hf.backends.harness.served import serve
from persyn_hf.backends.harness.stock import metric_name, stock_item
from persyn_hf.backends.sft.student_model import align
from persyn_hf.errors import InputError, require
from persyn_hf.stage import Progress


@dataclass(frozen=True, kw_only=True)
class Student:
    """A model inside the harness, with its number of positions for question and answer together."""

    lm: Any
    tokenizer: Any
    positions: int = sys.maxsize
    chat: bool = True  # prompts go through the chat template

    def answer(self, task: MathTask, max_tokens: int) -> tuple[list[Answered], dict[str, Any]]:
        """Answer all questions greedily; return the answers, in order and unjudged, and how many were cut (`cut`)."""
        from lm_eval.api.task import ConfigurableTask

        self._check_room(max_tokens)
        with quiet():
            samples, _ = self._evaluate(task.name, ConfigurableTask(config=_config(task, max_tokens)), None)
        answered = [
            Answered(
                prompt=sample["doc"]["question"],
                reference=sample["doc"]["reference"],
                prediction=sample["filtered_resps"][0],
                score=None,
            )
            for sample in samples
        ]
        return answered, {"cut": self.lm.cut}

    def answer_stock(
        self, name: str, task: Any, limit: int | None, max_tokens: int, metric: str | None
    ) -> tuple[list[Answered], dict[str, Any]]:
        """Answer a task that the harness ships; return the items as the harness scores them, and its own metrics.

        Raises `InputError` where the task holds no items or has no such metric.
        """
        generates = task.get_config("output_type") == "generate_until"
        with quiet():
            if generates:
                self._check_room(max_tokens)
                kwargs = {"max_gen_toks": max_tokens, "do_sample": False, "temperature": 0.0}
                task.set_config(key="generation_kwargs", value=kwargs, update=True)
            samples, values = self._evaluate(name, task, limit)
        if not samples:
            raise InputError(f"the task {name} holds no items; a task needs at least one")
        kept = [stock_item(sample, metric) for sample in samples if sample["filter"] == samples[0]["filter"]]
        metrics = {"metric": metric_name(name, samples[0], metric), "harness": values}
        return kept, metrics | ({"cut": self.lm.cut} if generates else {})

    def num_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text, without special tokens."""
        if not texts:
            return []
        return [len(ids) for ids in self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]]

    def _evaluate(self, name: str, task: Any, limit: int | None) -> tuple[list[dict[str, Any]], dict[str, float]]:
        from lm_eval.evaluator import evaluate

        self.lm.what, self.lm.cut = f"evaluating {name}", 0
        task.set_fewshot_seed(seed=1234)  # the harness's own default
        with _fixed_chance(), np.errstate(invalid="ignore"):  # of no number `stock_item` makes an unjudged item
            outcome = evaluate(
                lm=self.lm,
                task_dict={"tasks": {name: task}},
                limit=limit,
                bootstrap_iters=0,
                apply_chat_template=self.chat,
                fewshot_as_multiturn=self.chat,
            )
        samples = sorted(outcome["samples"][name], key=lambda sample: sample["doc_id"])
        values = {k: float(v) for k, v in outcome["results"][name].items() if isinstance(v, float) and isfinite(v)}
        return samples, values

    def _check_room(self, max_tokens: int) -> None:
        if max_tokens >= self.positions:
            raise InputError(
                f"`evaluate.max_tokens` is {max_tokens}, but the student has {self.positions} positions for "
                "question and answer together; lower it"
            )


@contextmanager
def open_transformers(
    model: str, revision: str | None, template: str | None, *, dtype: models.Dtype, batch_size: int, progress: Progress
) -> Iterator[Student]:
    """Open a student in this process, on the first GPU or the CPU."""
    require("lm_eval", extra="eval", feature="Evaluation")
    tokenizer = models.load_tokenizer(model, revision, template)
    loaded = models.load_causal_lm(model, revision, dtype, "auto")
    align(loaded, tokenizer, chat.end_of_turn(tokenizer, model))
    with quiet():
        lm = make_lm(loaded, tokenizer, batch_size, progress)
    yield Student(lm=lm, tokenizer=tokenizer, positions=lm.max_length)


@contextmanager
def open_vllm(
    model: str,
    revision: str | None,
    template: str | None,
    *,
    dtype: models.Dtype,
    settings: VllmSettings,
    log: Path,
    progress: Progress,
) -> Iterator[Student]:
    """Open a student under a vLLM server of its own, which has ended, with its GPUs free, when the block is left."""
    require("lm_eval", extra="eval", feature="Evaluation")
    tokenizer = models.load_tokenizer(model, revision, template)
    with serve(model, revision, tokenizer, dtype=dtype, settings=settings, log=log, progress=progress) as (lm, length):
        yield Student(lm=lm, tokenizer=tokenizer, positions=length)


def recorded(predictions: Sequence[str | Sequence[float]], tokenizer: Any, progress: Progress) -> Student:
    """Open recorded answers to the items of one task, as `make_recorded` takes them, in the place of a model."""
    return Student(lm=make_recorded(predictions, progress), tokenizer=tokenizer, chat=False)


@contextmanager
def _fixed_chance() -> Iterator[None]:
    """Fix the seed of `random`, and restore its state afterwards.

    IFEval draws the letter to check at random where the one asked for is none of a to z, as in 2 of its 541 prompts.
    """
    before = random.getstate()
    random.seed(0)
    try:
        yield
    finally:
        random.setstate(before)


def _config(task: MathTask, max_tokens: int) -> dict[str, Any]:
    """Make the harness's task config; `until` is empty, for its default would cut answers at the first blank line."""
    from datasets import Dataset

    docs = Dataset.from_dict({"question": task.questions, "reference": task.references})
    config: dict[str, Any] = {
        "task": task.name,
        "custom_dataset": lambda **_: {"test": docs},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": lambda doc: doc["question"],
        "doc_to_target": lambda doc: doc.get("answer") or doc["reference"],
        "num_fewshot": task.num_fewshot,
        "generation_kwargs": {"until": [], "max_gen_toks": max_tokens, "do_sample": False, "temperature": 0.0},
        "metric_list": [{"metric": "bypass"}],  # graded afterwards
    }
    if task.num_fewshot:
        samples = [{"question": question, "answer": answer} for question, answer in task.examples]
        config["fewshot_config"] = {"sampler": "first_n", "samples": samples}
    return config
