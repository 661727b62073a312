"""Answer the items of a task by a student, whatever its engine."""

import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import numpy as np

from persyn_hf.backends.harness import Answered
from persyn_hf.backends.harness.answers import Said, Sheet
from persyn_hf.backends.harness.lm import make_lm, quiet
from persyn_hf.backends.harness.questions import MathTask
from persyn_hf.backends.harness.recorded import make_recorded
from persyn_hf.backends.harness.stock_items import (
    choose_filter,
    choose_metric,
    finish_reason,
    metric_name,
    score_of,
    stock_item,
)
from persyn_hf.backends.harness.summary import summarise_scores
from persyn_hf.backends.harness.work import Engine, Kept
from persyn_hf.errors import InputError
from persyn_hf.stage import Progress


@dataclass(frozen=True, kw_only=True)
class Student:
    """A model inside the harness, with the sheet that it writes its answers on."""

    lm: Any
    sheet: Sheet
    chat: bool = True  # prompts go through the chat template

    def answer(self, task: MathTask, max_tokens: int) -> tuple[list[Answered], dict[str, Any]]:
        """Answer all questions greedily; return the answers, in order and unjudged, with the counts of `_told`."""
        from lm_eval.api.task import ConfigurableTask

        self._check_room(max_tokens)
        with quiet():
            samples = self._evaluate(task.name, ConfigurableTask(config=_config(task, max_tokens)), None)
        answered = []
        for sample in samples:
            asked = sample["doc_id"] not in self.sheet.too_long
            said = self.sheet.said.get(sample["doc_id"], Said(answer=""))
            answered.append(
                Answered(
                    prompt=sample["doc"]["question"],
                    reference=sample["doc"]["reference"],
                    prediction=said.answer,
                    reasoning=said.reasoning,
                    finish_reason=finish_reason(said, asked),
                    score=None,
                )
            )
        return answered, self._told(generates=True)

    def answer_stock(
        self,
        name: str,
        task: Any,
        limit: int | None,
        max_tokens: int,
        metric: str | None,
        filter_name: str | None = None,
    ) -> tuple[list[Answered], dict[str, Any]]:
        """Answer a task that the harness ships; return the items as the harness scores them, and its own metrics.

        Raises `InputError` where the task holds no items, no such filter, or no such metric that is a share.
        """
        metric, chosen = choose_metric(name, task, metric), choose_filter(name, task, filter_name)
        generates = task.get_config("output_type") == "generate_until"
        with quiet():
            if generates:
                self._check_room(max_tokens)
                until = (task.get_config("generation_kwargs") or {}).get("until") or []
                kwargs = {"until": [until] if isinstance(until, str) else until, "max_gen_toks": max_tokens}
                task.set_config(key="generation_kwargs", value=kwargs)
            samples = self._evaluate(name, task, limit)
        if not samples:
            raise InputError(f"the task {name} holds no items; a task needs at least one")
        long = self.sheet.too_long
        groups = {
            key: [s for s in samples if s["filter"] == key] for key in dict.fromkeys(s["filter"] for s in samples)
        }
        told = {"metric": metric_name(name, metric), "harness": _summed(task, groups, long)}
        items = [
            stock_item(sample, metric, self.sheet.said.get(sample["doc_id"]), asked=sample["doc_id"] not in long)
            for sample in groups[chosen]
        ]
        if len(groups) > 1:
            scores = {
                key: [None if sample["doc_id"] in long else score_of(sample, metric) for sample in of]
                for key, of in groups.items()
            }
            columns = zip(*scores.values(), strict=True)
            items = [replace(item, by_filter=list(of)) for item, of in zip(items, columns, strict=True)]
            told |= {"filter": chosen, "filters": {key: summarise_scores(of) for key, of in scores.items()}}
        return items, told | self._told(generates)

    def num_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text, without special tokens."""
        if not texts:
            return []
        return [len(ids) for ids in self.sheet.encode(texts)]

    def _told(self, generates: bool) -> dict[str, int]:
        """Count the items that were not asked (`too_long`) and, of generated answers, those that were cut."""
        cut = {"cut": sum(said.cut for said in self.sheet.said.values())} if generates else {}
        return cut | {"too_long": len(self.sheet.too_long)}

    def _evaluate(self, name: str, task: Any, limit: int | None) -> list[dict[str, Any]]:
        from lm_eval.evaluator import evaluate

        if (task.get_config("repeats") or 1) > 1:
            raise InputError(
                f"the task {name} wants {task.get_config('repeats')} answers to each item, but evaluation is greedy, "
                "which gives one; leave it out"
            )
        self.lm.what = f"evaluating {name}"
        self.sheet.begin(name)
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
        return sorted(outcome["samples"][name], key=lambda sample: sample["doc_id"])

    def _check_room(self, max_tokens: int) -> None:
        if max_tokens >= self.sheet.positions:
            raise InputError(
                f"`evaluate.max_tokens` is {max_tokens}, but the student has {self.sheet.positions} positions for "
                "question and answer together; lower it"
            )


@contextmanager
def open_student(opening: AbstractContextManager[tuple[Engine, Sheet]], kept: Kept) -> Iterator[Student]:
    """Open a student by its engine; what `kept` knows is not asked again."""
    with opening as (engine, sheet):
        yield Student(lm=make_lm(sheet, kept, engine), sheet=sheet)


def recorded(predictions: Sequence[str | Sequence[float]], tokenizer: Any, progress: Progress) -> Student:
    """Open recorded answers to the items of one task, as `make_recorded` takes them, in the place of a model."""
    sheet = Sheet(tokenizer=tokenizer, ends=(), positions=sys.maxsize)
    return Student(lm=make_recorded(predictions, sheet, progress), sheet=sheet, chat=False)


def _summed(task: Any, groups: Mapping[str, Sequence[Mapping[str, Any]]], left_out: set[int]) -> dict[str, float]:
    """Compute the harness's own metrics of each filter over the items that were asked: {"metric,filter": value}."""
    found = {}
    for name, samples in groups.items():
        asked = [sample for sample in samples if sample["doc_id"] not in left_out]
        for metric in samples[0]["metrics"]:
            with np.errstate(invalid="ignore"):
                value = task.aggregation()[metric]([sample[metric] for sample in asked])
            if isinstance(value, float) and isfinite(value):
                found[f"{metric},{name}"] = float(value)
    return found


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
        "generation_kwargs": {"until": [], "max_gen_toks": max_tokens},
        "metric_list": [{"metric": "bypass"}],  # graded afterwards
    }
    if task.num_fewshot:
        samples = [{"question": question, "answer": answer} for question, answer in task.examples]
        config["fewshot_config"] = {"sampler": "first_n", "samples": samples}
    return config
