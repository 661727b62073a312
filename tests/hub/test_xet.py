"""Xet, by which large files go wherever its client is installed: it works, or fails in one sentence, or is left."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import hf_xet
import httpx2
import pytest
from hub_samples import put
from hub_server import Fault, HubServer
from huggingface_hub.errors import OfflineModeIsEnabled

from persyn_hf.cli.main import main
from persyn_hf.store.hub import faults
from persyn_hf.store.hub.pull import pull
from persyn_hf.store.hub.push import push
from persyn_hf.store.hub.xet import xet_fault
from persyn_hf.store.local import Store
from persyn_hf.store.stored import Stored


REMEDY = "set HF_HUB_DISABLE_XET=1, which sends and fetches them by plain HTTP, and try again"
PLACES = {  # of a transfer, in its order
    "push": {
        "token": ("GET", r"/xet-write-token/"),
        "chunks": ("POST", r"^/cas/v1/xorbs/"),
        "shard": ("POST", r"^/cas/v./shards$"),
    },
    "pull": {
        "token": ("GET", r"/xet-read-token/"),
        "list": ("GET", r"^/cas/v./reconstructions/"),
        "chunks": ("GET", r"^/xorbs/"),
    },
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def stored(store: Store) -> Stored:
    return put(store, "prompts", rows=300)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither we nor the hub library wait long between two tries, in this process."""
    monkeypatch.setattr(faults, "WAITS_S", (0.05, 0.05))
    clock = SimpleNamespace(**vars(time) | {"sleep": lambda seconds: None})
    monkeypatch.setattr("huggingface_hub.utils._http.time", clock)


def command(way: str, hub: HubServer, store: Store, stored: Stored, tmp_path: Path) -> list[str]:
    """The arguments of `persyn`; what is pulled is on the Hub then, and goes to another store."""
    if way == "push":
        return ["artifacts", "push", stored.ref, "--store", str(store.root)]
    push(store, stored, api=hub.api(hub.token("alice")))
    return ["artifacts", "pull", stored.ref, "--store", str(tmp_path / "other")]


def test_large_files_go_and_come_by_xet(hub: HubServer, store: Store, stored: Stored, tmp_path: Path) -> None:
    api = hub.api(hub.token("alice"))
    push(store, stored, api=api)
    (pulled,) = pull(Store(tmp_path / "other"), stored.ref, api=api)
    pulled.check()
    assert pulled.digest == stored.digest
    assert hub.seen("POST", r"^/cas/v1/xorbs/") and hub.seen("GET", r"^/xorbs/")
    assert not hub.seen("PUT") and not hub.seen("GET", r"^/cdn/")


@pytest.mark.parametrize("place", ["token", "list", "chunks"])
@pytest.mark.parametrize("how", [{"status": 500}, {"status": 503, "times": 3}, {"cut": 0}, {"cut": 20}])
def test_a_fault_of_a_download_passes(
    hub: HubServer, store: Store, stored: Stored, tmp_path: Path, place: str, how: dict[str, int]
) -> None:
    api = hub.api(hub.token("alice"))
    push(store, stored, api=api)
    hub.faults.append(Fault(*PLACES["pull"][place], **how))
    (pulled,) = pull(Store(tmp_path / "other"), stored.ref, api=api)
    pulled.check()
    assert not hub.faults


