"""Chains on the Hub are shown by their manifests alone and checked by what is downloaded, not by what the Hub says."""

import json
from pathlib import Path

import pytest
from hub_samples import chain, put
from hub_server import HubServer
from huggingface_hub import CommitOperationAdd, CommitOperationDelete

from persyn_hf.cli.main import main
from persyn_hf.errors import DamagedArtifact, StoreError
from persyn_hf.store.hub.push import push
from persyn_hf.store.lineage import open_artifact, tree, verify
from persyn_hf.store.local import Store


ROOT = "alice/evaluation@v1"
ALL = [ROOT, "alice/student@v1", "alice/responses@v1", "alice/prompts@v1"]


@pytest.fixture
def made(hub: HubServer, tmp_path: Path) -> dict:
    """alice's chain on the Hub."""
    store = Store(tmp_path / "alice")
    made = chain(store)
    for stored in made.values():
        push(store, stored, api=hub.api(hub.token("alice")))
    return made


@pytest.fixture
def empty(tmp_path: Path) -> Store:
    return Store(tmp_path / "empty")


def edit(hub: HubServer, repo: str, repo_type: str = "dataset", **files: bytes | None) -> None:
    """What a publisher can do who moves the tag afterwards; keywords are paths, `__` for `/`; None: removed."""
    api = hub.api(hub.token("alice"))
    operations = [
        CommitOperationDelete(path) if content is None else CommitOperationAdd(path, content)
        for path, content in files.items()
    ]
    api.create_commit(repo, operations, commit_message="edit", repo_type=repo_type)
    api.delete_tag(repo, tag="v1", repo_type=repo_type)
    api.create_tag(repo, tag="v1", repo_type=repo_type)


def test_a_chain_on_the_hub_is_verified(hub: HubServer, made: dict, empty: Store) -> None:
    checked = verify(empty, ROOT)
    assert [(item.ref, item.digest, item.on_hub) for item in checked] == [
        (stored.ref, stored.digest, True) for stored in reversed(made.values())
    ]
    assert not empty.root.exists()


def test_what_is_in_the_store_is_not_asked_for(hub: HubServer, made: dict, tmp_path: Path) -> None:
    store = Store(tmp_path / "alice")
    hub.requests.clear()
    assert not any(item.on_hub for item in verify(store, ROOT))
    assert not tree(store, ROOT).on_hub
    assert hub.requests == []
    half = Store(tmp_path / "half")
    put(half, "prompts")
    assert [item.on_hub for item in verify(half, ROOT)] == [True, True, True, False]


def test_to_show_a_chain_only_manifests_are_fetched(hub: HubServer, made: dict, empty: Store) -> None:
    hub.requests.clear()
    root = tree(empty, ROOT)
    refs = []
    while root.inputs:
        refs.append(root.ref)
        (root,) = root.inputs
    assert [*refs, root.ref] == ALL
    assert root.on_hub and root.digest == made["prompts"].digest
    fetched = [seen.path for seen in hub.seen("GET", "/resolve/")]
    assert len(fetched) == 4 and all(path.endswith("/persyn.json") for path in fetched)


def test_the_card_may_be_edited(hub: HubServer, made: dict, empty: Store) -> None:
    edit(hub, "alice/responses", **{"README.md": b"# Mine\n", "assets/logo.png": b"png", "LICENSE": b"MIT"})
    assert len(verify(empty, ROOT)) == 4


def test_a_tampered_file_is_found(hub: HubServer, made: dict, empty: Store) -> None:
    """Its pointer on the Hub is right for the new content: only the manifest says otherwise."""
    name = next(path for path in made["responses"].manifest.files if path.endswith(".parquet"))
    edit(hub, "alice/responses", **{name: b"PAR1 not what was published"})
    with pytest.raises(DamagedArtifact) as caught:
        verify(empty, ROOT)
    needed = made["responses"].manifest.files[name]
    assert str(caught.value).startswith(f"alice/responses@v1: {name} is damaged, found ")
    assert f"needed {needed} " in str(caught.value)
    assert tree(empty, ROOT).digest == made["evaluation"].digest


def test_a_removed_file_is_found(hub: HubServer, made: dict, empty: Store) -> None:
    edit(hub, "alice/student", "model", **{"config.json": None})
    with pytest.raises(DamagedArtifact, match=r"^alice/student@v1: config.json is damaged, found no file, needed "):
        verify(empty, ROOT)


@pytest.mark.parametrize(
    ("repo", "repo_type", "name"),
    [("prompts", "dataset", "data/default/pool-00009-of-00010.parquet"), ("student", "model", "model-2.safetensors")],
)
def test_a_file_that_was_added_is_found(
    hub: HubServer, made: dict, empty: Store, repo: str, repo_type: str, name: str
) -> None:
    """`load_dataset` would read it with the others."""
    edit(hub, f"alice/{repo}", repo_type, **{name: b"more"})
    with pytest.raises(DamagedArtifact) as caught:
        verify(empty, ROOT)
    assert str(caught.value) == (
        f"alice/{repo}@v1 on the Hub: the file {name} is not in its persyn.json, so nothing says where it comes from; "
        "ask its publisher to remove it"
    )


