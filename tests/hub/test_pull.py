"""Bringing artifacts from a Hub into a store, and reading them without one."""

import json
import shutil
from pathlib import Path

import pytest
from hub_samples import chain, put
from hub_server import Fault, HubServer
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

from persyn_hf.errors import DamagedArtifact, StoreError
from persyn_hf.store.hub import faults
from persyn_hf.store.hub.pull import pull
from persyn_hf.store.hub.push import push
from persyn_hf.store.hub.read import download_manifest
from persyn_hf.store.lineage import verify
from persyn_hf.store.load import load_artifact
from persyn_hf.store.local import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def other(tmp_path: Path) -> Store:
    """Where things are pulled to."""
    return Store(tmp_path / "other")


@pytest.fixture
def api(hub: HubServer) -> HfApi:
    return hub.api(hub.token("alice"))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "WAITS_S", (0.05, 0.05, 0.05))


def told(store: Store, ref: str, api: HfApi, kind: type[StoreError] = StoreError) -> str:
    """The sentence for what cannot be pulled."""
    with pytest.raises(kind) as error:
        pull(store, ref, api=api)
    assert not any(store.root.glob("*--*/refs/*")), "nothing half-adopted"
    return str(error.value)


def retag(hub: HubServer, api: HfApi, repo: str, operations: list, repo_type: str = "dataset") -> None:
    """Change what the tag v1 holds, as somebody with the right to write may do."""
    made = api.create_commit(repo, operations, commit_message="changed", repo_type=repo_type)
    hub.repo(repo, repo_type).tags["v1"] = made.oid


def test_a_chain_is_pulled_as_it_was_put(hub: HubServer, store: Store, other: Store, api: HfApi) -> None:
    put(store, "prompts", figures={"figures/x.png": b"\x89PNG\0"})
    made = chain(store)
    for stored in made.values():
        push(store, stored, api=api)
    notes: list[str] = []
    pulled = pull(other, "alice/evaluation@v1", lineage=True, api=api, note=notes.append)
    assert [item.ref for item in pulled] == [f"alice/{name}@v1" for name in reversed(made)]
    assert notes[0] == f"pulled alice/evaluation@v1, digest {made['evaluation'].digest[:12]}"
    for stored in made.values():
        theirs = other.get(stored.ref)
        assert theirs.manifest == stored.manifest
        assert (theirs.path / "README.md").read_text() == (stored.path / "README.md").read_text()
        assert theirs.path.name == stored.path.name
        assert (stored.kind == "prompts") is (theirs.path / "figures/x.png").is_file()
        assert other.find(stored.repo, stored.kind, stored.manifest.fingerprint) == theirs
    assert len(verify(other, "alice/evaluation@v1")) == 4
    assert not list((other.state_dir / "pull").iterdir())
    notes.clear()
    before = len(hub.requests)
    pull(other, "alice/evaluation@v1", lineage=True, api=api, note=notes.append)
    assert notes == [f"alice/{name}@v1 is in the store" for name in reversed(made)]
    assert not any("/resolve/" in seen.path and "data/" in seen.path for seen in hub.requests[before:])


def test_without_a_tag_the_newest(hub: HubServer, store: Store, other: Store, api: HfApi) -> None:
    for number in range(1, 11):
        stored = put(store, "prompts", seed=number)
        push(store, stored, api=api)
    assert [item.ref for item in pull(other, "alice/prompts", api=api)] == ["alice/prompts@v10"]


def test_another_namespace_keeps_its_names(hub: HubServer, store: Store, other: Store, api: HfApi) -> None:
    for stored in chain(store, until="responses").values():
        push(store, stored, namespace="lab", api=api)
    pull(other, "lab/responses@v1", lineage=True, api=api)
    responses = other.get("lab/responses@v1")
    assert (responses.manifest.repo, responses.manifest.inputs["prompts"].ref) == ("lab/responses", "lab/prompts@v1")
    assert responses.digest == store.get("alice/responses@v1").digest
    push(other, responses, api=api)
    assert len(hub.repo("lab/responses").commits) == 2, "and pushing it back sends nothing"


