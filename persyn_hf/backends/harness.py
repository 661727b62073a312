"""lm-evaluation-harness: run a student over stock tasks, or over questions of one's own that math-verify grades.

The harness builds the prompts, batches and generates; grading by math-verify comes after generation, all items at
once, in worker processes that can be killed (the harness grades in its own process, where math-verify can hang).
`lm_eval.simple_evaluate` is left aside for the functions that it calls: it also scans all installed packages and asks
the Hub for the model, and neither is wanted here.
"""

import contextlib
import json
import logging
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persyn_hf.backends.chat import DATE
from persyn_hf.backends.models import suitable_threads
from persyn_hf.errors import InputError, require
from persyn_hf.recipe import nearest
from persyn_hf.stage import Progress


THOUSANDS = re.compile(r"(?<![\d,.(\[{])\d{1,3}(?:,\d{3})+(?![\d,)\]}])")


@dataclass(frozen=True, kw_only=True)
class MathTask:
    """Questions with reference answers."""

    name: str
    questions: list[str]
    references: list[str]
    examples: list[tuple[str, str]]  # (question, worked answer) shown before each question, num_fewshot of them
    num_fewshot: int


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One item of a task as the harness left it. `score` is the harness's own metric, None for a `MathTask`."""

    prompt: str
    reference: str | None
    prediction: str
    score: float | None


def final_answer(text: str, marker: str) -> str | None:
    """What follows the last `marker`, without thousands separators: "... #### 1,080" gives "1080"; None: no marker."""
    _, found, answer = text.rpartition(marker)
    answer = THOUSANDS.sub(lambda number: number.group().replace(",", ""), answer).strip()
    return answer if found and answer else None


def read_questions(path: str, question: str, answer: str) -> list[tuple[str, str]]:
    """(question, answer) of every line of a JSONL file, as text."""
    if not Path(path).is_file():
        raise InputError(f"{path} does not exist or is no file; a task's `path` must name a JSONL file")
    pairs = []
    try:
        for number, line in enumerate(Path(path).read_text(encoding="utf-8-sig").split("\n"), start=1):
            if not line.strip():
                continue
            row = json.loads(line)
            for column in (question, answer):
                if column not in row:
                    raise InputError(f"{path}, line {number}: no column `{column}`{nearest(column, row)}")
                if row[column] is None or not str(row[column]).strip():
                    raise InputError(f"{path}, line {number}: column `{column}` is empty; every item needs one")
            pairs.append((str(row[question]).strip(), str(row[answer]).strip()))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}, line {number}: not a JSON object: {' '.join(str(error).split())}") from None
    if not pairs:
        raise InputError(f"{path} holds no items; a task needs at least one")
    return pairs


def wilson(correct: float, total: int, z: float = 1.959964) -> tuple[float, float]:
    """95 % interval of a share (E. B. Wilson, 1927): unlike the normal one it stays in [0, 1] and holds at 0 and 1."""
    if total == 0:
        return 0.0, 1.0
    share, shrink = correct / total, 1 + z * z / total
    middle = (share + z * z / (2 * total)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return max(0.0, middle - half), min(1.0, middle + half)


class Student:
    """A model inside the harness."""

    def __init__(self, model: Any, tokenizer: Any, batch_size: int, progress: Progress) -> None:
        require("lm_eval", extra="eval", feature="Evaluation")
        self.tokenizer = tokenizer
        self.chat = tokenizer.chat_template is not None
        with quiet():
            self.lm = _make_lm(model, tokenizer, batch_size, self.chat, progress)

    def answer(self, task: MathTask, max_tokens: int) -> tuple[list[Answered], dict[str, int]]:
        """Greedy answers to all questions, in order; and how many answers were cut at `max_tokens`."""
        from lm_eval.api.task import ConfigurableTask

        self._check_room(max_tokens)
        with quiet():
            harness_task = ConfigurableTask(config=_config(task, max_tokens))
            self.lm.cut = 0
            samples, _ = self._evaluate(task.name, harness_task, None)
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

    def stock(
        self, name: str, num_fewshot: int | None, limit: int | None, max_tokens: int
    ) -> dict[str, tuple[list[Answered], dict[str, float]]]:
        """A task (or group of tasks) that the harness ships, graded by the harness: items and its own metrics."""
        results = {}
        for task_name, task in _load_stock(name).items():
            with quiet():
                if num_fewshot is not None:
                    task.set_config(key="num_fewshot", value=num_fewshot)
                elif task.get_config("num_fewshot") is None:
                    task.set_config(key="num_fewshot", value=0)
                if task.get_config("output_type") == "generate_until":
                    self._check_room(max_tokens)
                    kwargs = {"max_gen_toks": max_tokens, "do_sample": False, "temperature": 0.0}
                    task.set_config(key="generation_kwargs", value=kwargs, update=True)
                samples, values = self._evaluate(task_name, task, limit)
            first_filter = samples[0]["filter"] if samples else None
            kept = [_stock_item(sample) for sample in samples if sample["filter"] == first_filter]
            results[task_name] = kept, values
        return results

    def num_tokens(self, texts: Sequence[str]) -> list[int]:
        if not texts:
            return []
        return [len(ids) for ids in self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]]

    def _evaluate(self, name: str, task: Any, limit: int | None) -> tuple[list[dict[str, Any]], dict[str, float]]:
        from lm_eval.evaluator import evaluate

        self.lm.what = f"evaluating {name}"
        task.set_fewshot_seed(seed=1234)  # the harness's own default
        with suitable_threads(self.lm.model):
            found = evaluate(
                lm=self.lm,
                task_dict={"tasks": {name: task}},
                limit=limit,
                bootstrap_iters=0,
                apply_chat_template=self.chat,
                fewshot_as_multiturn=self.chat,
            )
        samples = sorted(found["samples"][name], key=lambda sample: sample["doc_id"])
        values = {k: v for k, v in found["results"][name].items() if isinstance(v, (int, float))}
        return samples, values

    def _check_room(self, max_tokens: int) -> None:
        if max_tokens >= self.lm.max_length:
            raise InputError(
                f"`evaluate.max_tokens` is {max_tokens}, but the student has {self.lm.max_length} positions for "
                "question and answer together; lower it"
            )


