"""The Gradio server: pages, pictures and files by address, and the same data by Gradio's API."""

import functools
import os
import sys
import threading
from typing import Any

from persyn_hf.errors import PersynError, require
from persyn_hf.space import downloads, pages
from persyn_hf.space.api import NAMES, Api, answering
from persyn_hf.space.collection import Shelf
from persyn_hf.space.events import Desk
from persyn_hf.space.url_state import fields_of


# What a model wrote can never run, load or send anything, even if it got past the templates.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; style-src-attr 'unsafe-inline'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'self' https://huggingface.co https://*.huggingface.co"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "strict-origin-when-cross-origin",
}
YEAR = {"Cache-Control": "public, max-age=31536000, immutable"}  # assets bear their digest in the address
HOUR = {"Cache-Control": "public, max-age=3600"}


def build(shelf: Shelf) -> Any:
    """Return the app as `gr.Server`, a FastAPI application with Gradio's API."""
    gr = require("gradio", extra="space", feature="`persyn space`")
    from fastapi import Request
    from fastapi.responses import HTMLResponse, Response, StreamingResponse

    desk = Desk(shelf)
    server = gr.Server(docs_url=None, redoc_url=None, openapi_url=None, title="Who teaches what")

    def refusal(title: str, error: PersynError, status: int) -> Response:
        return HTMLResponse(pages.message(title, str(error), "error"), status, headers=HEADERS)

    @server.get("/")
    def page(request: Request) -> Response:
        origin = os.environ.get("SPACE_HOST")  # the Hub's proxy does not say by which name it was asked
        whole = f"https://{origin}/" if origin else str(request.base_url)
        try:
            fields = fields_of(request.url.query)
        except PersynError as error:
            return refusal("This address cannot be read", error, 400)
        return HTMLResponse(desk.page(fields, whole), headers=HEADERS)

    @server.get("/assets/{name}")
    def asset(name: str) -> Response:
        found = pages.asset(name)
        if found is None:
            return Response(status_code=404)
        content, media = found
        return Response(content, media_type=media, headers=HEADERS | YEAR)

    @server.get("/save/{name}")
    def save(name: str, request: Request) -> Response:
        try:
            state, _ = desk.read(fields_of(request.url.query))
            if name == "thumbnail.png":
                return Response(desk.thumbnail(state), media_type="image/png", headers=HEADERS | HOUR)
            file = downloads.make(name, desk.scene(state))
        except PersynError as error:
            return refusal("This cannot be saved", error, 404)
        disposition = {"Content-Disposition": f'attachment; filename="{file.name}"'}
        return StreamingResponse(file.content, media_type=file.media, headers=HEADERS | disposition)

    api = Api(desk)
    quiet = functools.partial(gr.Error, print_exception=False)
    for name in NAMES:
        server.api(answering(getattr(api, name), quiet), name=name)
    return server


def launch(shelf: Shelf, host: str = "127.0.0.1", port: int = 7860) -> None:
    """Serve the app until it is interrupted; nothing can be uploaded, and no file of the disk is served.

    Raises:
        PersynError: the port is taken.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when the server is launched
    server = build(shelf)
    try:
        _, address_of_page, _ = server.launch(
            server_name=host,
            server_port=port,
            share=False,
            ssr_mode=False,
            mcp_server=False,
            enable_monitoring=False,
            max_file_size=1,
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError:
        raise PersynError(f"port {port} of {host} is taken or not allowed; name another with --port") from None
    sys.stdout.write(f"{len(shelf.assignments)} assignments are shown at {address_of_page} (Ctrl-C ends it)\n")
    sys.stdout.flush()
    threading.Event().wait()