def test_other_content_under_a_tag_of_the_store_stays(hub: HubServer, store: Store, other: Store, api: HfApi) -> None:
    theirs = put(store, "prompts")
    push(store, theirs, api=api)
    ours = put(other, "prompts", seed=1)
    with pytest.raises(StoreError) as error:
        pull(other, "alice/prompts@v1", api=api)
    assert str(error.value) == (
        f"alice/prompts@v1 holds other content in the store {other.root}, digest {ours.digest[:40]}, than on the Hub, "
        f"{theirs.digest[:40]}; tags never change: pull it into another store with --store or PERSYN_STORE"
    )
    assert other.get("alice/prompts@v1") == ours


@pytest.mark.parametrize("name", ["data/default/pool-00000-of-00001.parquet", "README.md", "persyn.json"])
def test_what_is_damaged_in_the_store_is_mended(
    hub: HubServer, store: Store, other: Store, api: HfApi, name: str
) -> None:
    push(store, put(store, "prompts"), api=api)
    (pulled,) = pull(other, "alice/prompts@v1", api=api)
    file = (pulled.path / name).resolve()
    file.write_bytes(file.read_bytes()[:-2] + b"xx")
    with pytest.raises(DamagedArtifact, match="if it came from the Hub: persyn artifacts pull alice/prompts@v1; else"):
        other.find(pulled.repo, "prompts", pulled.manifest.fingerprint)
    notes: list[str] = []
    pull(other, "alice/prompts@v1", api=api, note=notes.append)
    assert notes == [f"pulled alice/prompts@v1, digest {pulled.digest[:12]}"]
    assert other.find(pulled.repo, "prompts", pulled.manifest.fingerprint) == pulled


def test_the_same_content_under_another_tag_is_only_a_tag(
    hub: HubServer, store: Store, other: Store, api: HfApi
) -> None:
    push(store, put(store, "prompts", tag="paper"), api=api)
    mine = put(other, "prompts")
    (pulled,) = pull(other, "alice/prompts@paper", api=api)
    assert (pulled.tag, pulled.path) == ("paper", mine.path)


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        (
            "alice/none@v1",
            "alice/none is no dataset or model on the Hub that you can see; check the name, or, where it is private, "
            "run `hf auth login` as a user who has access",
        ),
        ("alice/prompts@v2", "alice/prompts on the Hub has no tag `v2` (known: v1)"),
        (
            "alice/plain@v1",
            "alice/plain@v1 on the Hub holds no persyn.json, so it is no artifact; datasets.load_dataset reads it",
        ),
        (
            "alice/bare",
            "alice/bare on the Hub has no tags, so it holds no published artifact; ask its owner to push it",
        ),
    ],
)
def test_what_is_not_there(hub: HubServer, store: Store, other: Store, api: HfApi, ref: str, message: str) -> None:
    push(store, put(store, "prompts"), api=api)
    for name in ("plain", "bare"):
        api.create_repo(f"alice/{name}", repo_type="dataset")
    api.create_tag("alice/plain", tag="v1", repo_type="dataset")
    assert told(other, ref, api) == message
    with pytest.raises(StoreError) as error:
        load_artifact(ref, store=other)
    assert str(error.value).startswith(f"{ref} is not in the store {other.root}; ")
    if ref != "alice/bare":  # without a tag that is read as it is, and it is no artifact
        assert str(error.value).endswith(message)


def test_gated_and_private(hub: HubServer, store: Store, other: Store, api: HfApi) -> None:
    push(store, put(store, "prompts"), api=api)
    hub.gate("alice/prompts")
    assert told(other, "alice/prompts@v1", hub.api(hub.token("bob"))) == (
        f"alice/prompts is gated, and you are not let in; open {hub.url}/datasets/alice/prompts, accept its "
        "conditions, run `hf auth login` as the user who accepted them, then try again"
    )
    hub.repo("alice/prompts").accepted.add("bob")
    assert pull(other, "alice/prompts@v1", api=hub.api(hub.token("bob")))
    shutil.rmtree(other.root)
    hub.repo("alice/prompts").private = True
    assert told(other, "alice/prompts@v1", hub.api(hub.token("bob"))).startswith(
        "alice/prompts is no dataset or model"
    )


