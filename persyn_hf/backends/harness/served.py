"""Serve a student by vLLM, and ask it by the harness's own client."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from persyn_hf.backends import generation
from persyn_hf.backends import loading as models
from persyn_hf.backends.chat import end_of_turn
from persyn_hf.backends.engines import local_prompts as rendered
from persyn_hf.backends.engines.settings import VllmSettings, value_of
from persyn_hf.backends.engines.vllm_server import VllmServer, check_arguments
from persyn_hf.backends.harness.answers import Sheet
from persyn_hf.backends.harness.lm import quiet
from persyn_hf.backends.harness.work import Done, Engine, Share, Work
from persyn_hf.errors import EngineError, reason, require


SERVED = "student"


@contextmanager
def open_served(
    model: str, revision: str | None, template: str | None, *, dtype: models.Dtype, settings: VllmSettings, log: Path
) -> Iterator[tuple[Engine, Sheet]]:
    """Open a student under a vLLM server of its own, which has ended, with its GPUs free, when the block is left."""
    require("lm_eval", extra="eval", feature="Evaluation")
    tokenizer = models.load_tokenizer(model, revision, template)
    with serve(model, revision, tokenizer, dtype=dtype, settings=settings, log=log) as opened:
        yield opened


@contextmanager
def serve(
    model: str,
    revision: str | None,
    tokenizer: Any,
    *,
    dtype: models.Dtype,
    settings: VllmSettings,
    log: Path,
    own: Mapping[str, str] = generation.VLLM_ARGUMENTS,
) -> Iterator[tuple[Any, Sheet]]:
    """Start a server of the student; yield the engine that asks it, which has its `base_url`, and the sheet.

    `own` are arguments of the server that are not the user's.
    """
    check_arguments(settings.args, "evaluate")
    length = positions_of(settings, model, revision)
    arguments = {
        "--model": model,
        "--served-model-name": SERVED,
        "--dtype": _stored_dtype(model, revision) if dtype == "auto" else dtype,
        **settings.layout,
        "--max-model-len": str(length),
    }
    if revision is not None:
        arguments |= {"--revision": revision, "--tokenizer-revision": revision}
    arguments |= own
    ours = {name: value for name, value in arguments.items() if value_of(settings.args, name) is None}
    server = VllmServer(
        model,
        [*chain.from_iterable(ours.items()), *settings.args],
        stage="evaluate",
        log=log,
        start_timeout_s=settings.start_timeout_s,
        max_restarts=settings.max_restarts,
    )
    try:
        server.start()
        ends = generation.end_tokens(model, revision, tokenizer, end_of_turn(tokenizer, model))
        sheet = Sheet(tokenizer=tokenizer, ends=ends, positions=length)
        with quiet():
            yield make_client(server, sheet, settings), sheet
    finally:
        server.stop()


def positions_of(settings: VllmSettings, model: str, revision: str | None) -> int:
    """Return the positions that a server has for prompt and answer together."""
    given = value_of(settings.args, "--max-model-len")
    return int(given) if given else rendered.context_length(model, revision)


def _stored_dtype(model: str, revision: str | None) -> str:
    """Read the dtype that the weights are stored in: vLLM's own `auto` would run float32 weights in 16 bits."""
    return str(models.read_config(model, revision).dtype or "float32").removeprefix("torch.")


def make_client(server: VllmServer, sheet: Sheet, settings: VllmSettings) -> Any:
    """Make the engine of a completions endpoint: the harness's own client, with generation of ours.

    Where the server dies, it is started again and asked for what is left.
    """
    from aiohttp import ClientConnectionError, ClientError
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    class Served(LocalCompletionsAPI):
        numbers: Sequence[int] = ()  # of the pairs that are weighed

        def answer(self, work: Work, share: Share, done: Done) -> None:
            left = [number for (number,) in share.of([number] for number in range(len(work.texts)))]

            def hear(_: str, number: int, heard: Any) -> None:
                left.remove(number)
                done([number], [sheet.heard(heard, work.ends) if work.max_tokens else heard])

            self.set_cache_hook(SimpleNamespace(add_partial=hear))  # which the harness calls with every answer
            ask = self._complete if work.max_tokens else self._weigh
            starts = settings.max_restarts + 1
            while left:
                try:
                    ask(work, left[:])
                except (ClientError, TimeoutError) as error:
                    if not starts or not isinstance(error, ClientConnectionError):
                        raise EngineError(f"the vLLM server of the student failed: {reason(error)}") from None
                    starts -= 1
                    server.recover(server.url)  # refuses, with the end of the log, after `max_restarts`

        def _complete(self, work: Work, numbers: list[int]) -> None:
            encoded = sheet.encode([work.texts[number][0] for number in numbers])
            options = {"until": work.stops, "max_gen_toks": work.max_tokens, "stop_token_ids": work.ends}
            asked = self.get_batched_requests(encoded, cache_keys=numbers, generate=True, gen_kwargs=options)
            asyncio.run(asked)

        def _weigh(self, work: Work, numbers: list[int]) -> None:
            self.numbers = numbers
            self.loglikelihood([SimpleNamespace(args=work.texts[number]) for number in numbers], disable_tqdm=True)

        def _loglikelihood_tokens(self, requests: Any, **_: Any) -> Any:
            numbered = [(number, *pair) for number, (_, *pair) in zip(self.numbers, requests, strict=True)]
            return super()._loglikelihood_tokens(numbered, disable_tqdm=True)

        def _create_payload(self, *args: Any, generate: bool = False, **kwargs: Any) -> dict[str, Any]:
            payload: dict[str, Any] = super()._create_payload(*args, generate=generate, **kwargs)
            return payload | {"return_token_ids": True} if generate else payload

        def parse_generations(self, outputs: Any, **_: Any) -> Any:
            return [choice["token_ids"] for choice in outputs["choices"]]

    client = Served(
        base_url=f"{server.url}/completions",
        model=SERVED,
        tokenizer_backend=None,
        num_concurrent=max(2, settings.concurrency * settings.data_parallel_size),
        max_retries=settings.attempts,
        max_length=sheet.positions,
        timeout=int(settings.timeout_s),
    )
    client.tokenizer, client.tokenizer_backend, client.tokenized_requests = sheet.tokenizer, "huggingface", True
    return client
