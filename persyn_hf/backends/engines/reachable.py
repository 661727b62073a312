"""Look at servers before anything is asked of them: whether they answer, and know the models that will be named."""

import asyncio
from collections.abc import Sequence

from persyn_hf.backends.engines.bodies import Places
from persyn_hf.backends.engines.server import APIS
from persyn_hf.backends.engines.settings import ServerSettings
from persyn_hf.errors import PersynError


LOOK_S = 3.0  # a server that is slower may be busy; a run waits longer


def look_at_servers(asked: Sequence[tuple[str, str, ServerSettings]]) -> list[str]:
    """Return a sentence for each model and url at which something is wrong; all are looked at together."""

    async def look_at_all() -> list[str | None]:
        return await asyncio.gather(*(_look(*one) for one in asked))

    return [sentence for sentence in asyncio.run(look_at_all()) if sentence is not None]


async def _look(model: str, url: str, settings: ServerSettings) -> str | None:
    try:
        options = settings.options()
        key, hint = options["api_key"], options["key_hint"]
        endpoint = APIS[settings.api](
            model, url, api_key=key, extra=settings.extra, connections=1, key_hint=hint, places=Places()
        )
    except PersynError as error:
        return str(error)
    try:
        return await asyncio.wait_for(endpoint.look(), LOOK_S)
    except TimeoutError:
        return f"{endpoint.name} did not answer within {LOOK_S:.0f} s; a run will wait for it as `patience_s` says"
    finally:
        await endpoint.close()