def test_without_the_hub(
    hub: HubServer, store: Store, other: Store, api: HfApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    stored = put(store, "prompts")
    push(store, stored, api=api)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    offline = (
        "alice/prompts@v1 needs the Hub, and HF_HUB_OFFLINE forbids to ask it; unset HF_HUB_OFFLINE and try again"
    )
    assert told(other, "alice/prompts@v1", api) == f"pulling {offline}"
    for read in (lambda: load_artifact("alice/prompts@v1", store=other), lambda: manifest_of(other)):
        with pytest.raises(StoreError) as error:
            read()
        assert str(error.value) == f"alice/prompts@v1 is not in the store {other.root}; reading {offline}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    load_artifact("alice/prompts@v1", store=other)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load_artifact("alice/prompts@v1", store=other), "from the cache of the hub library"
    assert manifest_of(other) == stored.digest


def manifest_of(store: Store) -> str:
    return download_manifest("alice/prompts@v1", store).digest


def test_names_that_cannot_be(other: Store, api: HfApi) -> None:
    assert told(other, "a--b/c@v1", api).startswith("`a--b/c` cannot name an artifact; needed is NAMESPACE/NAME of ")
    assert told(other, "a/b@../c", api) == (
        "`a/b@../c` names no artifact; needed is NAMESPACE/NAME or NAMESPACE/NAME@TAG"
    )


def test_no_server_answers(hub: HubServer, other: Store) -> None:
    message = told(other, "alice/prompts@v1", HfApi(endpoint="http://127.0.0.1:9", token=False))
    assert message.startswith("pulling alice/prompts@v1 needs the Hub, and ")
    assert message.endswith(" does not answer (ConnectError); try again with a network")


def test_loading_from_the_hub_gives_what_the_store_gives(
    hub: HubServer, store: Store, other: Store, api: HfApi
) -> None:
    made = chain(store, until="student")
    for stored in made.values():
        push(store, stored, api=api)
    for split in made["responses"].manifest.rows["a"]:
        theirs = load_artifact("alice/responses@v1", config="a", split=split, store=other)
        assert theirs.to_list() == load_artifact("alice/responses@v1", config="a", split=split, store=store).to_list()
    folder = Path(load_artifact("alice/student@v1", store=other))
    assert (folder / "model.safetensors").read_bytes() == (made["student"].path / "model.safetensors").read_bytes()
    assert not other.root.exists()
    manifest = download_manifest("alice/student@v1", other)
    assert manifest.digest == made["student"].digest


def test_changed_files_are_found_and_named(hub: HubServer, store: Store, other: Store, api: HfApi) -> None:
    stored = put(store, "prompts")
    push(store, stored, api=api)
    name = "data/default/pool-00000-of-00001.parquet"
    content = (stored.path / name).read_bytes()
    retag(hub, api, "alice/prompts", [CommitOperationAdd(name, content[:-1] + b"x")])
    message = told(other, "alice/prompts@v1", api, DamagedArtifact)
    assert message.startswith(f"alice/prompts@v1: {name} is damaged, found ")
    assert message.endswith(f", needed {stored.manifest.files[name]}")
    assert not list((other.state_dir / "pull").iterdir()), "it is fetched anew the next time"
    retag(hub, api, "alice/prompts", [CommitOperationDelete(name)])
    assert f"{name} is damaged, found no file" in told(other, "alice/prompts@v1", api, DamagedArtifact)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 8}, "alice/prompts@v1 on the Hub: its persyn.json gives digest "),
        (
            {"kind": "no such"},
            "alice/prompts@v1 on the Hub is of the kind `no such`, which this version of persyn-hf ",
        ),
        ({"digest": "../../x"}, "alice/prompts@v1 on the Hub: its persyn.json gives digest ../../x, needed is "),
        (
            {"unknown": 1},
            "alice/prompts on the Hub: its persyn.json is none that this version of persyn-hf reads (",
        ),
    ],
)
def test_changed_manifests_are_found(
    hub: HubServer, store: Store, other: Store, api: HfApi, change: dict, message: str
) -> None:
    push(store, put(store, "prompts"), api=api)
    manifest = json.loads(hub.repo("alice/prompts").read("persyn.json")) | change
    retag(hub, api, "alice/prompts", [CommitOperationAdd("persyn.json", json.dumps(manifest).encode())])
    assert told(other, "alice/prompts@v1", api).startswith(message)


