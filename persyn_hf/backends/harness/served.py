"""Serve a student by vLLM, and ask it by the harness's own client."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from persyn_hf.backends import generation
from persyn_hf.backends import loading as models
from persyn_hf.backends.chat import DATE, end_of_turn
from persyn_hf.backends.engines import local_prompts as rendered
from persyn_hf.backends.engines.settings import VllmSettings, value_of
from persyn_hf.backends.engines.vllm_server import VllmServer, check_arguments
from persyn_hf.backends.harness.answers import Sheet, Spoken
from persyn_hf.backends.harness.lm import make_hook, quiet
from persyn_hf.errors import EngineError, reason
from persyn_hf.stage import Progress


SERVED = "student"


@contextmanager
def serve(
    model: str,
    revision: str | None,
    tokenizer: Any,
    *,
    dtype: models.Dtype,
    settings: VllmSettings,
    log: Path,
    progress: Progress,
    own: Mapping[str, str] = generation.VLLM_ARGUMENTS,
) -> Iterator[tuple[Any, Sheet]]:
    """Start a server of the student; yield a model of the harness that asks it, and its sheet.

    `own` are arguments of the server that are not the user's.
    """
    check_arguments(settings.args, "evaluate")
    given = value_of(settings.args, "--max-model-len")
    length = int(given) if given else rendered.context_length(model, revision)
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
            yield make_client(server, sheet, settings, progress), sheet
    finally:
        server.stop()


def _stored_dtype(model: str, revision: str | None) -> str:
    """Read the dtype that the weights are stored in: vLLM's own `auto` would run float32 weights in 16 bits."""
    return str(models.read_config(model, revision).dtype or "float32").removeprefix("torch.")


def make_client(server: VllmServer, sheet: Sheet, settings: VllmSettings, progress: Progress) -> Any:
    """Make the harness's client of a completions endpoint, with our chat template, generation and progress.

    Where the server dies, it is started again and asked for everything anew.
    """
    from aiohttp import ClientConnectionError, ClientError
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    class Served(LocalCompletionsAPI):
        what = ""

        def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
            to_answer = add_generation_prompt
            ending = {"add_generation_prompt": to_answer, "continue_final_message": not to_answer}
            render = self.tokenizer.apply_chat_template
            return str(render(chat_history, tokenize=False, strftime_now=DATE.strftime, **ending))

        def generate_until(self, requests: Any, **_: Any) -> Any:
            return sheet.ask(requests, self._complete)

        def loglikelihood(self, requests: Any, **kwargs: Any) -> Any:
            parent = super().loglikelihood
            return sheet.weigh(requests, lambda asked: self._tell(asked, lambda: parent(asked, **kwargs)))

        def _complete(self, requests: Any, stops: list[str], ends: list[int], max_tokens: int) -> list[Spoken]:
            prompts = [request.args[0] for request in requests]
            options = {"until": stops, "max_gen_toks": max_tokens, "stop_token_ids": ends}
            asked = {"cache_keys": [(prompt, options) for prompt in prompts], "generate": True, "gen_kwargs": options}
            encoded = sheet.encode(prompts)
            found = self._tell(requests, lambda: asyncio.run(self.get_batched_requests(encoded, **asked)))
            return [sheet.heard(ids, ends) for ids in chain.from_iterable(found)]

        def _create_payload(self, *args: Any, generate: bool = False, **kwargs: Any) -> dict[str, Any]:
            payload: dict[str, Any] = super()._create_payload(*args, generate=generate, **kwargs)
            return payload | {"return_token_ids": True} if generate else payload

        def parse_generations(self, outputs: Any, **_: Any) -> Any:
            return [choice["token_ids"] for choice in outputs["choices"]]

        def _tell(self, requests: Any, ask: Callable[[], Any]) -> Any:
            for left in reversed(range(settings.max_restarts + 2)):
                progress.start(self.what, total=len(requests))
                try:
                    return ask()
                except (ClientError, TimeoutError) as error:
                    if not left or not isinstance(error, ClientConnectionError):
                        raise EngineError(f"the vLLM server of the student failed: {reason(error)}") from None
                    server.recover(server.url)  # refuses, with the end of the log, after `max_restarts`

    lm = Served(
        base_url=f"{server.url}/completions",
        model=SERVED,
        tokenizer_backend=None,
        num_concurrent=max(2, settings.concurrency * settings.data_parallel_size),
        max_retries=settings.attempts,
        max_length=sheet.positions,
        timeout=int(settings.timeout_s),
    )
    lm.tokenizer, lm.tokenizer_backend, lm.tokenized_requests = sheet.tokenizer, "huggingface", True
    lm.set_cache_hook(make_hook(progress))
    return lm