def test_a_tampered_manifest_is_found(hub: HubServer, made: dict, empty: Store) -> None:
    manifest = json.loads(hub.repo("alice/responses").read("persyn.json"))
    manifest["settings"]["samples"] = 1
    edit(hub, "alice/responses", **{"persyn.json": json.dumps(manifest).encode()})
    computed = made["responses"].manifest.model_copy(update={"settings": manifest["settings"]}).content_digest()
    for walk in (verify, tree):
        with pytest.raises(DamagedArtifact) as caught:
            walk(empty, ROOT)
        assert "alice/responses@v1" in str(caught.value)
        assert made["responses"].digest in str(caught.value) and computed in str(caught.value)


def test_a_swapped_input_is_found(hub: HubServer, made: dict, empty: Store, tmp_path: Path) -> None:
    """A whole artifact with other rows under the same name: nothing is wrong but that it is not what was read."""
    other = Store(tmp_path / "other")
    swapped = put(other, "prompts", seed=1)
    files = {name: (swapped.path / name).read_bytes() for name in [*swapped.manifest.files, "persyn.json"]}
    gone = dict.fromkeys(made["prompts"].manifest.files.keys() - files.keys())
    edit(hub, "alice/prompts", **files, **gone)
    assert [item.digest for item in verify(empty, "alice/prompts@v1")] == [swapped.digest]
    for walk in (verify, tree):
        with pytest.raises(DamagedArtifact) as caught:
            walk(empty, ROOT)
        assert str(caught.value) == (
            f"alice/responses@v1: its input `prompts`, alice/prompts@v1 on the Hub, has digest {swapped.digest}, "
            f"needed {made['prompts'].digest}; ask its publisher for the one that was read, or make "
            "alice/responses@v1 anew"
        )


def test_an_input_that_is_nowhere(hub: HubServer, made: dict, empty: Store) -> None:
    hub.api(hub.token("alice")).delete_repo("alice/prompts", repo_type="dataset")
    for walk in (verify, tree):
        with pytest.raises(DamagedArtifact) as caught:
            walk(empty, ROOT)
        said = str(caught.value)
        assert said.startswith(
            f"alice/responses@v1: its input `prompts` with digest {made['prompts'].digest} is missing; "
            "alice/prompts@v1 is not in the store "
        )
        assert said.endswith("ask for it where it was made, or run its recipe again")
    with pytest.raises(StoreError, match="^alice/none@v1 is not in the store .*; alice/none is no dataset"):
        open_artifact(empty, "alice/none@v1")


def test_the_commands(hub: HubServer, made: dict, empty: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["artifacts", "show", ROOT, "--store", str(empty.root)]) == 0
    shown = capsys.readouterr().out
    assert all(f"{ref}  " in shown for ref in ALL)
    assert shown.count("on the Hub") == 4
    assert main(["artifacts", "verify", ROOT, "--store", str(empty.root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"ok {ROOT} evaluation {made['evaluation'].digest[:12]} on the Hub"
    assert lines[-1] == "verified 4 artifacts, every file of each"
    assert main(["artifacts", "diff", ROOT, ROOT, "--store", str(empty.root)]) == 0
    assert capsys.readouterr().out.endswith("same content\n")
    edit(hub, "alice/responses", **{"data/a/dev-00000-of-00001.parquet": b"x"})
    assert main(["artifacts", "verify", ROOT, "--store", str(empty.root)]) == 2
    assert "error: alice/responses@v1" in capsys.readouterr().err


def test_what_is_stored_is_compared_with_what_is_published(
    hub: HubServer, made: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows are downloaded where the content differs, and not where it is the same or cannot be compared."""
    mine, key = Store(tmp_path / "mine"), ["artifacts", "diff", "--store", str(tmp_path / "mine")]
    same = put(mine, "responses", (made["prompts"],), tag="same")
    put(mine, "responses", (made["prompts"],), seed=1, tag="other")
    assert same.digest == made["responses"].digest
    hub.requests.clear()
    assert main([*key, "alice/responses@same", "alice/responses@v1"]) == 0
    assert main([*key, "alice/responses@same", "alice/prompts@v1"]) == 2
    assert not hub.seen("HEAD", r"\.parquet$") and not hub.seen("GET", r"/reconstructions/")
    assert main([*key, "alice/responses@other", "alice/responses@v1"]) == 1
    assert hub.seen("GET", r"/reconstructions/")
    assert "rows are in both, matched by prompt_id, teacher, sample_index" in capsys.readouterr().out