@pytest.mark.parametrize(
    "name", ["../../evil.md", "/etc/evil.md", ".persyn/x.md", "a//b.md", "data/../../x.md", "persyn.json"]
)
def test_no_name_leads_out_of_the_store(
    hub: HubServer, store: Store, other: Store, api: HfApi, tmp_path: Path, name: str
) -> None:
    stored = put(store, "prompts")
    push(store, stored, api=api)
    files = {**stored.manifest.files, name: "0" * 64}
    forged = stored.manifest.model_copy(update={"files": files})
    forged = forged.model_copy(update={"digest": forged.content_digest()})
    retag(hub, api, "alice/prompts", [CommitOperationAdd("persyn.json", forged.to_json().encode())])
    before = {path for path in tmp_path.rglob("*") if "hub" not in path.parts and other.root not in path.parents}
    assert f"names the file {name!r}, which no artifact may hold" in told(other, "alice/prompts@v1", api)
    after = {path for path in tmp_path.rglob("*") if "hub" not in path.parts and other.root not in path.parents}
    assert after - before <= {other.root}


@pytest.mark.parametrize("name", ["pytorch_model.bin", "sub/model.DILL", "modeling.py", "weights.zip", "vocab"])
def test_only_known_kinds_of_files_are_pulled(
    name: str, hub: HubServer, store: Store, other: Store, api: HfApi
) -> None:
    stored = chain(store, until="student")["student"]
    push(store, stored, api=api)
    forged = stored.manifest.model_copy(update={"files": {**stored.manifest.files, name: "0" * 64}})
    forged = forged.model_copy(update={"digest": forged.content_digest()})
    retag(
        hub,
        api,
        "alice/student",
        [CommitOperationAdd("persyn.json", forged.to_json().encode()), CommitOperationAdd(name, b"x")],
        "model",
    )
    assert told(other, "alice/student@v1", api) == (
        f"alice/student@v1 on the Hub holds {name}, of a kind that no artifact may hold, because loading it could run "
        "any code; ask its owner for data as parquet and weights as safetensors"
    )


def test_an_ancestor_of_other_content_is_told(hub: HubServer, store: Store, other: Store, api: HfApi) -> None:
    made = chain(store, until="responses")
    push(store, made["responses"], api=api)
    with pytest.raises(StoreError, match="alice/prompts is no dataset or model on the Hub that you can see"):
        pull(other, "alice/responses@v1", lineage=True, api=api)
    third = Store(store.root.parent / "third")
    wrong = put(third, "prompts", seed=9)
    push(third, wrong, api=api)
    with pytest.raises(StoreError) as error:
        pull(other, "alice/responses@v1", lineage=True, api=api)
    assert str(error.value) == (
        f"alice/prompts@v1 on the Hub has digest {wrong.digest[:40]}, needed is {made['prompts'].digest[:40]}, which "
        "the artifact asked for was made from; ask its owner to push it with --lineage"
    )


@pytest.mark.usefixtures("plain")
def test_a_download_cut_off_is_taken_up_again(
    hub: HubServer, store: Store, other: Store, api: HfApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = put(store, "prompts", rows=300)
    push(store, stored, api=api)
    monkeypatch.setattr("huggingface_hub.file_download.HTTP_STREAM_RETRIES", 0, raising=False)
    hub.faults.append(Fault("GET", r"^/cdn/", 403, times=99))
    assert "forbids it to you (403)" in told(other, "alice/prompts@v1", api)
    hub.faults[:] = [Fault("GET", r"^/cdn/", cut=500, times=2)]
    pull(other, "alice/prompts@v1", api=api)
    assert not hub.faults
    other.get("alice/prompts@v1").check()
