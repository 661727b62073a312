"""Publishing to a Hub that fails, and beside others: published once and right, or not at all and told."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hub_samples import put
from hub_server import Fault, HubServer
from huggingface_hub import set_client_factory
from huggingface_hub.utils._http import default_client_factory

from persyn_hf.errors import StoreError
from persyn_hf.store.hub import faults
from persyn_hf.store.hub import login as access
from persyn_hf.store.hub.push import Pushed, push
from persyn_hf.store.local import Store
from persyn_hf.store.manifest import Manifest
from persyn_hf.store.stored import Stored


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "WAITS_S", (0.05, 0.05, 0.05))


def published(hub: HubServer, stored: Stored) -> None:
    """It is there once, whole, under its tag."""
    repo = hub.repo(stored.repo)
    assert [c.title for c in repo.commits] == [f"Publish {stored.tag} {stored.digest[:40]}", "initial commit"]
    assert repo.tags == {stored.tag: repo.commits[0].sha}
    manifest = Manifest.model_validate_json(repo.read("persyn.json"))
    files = repo.commits[0].files
    assert {name: files[name].sha256 for name in manifest.files} == manifest.files


@pytest.mark.parametrize(
    "fault",
    [
        Fault("POST", r"/repos/create$", 500, after=True),
        Fault("POST", r"/commit/", 500, after=True),
        Fault("POST", r"/commit/", 500),
        Fault("POST", r"/commit/", cut=10),
        Fault("POST", r"/commit/", after=True, cut=0),
        Fault("POST", r"/commit/", 412),
        Fault("POST", r"/commit/", 429, retry_after=1),
        Fault("POST", r"/tag/", 503, times=2),
        Fault("POST", r"/tag/", 500, after=True),
        Fault("POST", r"/tag/", 409),
        Fault("POST", r"/validate-yaml$", 502),
        Fault("GET", r"/xet-write-token/", 500),
        Fault("GET", r"/xet-write-token/", cut=10),
        Fault("POST", r"/cas/v1/xorbs/", 503, times=3),
        Fault("POST", r"/cas/v1/xorbs/", cut=100),
        Fault("POST", r"/cas/v1/shards$", 500, times=3),
        Fault("POST", r"/cas/v1/shards$", cut=0, after=True),
        Fault("GET", r"/refs$", 500),
        Fault("GET", r"/refs$", cut=5),
    ],
    ids=lambda fault: f"{fault.method}{fault.path_pattern}{fault.status}{'-after' if fault.after else ''}{fault.cut}",
)
def test_a_fault_that_passes(hub: HubServer, store: Store, fault: Fault) -> None:
    stored = put(store, "prompts")
    hub.faults.append(fault)
    pushed = push(store, stored, api=hub.api(hub.token("alice")))
    assert not hub.faults
    published(hub, stored)
    assert (pushed.sent, pushed.commit) == ("all", hub.repo("alice/prompts").tags["v1"])


@pytest.mark.usefixtures("plain")
def test_an_upload_cut_off_is_tried_again_without_xet(hub: HubServer, store: Store) -> None:
    stored = put(store, "prompts")
    hub.faults.append(Fault("PUT", r"/storage/", cut=100))
    push(store, stored, api=hub.api(hub.token("alice")))
    assert not hub.faults
    published(hub, stored)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            Fault("POST", r"/commit/", 503, times=99),
            "pushing alice/prompts@v1: the Hub answers with status 503; try again later "
            "(alice/prompts was made on the Hub and is empty yet)",
        ),
        (
            Fault("POST", r"/commit/", 429, times=99, retry_after=3600),
            "pushing alice/prompts@v1: the Hub's rate limit for your login or address is used up (429); try again in "
            "60 min (alice/prompts was made on the Hub and is empty yet)",
        ),
        (
            Fault("POST", r"/commit/", 412, times=99),
            "pushing alice/prompts@v1: alice/prompts was changed by others each time that it was tried (412); try "
            "again later (alice/prompts was made on the Hub and is empty yet)",
        ),
        (
            Fault("POST", r"/commit/", 413, times=99),
            "pushing alice/prompts@v1: it is larger than the Hub takes in one commit (413); publish less in one "
            "artifact (alice/prompts was made on the Hub and is empty yet)",
        ),
        (
            Fault("POST", r"/commit/", 403, times=99),
            "pushing alice/prompts@v1: the Hub forbids it to you (403); ask the owner of alice/prompts for the right, "
            "or use another login (alice/prompts was made on the Hub and is empty yet)",
        ),
    ],
)
def test_a_fault_that_stays_is_told_and_the_next_push_ends_it(
    hub: HubServer, store: Store, fault: Fault, message: str
) -> None:
    stored, api = put(store, "prompts"), hub.api(hub.token("alice"))
    hub.faults.append(fault)
    with pytest.raises(StoreError) as error:
        push(store, stored, api=api)
    assert str(error.value) == message
    assert len(hub.repo("alice/prompts").commits) == 1
    hub.faults.clear()
    push(store, stored, api=api)
    published(hub, stored)


def test_a_push_cut_off_before_its_tag_is_found_again(hub: HubServer, store: Store, tmp_path: Path) -> None:
    stored, api = put(store, "prompts"), hub.api(hub.token("alice"))
    hub.faults.append(Fault("POST", r"/tag/", 500, times=99))
    left = r"status 500; try again later \(alice/prompts has its files on the Hub, the tag is not set yet\)$"
    with pytest.raises(StoreError, match=left):
        push(store, stored, api=api)
    hub.faults.clear()
    push(store, put(store, "prompts", seed=1, tag="v2"), api=api)
    other = Store(tmp_path / "other")
    with pytest.raises(StoreError, match="alice/prompts@v1 already holds other content on the Hub"):
        push(other, put(other, "prompts", seed=2), api=api)
    assert push(store, stored, api=api).sent == "tag"
    repo = hub.repo("alice/prompts")
    by_title = {commit.title.split()[1]: commit.sha for commit in repo.commits[:-1]}
    assert repo.tags == by_title


def race(hub: HubServer, stores: list[Store], repo: str) -> list[Pushed | str]:
    """Push the one artifact of each store at once; what became of each."""
    barrier, results = threading.Barrier(len(stores)), [None] * len(stores)

    def run(number: int) -> None:
        api, stored = hub.api(hub.token("alice")), stores[number].get(repo)
        barrier.wait()
        try:
            results[number] = push(stores[number], stored, api=api)
        except StoreError as error:
            results[number] = str(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(stores))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize("slow", [None, r"/tag/", r"/commit/"])
def test_of_several_pushes_to_one_tag_one_wins(
    hub: HubServer, tmp_path: Path, slow: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "WAITS_S", (0.05,) * 20)
    stores = [Store(tmp_path / f"store-{number}") for number in range(4)]
    for seed, store in enumerate(stores):
        put(store, "prompts", seed=seed)
    if slow:
        hub.faults.append(Fault("POST", slow, delay_s=0.5))
    results = race(hub, stores, "alice/prompts@v1")
    (winner,) = [number for number, result in enumerate(results) if isinstance(result, Pushed)]
    stored = stores[winner].get("alice/prompts@v1")
    published(hub, stored)
    for number, result in enumerate(results):
        if number != winner:
            assert f"already holds other content on the Hub, digest {stored.digest[:40]}; this" in result


def test_the_same_content_pushed_at_once_is_there_once(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "WAITS_S", (0.05,) * 20)
    stores = [Store(tmp_path / f"store-{number}") for number in range(3)]
    for store in stores:
        put(store, "prompts", created_at="2026-01-01T00:00:00+00:00")
    results = race(hub, stores, "alice/prompts@v1")
    assert all(isinstance(result, Pushed) for result in results), results
    published(hub, stores[0].get("alice/prompts@v1"))


@pytest.mark.usefixtures("plain")
def test_killed_in_mid_upload_and_pushed_again(hub: HubServer, store: Store, tmp_path: Path) -> None:
    stored, token = put(store, "responses", rows=60), hub.token("alice")
    hub.faults.append(Fault("PUT", r"/storage/", delay_s=0, times=3))
    hub.faults.append(Fault("PUT", r"/storage/", delay_s=60, times=99))
    command = [sys.executable, "-m", "persyn_hf.cli", "artifacts", "push", stored.ref, "--store", str(store.root)]
    process = subprocess.Popen(command, env=hub.env(token), stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while len(hub.seen("PUT", r"/storage/")) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    sent = {seen.path for seen in hub.seen("PUT", r"/storage/") if seen.status == 200}
    assert len(sent) == 3
    assert len(hub.repo("alice/responses").commits) == 1, "nothing is published"
    hub.faults.clear()
    hub.requests.clear()
    push(store, stored, api=hub.api(token))
    published(hub, stored)
    again = {seen.path for seen in hub.seen("PUT", r"/storage/")}
    assert again and not again & sent, "what had arrived is not sent again"


def test_a_server_that_does_not_answer_is_not_waited_for(
    hub: HubServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = put(store, "prompts")
    monkeypatch.setenv("HF_TOKEN", hub.token("alice"))
    monkeypatch.setattr(access, "ANSWER_S", 2)
    access._bound_waits.cache_clear()
    hub.faults.append(Fault("POST", r"/commit/", delay_s=60, after=True))
    begun = time.monotonic()
    try:
        push(store, stored, api=access.hub_api())
    finally:
        access._bound_waits.cache_clear()
        set_client_factory(default_client_factory)
    assert time.monotonic() - begun < 40
    published(hub, stored)