@pytest.mark.parametrize("how", [{"status": 401}, {"status": 403}, {"status": 404}, {"status": 500}, {"cut": 0}])
@pytest.mark.parametrize(("way", "place"), [(way, place) for way, places in PLACES.items() for place in places])
def test_a_fault_that_stays_is_one_sentence_with_the_way_out(
    hub: HubServer,
    store: Store,
    stored: Stored,
    tmp_path: Path,
    way: str,
    place: str,
    how: dict[str, int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.token("alice"))
    arguments = command(way, hub, store, stored, tmp_path)
    capsys.readouterr()
    hub.faults.append(Fault(*PLACES[way][place], **how, times=999))
    assert main(arguments) == 2
    told = capsys.readouterr().err
    found = f"answers with status {how['status']}" if "status" in how else r"does not answer"
    assert told.startswith(f"error: {way}ing alice/prompts@v1: Xet, where the Hub keeps large files, {found}"), told
    left = " (alice/prompts was made on the Hub and is empty yet)" if way == "push" else ""
    assert told.endswith(f"; {REMEDY}{left}\n") and told.count("\n") == 1, told
    assert "://" not in told and "hf_" not in told and "xet_" not in told, told
    hub.use_plain(monkeypatch)
    assert main(arguments) == 0
    assert hub.repo("alice/prompts").tags.keys() == {"v1"}


def test_storage_that_cannot_be_reached_is_told(
    hub: HubServer, store: Store, stored: Stored, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.token("alice"))
    hub.api_state.xet.url = "http://127.0.0.1:9/cas"
    assert main(["artifacts", "push", stored.ref, "--store", str(store.root)]) == 2
    told = capsys.readouterr().err
    assert "large files, does not answer (ConnectionError); set HF_HUB_DISABLE_XET=1" in told and "://" not in told


def test_a_token_route_that_is_a_page_is_told(
    hub: HubServer, store: Store, stored: Stored, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a proxy answers in the place of what it does not know."""
    monkeypatch.setenv("HF_TOKEN", hub.token("alice"))
    hub.faults.append(Fault("GET", r"/xet-write-token/", 200, times=999, message="<html>"))
    assert main(["artifacts", "push", stored.ref, "--store", str(store.root)]) == 2
    told = capsys.readouterr().err
    assert "Xet, where the Hub keeps large files," in told and REMEDY in told and "://" not in told


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("way", "place"), [("push", "token"), ("push", "chunks"), ("pull", "token"), ("pull", "chunks")]
)
def test_a_transfer_without_an_answer_can_be_left(
    hub: HubServer, store: Store, stored: Stored, tmp_path: Path, way: str, place: str, number: int
) -> None:
    arguments = command(way, hub, store, stored, tmp_path)
    hub.faults += [Fault(*PLACES[way][place], delay_s=300, times=999)] * 2
    silent = hub.faults[-1]
    process = subprocess.Popen(
        [sys.executable, "-m", "persyn_hf.cli", *arguments],
        env=hub.env(hub.token("alice"), home=tmp_path / "home"),
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 120
    while silent.times == 999 and process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    assert silent.times < 999, "it waits for an answer"
    process.send_signal(number)
    try:
        _, told = process.communicate(timeout=20)
    finally:
        process.kill()
    left = " (alice/prompts was made on the Hub and is empty yet)" if way == "push" else ""
    assert told.startswith(f"interrupted: {way}ing alice/prompts@v1 is unfinished{left}; "), told
    assert told.count("\n") == 1 and process.returncode == 130


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (hf_xet.XetAuthenticationError("Auth error: http://x"), 401),
        (hf_xet.XetObjectNotFoundError("Not found: http://x"), 404),
        (ConnectionError("Network error: HTTP status client error (403 Forbidden), domain: http://x"), 403),
        (TimeoutError("Request timed out"), None),
        (RuntimeError("Task error: HTTP status server error (500 Internal Server Error)"), 500),
        (ValueError("Xet headers have not been correctly set by the server."), None),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.usefixtures("hub")
def test_the_errors_of_its_client_are_known(error: Exception, status: int | None) -> None:
    fault = xet_fault(error)
    assert fault is not None and fault.status == status and "://" not in str(fault)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "No such file or directory", "x"),
        PermissionError(13, "Permission denied", "x"),
        ConnectionResetError("reset"),
        OfflineModeIsEnabled("offline"),
        httpx2.ConnectError("refused", request=httpx2.Request("GET", "http://x/api/datasets/a/b/refs")),
        ValueError("Invalid metadata in README.md."),
        KeyError("x"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.usefixtures("hub")
def test_the_errors_of_others_are_not_laid_at_its_door(error: Exception) -> None:
    assert xet_fault(error) is None


@pytest.mark.usefixtures("plain")
def test_where_it_is_switched_off_it_is_not_blamed() -> None:
    assert xet_fault(RuntimeError("Cannot send a request")) is None
