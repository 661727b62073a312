"""The Space deployed: its folder, artifacts of the Hub."""

import json
import os
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hub_server import HubServer
from huggingface_hub.utils import disable_progress_bars
from space_samples import blob

import persyn_hf
from persyn_hf.errors import DamagedArtifact, StoreError
from persyn_hf.space.collection import open_folder, open_shelf
from persyn_hf.space.events import Desk
from persyn_hf.store.hub import faults
from persyn_hf.store.hub.push import push
from persyn_hf.store.local import Store


SPACE = Path(__file__).parent.parent.parent / "spaces" / "allocations"
FIRST, ANSWERS = "org/assignments-s-routed@v1", "org/responses@v1"
MADE_FROM = ["org/prompts@v1", "org/rewards-s@v1", "org/router-s@v1"]


@pytest.fixture(scope="module")
def published(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    """alice's: what was made from the router, and the answers, which were made from another assignment."""
    with HubServer(tmp_path_factory.mktemp("hub")) as server, pytest.MonkeyPatch.context() as patch:
        server.add_user("alice", orgs=("org",))
        server.attach(patch)
        disable_progress_bars()
        for ref in (*MADE_FROM, FIRST, "org/assignments-s-persyn@v1", ANSWERS):
            push(store, store.get(ref), api=server.api(server.token("alice")))
        yield server


@pytest.fixture
def hub(published: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """Asked by somebody without a login, who has fetched nothing yet."""
    published.attach(monkeypatch, home=tmp_path / "home")
    monkeypatch.setattr(faults, "WAITS_S", (0.05, 0.05, 0.05))
    published.requests.clear()
    return published


@pytest.fixture
def empty(tmp_path: Path) -> Store:
    return Store(tmp_path / "empty")


def told(store: Store, *refs: str) -> str:
    """Why these cannot be shown."""
    with pytest.raises(StoreError) as error:
        open_shelf(refs, store)
    return str(error.value)


def serve(environment: dict[str, str]) -> tuple[subprocess.Popen[str], str]:
    """The Space's own program, once it answers; "" where it ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {"GRADIO_SERVER_PORT": port, "GRADIO_SERVER_NAME": "0.0.0.0"} | environment
    process = subprocess.Popen(
        [sys.executable, SPACE / "app.py"],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    return process, f"http://127.0.0.1:{port}/" if "shown at" in process.stdout.readline() else ""


# Artifacts of the Hub


def test_artifacts_of_the_hub_are_shown_from_an_empty_store(hub: HubServer, store: Store, empty: Store) -> None:
    theirs, ours = (Desk(open_shelf([FIRST, ANSWERS], place)) for place in (empty, store))
    assert sorted(theirs.shelf.items) == sorted([*MADE_FROM, FIRST, ANSWERS, "org/assignments-s-persyn@v1"])
    assert not theirs.shelf.missing and not empty.root.exists()
    assert theirs.shelf.fetched == theirs.shelf.items.keys() and not ours.shelf.fetched
    assert [item.digest for item in theirs.shelf.items.values()] == [
        store.get(ref).digest for ref in theirs.shelf.items
    ]
    for view in ("allocation", "prompts", "lineage"):
        values = theirs.defaults | {"view": view, "with": []}
        shown = theirs.show(values)[view]
        assert "message error" not in shown
        if view != "lineage":  # cards are the publisher's
            assert shown == ours.show(values)[view]
    assert hub.seen("GET", r"/org/router-s/.*persyn\.json") and not hub.seen("GET", r"/org/router-s/.*config\.json")


def test_private_artifacts_need_a_login(
    hub: HubServer, empty: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = hub.api(hub.token("alice"))
    try:
        api.update_repo_settings("org/assignments-s-routed", repo_type="dataset", private=True)
        assert told(empty, FIRST) == (
            f"{FIRST} is not in the store {empty.root}; org/assignments-s-routed is no dataset or model on the Hub "
            "that you can see; check the name, or, where it is private, run `hf auth login` as a user who has access"
        )
        monkeypatch.setenv("HF_TOKEN", hub.token("alice", "read"))
        assert open_shelf([FIRST], empty).get(FIRST)
        api.update_repo_settings("org/assignments-s-routed", repo_type="dataset", private=False)
        api.update_repo_settings("org/rewards-s", repo_type="dataset", private=True)
        hub.attach(monkeypatch, home=tmp_path / "stranger")  # without the token, too
        shelf = open_shelf([FIRST], empty)
        assert list(shelf.missing) == ["org/rewards-s@v1"]
        assert "org/rewards-s is no dataset or model on the Hub that you can see" in shelf.missing["org/rewards-s@v1"]
        assert "org/rewards-s is no dataset or model" in Desk(shelf).show({"view": "lineage"})["lineage"]
    finally:
        for repo in ("org/assignments-s-routed", "org/rewards-s"):
            api.update_repo_settings(repo, repo_type="dataset", private=False)


def test_a_name_that_leads_nowhere(hub: HubServer, empty: Store) -> None:
    here = f"is not in the store {empty.root}"
    assert told(empty, "org/assignments-s-routed@v3") == (
        f"org/assignments-s-routed@v3 {here}; org/assignments-s-routed on the Hub has no tag `v3` (known: v1)"
    )
    assert told(empty, "org/assignments-s-routed") == (
        f"org/assignments-s-routed {here}, and what the Hub holds changes; name a tag: org/assignments-s-routed@v1"
    )
    assert told(empty, "org/prompts@v1") == (
        "org/prompts@v1 holds no assignments, at least one is needed; make some with `persyn run RECIPE`, or name one "
        "of the Hub: NAMESPACE/NAME@TAG"
    )
    assert told(empty, "org/none@v1").startswith(f"org/none@v1 {here}; org/none is no dataset or model on the Hub")


def test_without_a_network_what_was_fetched_before_is_shown(
    hub: HubServer, empty: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    open_shelf([FIRST], empty)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert open_shelf([FIRST], empty).get(FIRST).manifest.inputs.keys() == {"prompts", "rewards", "router"}
    said = told(empty, FIRST, ANSWERS)
    assert said.startswith(f"{ANSWERS} is not in the store {empty.root}; ")
    assert said.endswith("needs the Hub, and HF_HUB_OFFLINE forbids to ask it; unset HF_HUB_OFFLINE and try again")


@pytest.mark.heavy
def test_the_deployed_program_shows_what_its_variable_names(hub: HubServer, tmp_path: Path) -> None:
    where = {"PERSYN_STORE": str(tmp_path / "none"), "TMPDIR": str(tmp_path), "PERSYN_REFS": f"{FIRST}  {ANSWERS}\n"}
    process, address = serve(hub.env(home=tmp_path / "cache") | where)
    try:
        assert address, process.communicate()[1]
        text = urllib.request.urlopen(address).read().decode()
        assert FIRST in text and "tiny/example" not in text
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert not (tmp_path / "none").exists()


@pytest.mark.heavy
def test_the_deployed_program_says_what_is_wrong(hub: HubServer, tmp_path: Path) -> None:
    where = {"PERSYN_STORE": str(tmp_path / "none"), "PERSYN_REFS": "org/assignments-s-routed@v2"}
    process, address = serve(hub.env(home=tmp_path / "cache") | where)
    _, said = process.communicate(timeout=60)
    assert (address, process.returncode) == ("", 1)
    assert said == (
        f"error: org/assignments-s-routed@v2 is not in the store {tmp_path / 'none'}; org/assignments-s-routed on the "
        "Hub has no tag `v2` (known: v1)\n"
    )


def test_a_changed_file_in_the_cache_of_the_hub_is_not_shown(hub: HubServer, empty: Store, changed: Any) -> None:
    shelf = open_shelf([FIRST], empty)
    changed(blob(shelf.get("org/rewards-s@v1")), b"PAR1", b"PAR2")
    with pytest.raises(DamagedArtifact, match=r"^org/rewards-s@v1: data/default/\S+\.parquet is damaged, found "):
        open_shelf([FIRST], empty)


# The folder


def test_what_the_hub_reads_of_the_folder() -> None:
    _, front, text = (SPACE / "README.md").read_text().split("---\n", 2)
    said = yaml.safe_load(front)
    assert said["sdk"] == "gradio" and (SPACE / said["app_file"]).is_file()
    assert isinstance(said["python_version"], str) and isinstance(said["sdk_version"], str)
    assert len(said["short_description"]) <= 60  # the Hub refuses longer ones
    version = persyn_hf.__version__
    assert (SPACE / "requirements.txt").read_text() == f"persyn-hf[space]=={version}\n"
    assert f"persyn_hf-{version}-py3-none-any.whl" in text


def test_the_example_is_what_its_recipe_makes_with_its_router(tmp_path: Path) -> None:
    shelf = open_folder(SPACE / "example")
    assert {item.manifest.recipe for item in shelf.items.values()} == {"example"}
    files = [path for path in (SPACE / "example").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".md", ".parquet", ".safetensors"}
    weights = {path.parent.parent.name for path in files if path.suffix == ".safetensors"}
    assert weights == {"example-router-qwen-student"}
    assert sum(path.stat().st_size for path in files) < 1.25 * 2**20
    for item in shelf.items.values():
        for word in item.manifest.inputs:
            found = shelf.input(item, word)
            assert found is not None or word == "pairs", f"{item.ref}: {word}"
    assert not [path for path in files if re.search(rb"/(tmp|work|root|home)/", path.read_bytes())]
    assert json.loads((SPACE / "example/example-prompts/v1/persyn.json").read_text())["counts"]["rows"] == 460
