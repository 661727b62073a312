"""The batch engine: a teacher behind a provider's batch API, for half the price and within a day.

A batch is paid for once it is made, and its answers come hours later, to whichever run asks then. So what is sent is
noted before it is sent, in a file per batch (`notes`). An example:

    run 1    notes mark m1 and 500 requests, makes a batch of mark m1, notes its id b1; is killed
    run 2    reads the note, looks at b1 every minute, gets 480 answers; 20 have expired and are sent anew
    killed between making and noting the id: run 2 finds b1 among the provider's batches (`Service.find`)
    killed before the batch was made: run 2 finds none, and sends the requests

Answers are those of the `server` engine, with the same keys in the journal: either finds what the other has asked.
"""

from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from persyn_hf.backends.answers import Answer, Batch, Request, refuse
from persyn_hf.backends.engines.addresses import addresses, shown
from persyn_hf.backends.engines.batch.anthropic import MessageBatches
from persyn_hf.backends.engines.batch.collecting import Collecting
from persyn_hf.backends.engines.batch.notes import FOLDER, NOBODY, Notes, Sender
from persyn_hf.backends.engines.batch.openai import OpenAIBatches
from persyn_hf.backends.engines.batch.service import Service
from persyn_hf.backends.engines.endpoint import CHAT, URLS_AT
from persyn_hf.backends.engines.messages import MESSAGES
from persyn_hf.backends.engines.server import ServerEngine
from persyn_hf.backends.engines.settings import BatchSettings, ServerSettings
from persyn_hf.errors import RecipeError


LONGEST_SETTLE_S = 60.0  # a batch that is made shows among the others by then


class BatchEngine(ServerEngine):
    """One teacher behind one url with a batch API."""

    def __init__(
        self,
        model: str,
        settings: ServerSettings,
        batch: BatchSettings,
        *,
        revision: str | None = None,
        system_prompt: str | None = None,
        state_dir: Path,
        sender: Sender = NOBODY,
    ) -> None:
        super().__init__(model, settings, revision=revision, system_prompt=system_prompt)
        if len(settings.urls) > 1:
            raise RecipeError(
                f"the teacher model `{model}` has {len(settings.urls)} urls, and a batch goes to one; leave one of "
                "`server.urls`"
            )
        self._batch, self._sender = batch, sender
        self._notes = Notes(state_dir.parent / FOLDER)

    @property
    def collects_from(self) -> str:
        """The service whose batches it collects, as notes name it."""
        path = MESSAGES if self._settings.api == "anthropic" else CHAT
        address, _ = addresses(self._settings.urls[0], path, URLS_AT)
        return shown(address).removesuffix(path.removeprefix("/v1"))

    def send(self, batches: Iterable[Batch]) -> None:
        """Send what is not under way, and wait for nothing."""
        asked = _asked(batches, [])
        if asked:
            with closing(self._service()) as service:
                self._collecting(service, asked).send()

    def generate(self, batches: Iterable[Batch]) -> Iterator[list[Answer]]:
        """Send what is not under way, and yield the answers of one batch after another as they end.

        Raises:
            UnderWay: answers are still to come, and the run is not to wait for them.
            EngineError: the service takes no batch, or one is gone.
        """
        refused: list[Answer] = []
        asked = _asked(batches, refused)
        if refused:
            yield refused
        if asked:
            with closing(self._service()) as service:
                collecting = self._collecting(service, asked)
                collecting.send()
                yield from collecting.answers()

    def _collecting(self, service: Service, asked: dict[str, Request]) -> Collecting:
        return Collecting(service, self._notes, self._batch, self._sender, asked, self._waits)

    def _service(self) -> Service:
        settings, options = self._settings, self._settings.options()
        given: dict[str, Any] = {
            "key": options["api_key"],
            "key_hint": options["key_hint"],
            "patience_s": settings.patience_s,
            "settle_s": min(self._batch.poll_s, LONGEST_SETTLE_S),
        }
        service: Service
        if settings.api == "anthropic":
            service = MessageBatches(self._name, settings.urls[0], settings.extra, **given)
        else:
            service = OpenAIBatches(self._name, settings.urls[0], settings.extra, window=self._batch.window, **given)
        service.waits = self._waits
        return service


def _asked(batches: Iterable[Batch], refused: list[Answer]) -> dict[str, Request]:
    """Return the requests by their keys, without those that cannot be asked, which go to `refused` as answers."""
    requests = {request.key: request for batch in batches for request in batch}
    refused += [refuse(request) for request in requests.values() if request.prompt.refusal]
    return {key: request for key, request in requests.items() if not request.prompt.refusal}
