"""A Hub that cannot be reached: told at once, with what the store lacks, and without giving up on a push."""

import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_samples import put
from hub_server import HubServer
from huggingface_hub import HfApi, constants

from persyn_hf.cli.main import main
from persyn_hf.errors import StoreError
from persyn_hf.store.hub import faults
from persyn_hf.store.hub.push import push
from persyn_hf.store.local import Store


@pytest.fixture
def mute() -> Iterator[str]:
    """An address whose packets get lost: its queue of connections is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(server.getsockname())
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        for one in waiting:
            one.close()


@pytest.mark.heavy
@pytest.mark.parametrize("command", ["show", "verify", "pull", "diff"])
@pytest.mark.parametrize("why", ["ConnectError", "ConnectTimeout", "offline"])
def test_a_mistyped_ref_is_told_within_seconds(
    hub: HubServer,
    mute: str,
    tmp_path: Path,
    command: str,
    why: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Store(tmp_path / "store")
    put(store, "prompts")
    endpoint = mute if why == "ConnectTimeout" else "http://127.0.0.1:9"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", why == "offline")
    arguments = ["artifacts", command, "alice/promts@v1", *(["alice/prompts@v1"] if command == "diff" else [])]
    begun = time.monotonic()
    assert main([*arguments, "--store", str(store.root)]) == 2
    assert time.monotonic() - begun < 4
    away = "HF_HUB_OFFLINE forbids to ask it; unset HF_HUB_OFFLINE and try again"
    if why != "offline":
        away = f"{endpoint} does not answer ({why}); try again with a network"
    here = f"alice/promts@v1 is not in the store {store.root}, did you mean alice/prompts@v1?; reading"
    told = f"{'pulling' if command == 'pull' else here} alice/promts@v1 needs the Hub, and {away}"
    assert capsys.readouterr().err == f"error: {told}\n"


def test_a_push_is_tried_again(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "WAITS_S", (0.5,) * 7)
    stored = put(store := Store(tmp_path / "store"), "prompts")
    begun = time.monotonic()
    with pytest.raises(StoreError, match=r"^pushing alice/prompts@v1 needs the Hub, and .* does not answer"):
        push(store, stored, api=HfApi(endpoint="http://127.0.0.1:9", token=hub.token("alice")))
    assert time.monotonic() - begun > 0.5 * (faults.CONNECT_TRIES - 1)


def test_what_was_read_before_is_read_without_the_hub(
    hub: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = put(store := Store(tmp_path / "store"), "prompts")
    push(store, stored, api=hub.api(hub.token("alice")))
    shutil.rmtree(store.root)
    show, verify = (["artifacts", word, stored.ref, "--store", str(store.root)] for word in ("show", "verify"))
    assert main(show) == 0
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert main(show) == 0, "its manifest is in the cache"
    assert main(verify) == 2
    assert f"reading {stored.ref} needs the Hub, and http://127.0.0.1:9 does not answer" in capsys.readouterr().err