def _make_lm(model: Any, tokenizer: Any, batch_size: int, chat: bool, progress: Progress) -> Any:
    """The harness's HFLM with three changes: progress, no slow stop check, answers that were cut are counted."""
    from lm_eval.models.huggingface import HFLM

    class Hook:
        def add_partial(self, attr: str, req: Any, res: Any) -> None:
            progress.advance()

    class StudentLM(HFLM):
        cut = 0
        what = ""

        def generate_until(self, requests: Any, **kwargs: Any) -> Any:
            progress.start(self.what, total=len(requests))
            return super().generate_until(requests, **kwargs)

        def loglikelihood(self, requests: Any, **kwargs: Any) -> Any:
            progress.start(self.what, total=len(requests))
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
        add_bos_token=False if chat else None,
        chat_template_args={"strftime_now": DATE.strftime},  # the date that the student was trained with
    )
    lm.set_cache_hook(Hook())
    return lm


def _config(task: MathTask, max_tokens: int) -> dict[str, Any]:
    """The harness's task config. `until` is empty: its default would cut answers at the first blank line."""
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


def _load_stock(name: str) -> dict[str, Any]:
    from lm_eval.tasks import TaskManager

    with quiet():
        manager = TaskManager()
        if name not in manager.task_index:
            raise InputError(
                f"lm-evaluation-harness has no task `{name}`{_nearest_task(name, manager.all_tasks)}; "
                "a task of your own needs a `path`"
            )
        try:
            return dict(manager.load([name])["tasks"])
        except (OSError, ValueError, ImportError) as error:
            raise InputError(f"the task {name} cannot be loaded: {' '.join(str(error).split())}") from None


def _nearest_task(name: str, known: list[str]) -> str:
    hint, _, _ = nearest(name, known).rpartition(" (known:")  # there are thousands: the list itself is of no use
    return hint


def _stock_item(sample: dict[str, Any]) -> Answered:
    """The item with the task's first metric as its score; of multiple choice, the choice taken is the prediction."""
    metric = next((name for name in sample["metrics"] if isinstance(sample[name], (int, float))), None)
    responses = sample["filtered_resps"]
    if len(responses) > 1 and not isinstance(responses[0], str):
        likelihoods = [response[0] for response in responses]
        best = max(range(len(likelihoods)), key=likelihoods.__getitem__)
        prediction = str(sample["arguments"][best][1]).strip()
    else:
        prediction = str(responses[0])
    doc = sample["doc"]
    prompt = next((str(doc[key]) for key in ("question", "prompt", "query", "problem") if key in doc), json.dumps(doc))
    target = sample["target"]
    return Answered(
        prompt=prompt,
        reference=None if target is None else str(target),
        prediction=prediction,
        score=None if metric is None else float(sample[metric]),
    )


def _hidden(bar: Any) -> Any:
    return lambda *args, **kwargs: bar(*args, **(kwargs | {"disable": True}))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the harness's log and progress bars; faults still show."""
    from lm_eval.api import task as task_module
    from lm_eval.models import huggingface as model_module

    loggers = [logging.getLogger(name) for name in ("lm_eval", "transformers")]
    levels = [logger.level for logger in loggers]
    modules = (task_module, model_module)
    bars = [module.tqdm for module in modules]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    for module, bar in zip(modules, bars, strict=True):
        module.tqdm = _hidden(bar)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for module, bar in zip(modules, bars, strict=True):
            module.tqdm = bar
