"""A student in this process, by transformers."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from persyn_hf.backends import generation
from persyn_hf.backends import loading as models
from persyn_hf.backends.harness import weighing
from persyn_hf.backends.harness.answers import Sheet, open_sheet
from persyn_hf.backends.harness.lm import quiet
from persyn_hf.backends.harness.work import Done, Engine, Share, Work
from persyn_hf.errors import require


WINDOW = 4  # batches of pairs to weigh, which begin anew with what they share: any process gives the same numbers


@contextmanager
def open_local(
    model: str,
    revision: str | None,
    template: str | None,
    *,
    dtype: models.Dtype,
    batch_size: int,
    device: str = "auto",
) -> Iterator[tuple[Engine, Sheet]]:
    """Open a student on a device (auto: the first GPU, else the CPU), with the sheet of its answers."""
    require("lm_eval", extra="eval", feature="Evaluation")
    sheet = open_sheet(model, revision, template)
    loaded = models.load_causal_lm(model, revision, dtype, device)
    with quiet():
        engine = make_engine(loaded, sheet, batch_size)
    yield engine, sheet


def make_engine(model: Any, sheet: Sheet, batch_size: int) -> Engine:
    """Make the engine of a loaded model: the harness's HFLM, with generation of our own, which cuts no prompt."""
    from lm_eval.models.huggingface import HFLM

    class Local(HFLM):
        task: Any = None  # share and `done` of the pairs that are weighed

        def answer(self, work: Work, share: Share, done: Done) -> None:
            with models.suitable_threads(self.model):
                if work.max_tokens:
                    self._complete(work, share, done)
                else:
                    self.task = share, done
                    self.loglikelihood([SimpleNamespace(args=pair) for pair in work.texts], disable_tqdm=True)

        def _loglikelihood_tokens(self, requests: Any, **_: Any) -> Any:
            share, done = self.task
            order = sorted(range(len(requests)), key=lambda place: requests[place][1] + requests[place][2])
            for numbers in share.of(cut(order, WINDOW * batch_size)):
                asked = [requests[number] for number in numbers]
                if shares:
                    values = weighing.weigh(self.model, [pair for _, *pair in asked], batch_size)
                else:
                    values = super()._loglikelihood_tokens(asked, disable_tqdm=True)
                done(numbers, values)
            return []

        def _complete(self, work: Work, share: Share, done: Done) -> None:
            """Answer greedily, in batches of similar length, the longest first."""
            encoded = sheet.encode([prompt for (prompt,) in work.texts])
            order = sorted(range(len(encoded)), key=lambda place: (-len(encoded[place]), encoded[place]))
            pad = self.tokenizer.pad_token_id
            config = generation.request(max_tokens=work.max_tokens, ends=work.ends, pad=pad)
            for batch in share.of(cut(order, batch_size)):
                inputs = self.tokenizer.pad(
                    {"input_ids": [encoded[place] for place in batch]}, padding_side="left", return_tensors="pt"
                ).to(self.device)
                length = inputs["input_ids"].shape[1]
                until = [make_stop(self.tokenizer, work.stops, length)] if work.stops else []
                out = self.model.generate(**inputs, generation_config=config, stopping_criteria=until)
                done(batch, [sheet.heard(row, work.ends) for row in out[:, length:].tolist()])

    generation.prepare(model)
    shares = weighing.can_share(model)
    # A rendered chat template already holds its special tokens: add_bos_token=False adds none, as in training.
    engine: Engine = Local(
        pretrained=model,
        tokenizer=sheet.tokenizer,
        batch_size=batch_size,
        max_length=sheet.positions,
        add_bos_token=False,
    )
    return engine


def cut(order: list[int], size: int) -> Iterator[list[int]]:
    """Cut an order into windows of one size, but for the last."""
    return (order[begin : begin + size] for begin in range(0, len(order), size))


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
