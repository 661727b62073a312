"""Logins at the Hub: the client of the user, whether the Hub answers, and whether the user may write.

The token comes from where the hub library keeps it (`hf auth login`, HF_TOKEN) and is never looked at here.
"""

import functools
from typing import TYPE_CHECKING, Any

from persyn_hf.errors import StoreError
from persyn_hf.store.hub.faults import patiently, telling
from persyn_hf.version import __version__


if TYPE_CHECKING:
    from huggingface_hub import HfApi

CONNECT_S = 30
REACH_S = 2  # for the first connection, before anything is read from the Hub
REPLY_S = 10  # for the answer to the first word
ANSWER_S = 300  # the Hub takes its time over commits of many files
LOGIN = "`hf auth login` with a token of role write (https://huggingface.co/settings/tokens)"


def hub_api() -> "HfApi":
    """Return the client of the user who is logged in, for the Hub at HF_ENDPOINT."""
    from huggingface_hub import HfApi

    _bound_waits()
    return HfApi(library_name="persyn-hf", library_version=__version__)


@functools.cache
def _bound_waits() -> None:
    """Bound every request of the hub library in time; by itself it would wait for ever on a dead connection."""
    import httpx2
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils._http import default_client_factory

    def client() -> httpx2.Client:
        """Return the hub library's own HTTP client with our time limits."""
        made = default_client_factory()
        made.timeout = httpx2.Timeout(ANSWER_S, connect=CONNECT_S)
        return made

    set_client_factory(client)


def check_reachable(endpoint: str) -> None:
    """Raise at once where the Hub does not answer or must not be asked; any answer will do.

    Each call of the hub library would find that out by itself, after retries of up to a minute.

    Raises:
        httpx2.TransportError: the Hub does not answer.
        huggingface_hub.errors.OfflineModeIsEnabled: HF_HUB_OFFLINE is set.
    """
    import httpx2
    from huggingface_hub import get_session

    get_session().head(endpoint, timeout=httpx2.Timeout(REPLY_S, connect=REACH_S))


def check_rights(api: "HfApi", namespace: str) -> None:
    """Ask the Hub whether repositories may be written under a namespace.

    Raises:
        StoreError: nobody is logged in, the token only reads, or it has no rights there.
    """
    if api.token is False:
        raise StoreError(f"pushing needs a login, found none; run {LOGIN}")
    with telling(f"{namespace}/...", f"pushing to {namespace}/..."):
        who: dict[str, Any] = patiently(lambda: api.whoami(cache=True))
    user, token = who["name"], who.get("auth", {}).get("accessToken", {})
    if token.get("role") == "read":
        raise StoreError(f"the token of `{user}` can only read, pushing needs one that can write; run {LOGIN}")
    allowed = [user, *(org["name"] for org in who.get("orgs", []) if org.get("roleInOrg") != "read")]
    if namespace not in allowed:
        raise StoreError(
            f"`{user}` has no right to write to the namespace `{namespace}`, only to {', '.join(allowed)}; name one "
            "of them with --namespace, or as `namespace:` of the recipe"
        )
    if token.get("role") == "fineGrained" and not _writes(token, namespace):
        raise StoreError(
            f"the fine-grained token of `{user}` has no right to write to repositories of `{namespace}`; add it at "
            f"https://huggingface.co/settings/tokens, or run {LOGIN}"
        )


def _writes(token: dict[str, Any], namespace: str) -> bool:
    """Tell whether a fine-grained token may write to repositories of a namespace."""
    scopes = token.get("fineGrained", {}).get("scoped", [])
    names = [scope.get("entity", {}).get("name", "") for scope in scopes if "repo.write" in scope["permissions"]]
    return any(name.partition("/")[0] == namespace for name in names)
