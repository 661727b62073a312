"""Read the addresses of servers: what a url means, what of it may be shown, and where a redirect may lead."""

import re
from urllib.parse import urljoin, urlsplit, urlunsplit

import httpx2

from persyn_hf.errors import RecipeError


VERSION = re.compile(r"v\d+[a-z0-9]*")  # of a path's part: v1, v4, v1beta
REDIRECTS = (301, 302, 307, 308)


def addresses(url: str, path: str, urls_at: str) -> tuple[str, str]:
    """Return the addresses of `path` and of the list of models.

    A url may be given up to its version (`/v1`, `/v1beta/openai`, `/api/paas/v4`), or whole, up to the end of `path`.
    A version that is nowhere in it is added, as other clients do; not where the query names one, as Azure's does.

    Raises `RecipeError` where `url` is none; `urls_at` is the setting that holds it.
    """
    try:
        host = httpx2.URL(url).host
    except httpx2.InvalidURL:
        host = ""
    if not host:
        raise RecipeError(f"`{urls_at}`: found {url!r}, an address such as http://localhost:8000/v1 is needed")
    parts = urlsplit(url)
    given, end = parts.path.rstrip("/"), path.removeprefix("/v1")
    if given.endswith(end):
        base, root = given.removesuffix(end), None
    elif "api-version=" in parts.query or any(VERSION.fullmatch(part) for part in given.split("/")):
        base, root = given, given.removesuffix("/v1")
    else:
        base, root = f"{given}/v1", given
    # What is not below /v1 (`/classify`) stands beside it.
    address = base + end if root is None or path.startswith("/v1") else root + path
    return urlunsplit(parts._replace(path=address)), urlunsplit(parts._replace(path=base + "/models"))


def shown(url: str) -> str:
    """Remove from a url what may be secret: user, password and query."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


def goes_on(address: str, status: int, location: str | None) -> str | None:
    """Return where a redirect leads that may be followed: within the same server, or from its http to its https."""
    if status not in REDIRECTS or not location:
        return None
    try:
        further = urljoin(address, location)
        old, new = httpx2.URL(address), httpx2.URL(further)
    except (httpx2.InvalidURL, ValueError):
        return None
    same = (old.scheme, old.host, old.port) == (new.scheme, new.host, new.port)
    upgraded = (old.scheme, new.scheme, old.host) == ("http", "https", new.host) and old.port is new.port is None
    return further if same or upgraded else None
