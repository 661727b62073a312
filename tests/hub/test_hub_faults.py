"""What the real client of the Hub makes of each fault, and what is left on the server afterwards."""

import os
import re
import socket
import time
from pathlib import Path

import httpx2
import pytest
from hub_server import Fault, HubServer
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
)


LARGE = os.urandom(3_000_000)
DATA = "lab/data"


@pytest.fixture
def api(hub: HubServer) -> HfApi:
    api = hub.api(hub.token("alice"))
    api.create_repo(DATA, repo_type="dataset")
    return api


def commit(api: HfApi, path: str = "n.txt", content: bytes = b"new") -> str:
    return api.create_commit(
        DATA, [CommitOperationAdd(path, content)], commit_message=f"add {path}", repo_type="dataset"
    ).oid


def titles(hub: HubServer) -> list[str]:
    return [commit.title for commit in hub.repo(DATA).commits]


def blobs(hub: HubServer) -> list[str]:
    return os.listdir(hub.root / "blobs")


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "Invalid username or password."),
        (403, "403 Forbidden: Forbidden."),
        (404, "404 Not Found"),
        (409, "another conflicting operation is in progress"),
        (412, "A commit has happened since. Please refresh and try again."),
        (429, "429 Too Many Requests"),
        (500, "Internal Error - We're working hard to fix this as soon as possible!"),
        (503, "503 Service Unavailable"),
    ],
)
def test_a_refused_commit_is_none(hub: HubServer, api: HfApi, status: int, message: str) -> None:
    hub.faults.append(Fault("POST", "/commit/main$", status))
    with pytest.raises(HfHubHTTPError, match=re.escape(message)) as error:
        commit(api)
    assert error.value.response.status_code == status
    assert titles(hub) == ["initial commit"] and hub.faults == []
    assert hub.repo(DATA).commits[0].sha != commit(api) == hub.repo(DATA).commits[0].sha
    assert [seen.status for seen in hub.seen("POST", "/commit/main")] == [status, 200]


def test_the_clients_choose_their_error_by_the_code(hub: HubServer, api: HfApi) -> None:
    for code, kind in {
        "RepoNotFound": RepositoryNotFoundError,
        "GatedRepo": GatedRepoError,
        "EntryNotFound": EntryNotFoundError,
    }.items():
        hub.faults.append(Fault("GET", f"/api/datasets/{DATA}$", 403, headers={"X-Error-Code": code}))
        with pytest.raises(kind):
            api.dataset_info(DATA)
    hub.faults.append(Fault("GET", f"/api/datasets/{DATA}$", 418, message="I am a teapot", times=2))
    for _ in range(2):
        with pytest.raises(HfHubHTTPError, match="I am a teapot"):
            api.dataset_info(DATA)
    assert api.dataset_info(DATA).id == DATA


def test_an_error_may_hide_a_commit(hub: HubServer, api: HfApi) -> None:
    hub.faults.append(Fault("POST", "/commit/", 500, after=True))
    with pytest.raises(HfHubHTTPError, match="500"):
        commit(api)
    assert titles(hub) == ["add n.txt", "initial commit"]
    assert commit(api) == hub.repo(DATA).commits[0].sha and len(titles(hub)) == 2  # the client sees nothing to add


@pytest.mark.parametrize("cut", [0, 20])
def test_an_answer_may_be_lost(hub: HubServer, api: HfApi, cut: int) -> None:
    hub.faults.append(Fault("POST", "/commit/", after=True, cut=cut))
    with pytest.raises((httpx2.RemoteProtocolError, httpx2.ReadError)):
        commit(api)
    assert titles(hub) == ["add n.txt", "initial commit"]
    assert [seen.status for seen in hub.seen("POST", "/commit/")] == [None]


def test_the_client_waits_as_long_as_it_is_told(hub: HubServer, api: HfApi) -> None:
    hub.faults.append(Fault("POST", "/preupload/", 429, retry_after=1))
    started = time.monotonic()
    commit(api)
    assert time.monotonic() - started >= 1
    path = f"/api/datasets/{DATA}/preupload/main"
    assert hub.seen("POST", "/preupload/") == [("POST", path, 429, "alice"), ("POST", path, 200, "alice")]


@pytest.mark.usefixtures("plain")
def test_an_upload_that_breaks_off_leaves_nothing(hub: HubServer, api: HfApi) -> None:
    before = blobs(hub)
    hub.faults.append(Fault("PUT", "^/storage/", cut=1_000_000))
    commit(api, "x.parquet", LARGE)
    assert [seen.status for seen in hub.seen("PUT")] == [None, 200]
    assert hub.repo(DATA).read("x.parquet") == LARGE
    assert len(blobs(hub)) == len(before) + 1


def test_a_client_that_goes_in_mid_upload_leaves_nothing(hub: HubServer, api: HfApi) -> None:
    before = blobs(hub)
    host, port = hub.url.removeprefix("http://").split(":")
    path = f"/storage/dataset/{DATA}/{'0' * 64}?Signature={hub.api_state.signature}"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n".encode() + b"x" * 500)
    until = time.monotonic() + 10
    while not hub.seen("PUT") and time.monotonic() < until:
        time.sleep(0.01)
    assert [seen.status for seen in hub.seen("PUT")] == [None]
    assert blobs(hub) == before and hub.repo(DATA).lfs == {}


def test_what_was_altered_on_the_way_is_not_kept(hub: HubServer) -> None:
    hub.api(hub.token("alice")).create_repo(DATA, repo_type="dataset")
    url = f"{hub.url}/storage/dataset/{DATA}/{'0' * 64}"
    assert httpx2.put(f"{url}?Signature={hub.api_state.signature}", content=iter([b"a", b"b"])).status_code == 400
    assert httpx2.put(url, content=b"ab").status_code == 403
    assert hub.repo(DATA).lfs == {}


@pytest.mark.usefixtures("plain")
def test_a_download_that_breaks_off_goes_on_where_it_was(hub: HubServer, api: HfApi) -> None:
    content = os.urandom(12_000_000)  # the client writes pieces of 10 MiB
    commit(api, "x.parquet", content)
    hub.faults.append(Fault("GET", "^/cdn/", cut=11_000_000))
    path = api.hf_hub_download(DATA, "x.parquet", repo_type="dataset")
    assert Path(path).read_bytes() == content
    assert [seen.status for seen in hub.seen("GET", "^/cdn/")] == [None, 206]


@pytest.mark.parametrize("after", [False, True])
def test_a_slow_answer_may_come_too_late(hub: HubServer, api: HfApi, after: bool) -> None:
    hub.faults.append(Fault("POST", "/api/repos/create", delay_s=0.5, after=after))
    with pytest.raises(httpx2.ReadTimeout):
        body = {"name": "late", "type": "model"}
        headers = {"Authorization": f"Bearer {api.token}"}
        httpx2.post(f"{hub.url}/api/repos/create", json=body, headers=headers, timeout=0.1)
    assert hub.has_repo("alice/late", "model") is after


def test_a_server_that_crashes_fails_its_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match="GET /api/whoami-v2\nTraceback(.|\n)*ZeroDivisionError"):
        with HubServer(tmp_path) as hub:
            monkeypatch.setattr(hub.api_state, "answer", lambda call: 1 / 0)
            with pytest.raises(httpx2.RemoteProtocolError):
                httpx2.get(f"{hub.url}/api/whoami-v2")
