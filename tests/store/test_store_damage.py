"""One changed byte anywhere is found, by the name of the artifact and the file."""

import os
import re
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_samples import MODELS, dataset_of, fields, link, model_folder, rows_of

from persyn_hf.errors import DamagedArtifact, StoreError
from persyn_hf.schemas import ASSIGNMENTS, PROMPTS, RESPONSES
from persyn_hf.store.lineage import tree, verify
from persyn_hf.store.load import load_artifact
from persyn_hf.store.local import Store


def chain(store, model, rows=5, seed=0):
    """prompts <- responses <- router"""
    prompts = store.put(
        repo="me/prompts", schema=PROMPTS, data=dataset_of(PROMPTS, rows_of(PROMPTS, rows, seed)), fields=fields()
    )
    responses = store.put(
        repo="me/responses",
        schema=RESPONSES,
        data=dataset_of(RESPONSES, rows_of(RESPONSES, rows, seed)),
        fields=fields(inputs=link(prompts)),
    )
    router = store.put(
        repo="me/router",
        schema=MODELS[0],
        data=model_folder(model, seed),
        fields=fields(stage="train_router", inputs=link(prompts, responses)),
    )
    return [prompts, responses, router]


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= 1 << position % 8
    path.write_bytes(content)


def test_a_whole_chain_is_verified(store, tmp_path):
    prompts, responses, router = chain(store, tmp_path / "model")
    checked = verify(store, "me/router@v1")
    assert [item.ref for item in checked] == ["me/router@v1", "me/prompts@v1", "me/responses@v1"]
    assert [item.digest for item in checked] == [router.digest, prompts.digest, responses.digest]
    assert checked[0].files == 5  # two configs, the weights, card, manifest


def test_the_tree_shows_the_chain(store, tmp_path):
    chain(store, tmp_path / "model")
    root = tree(store, "me/router")
    assert (root.ref, root.kind, root.counts["rows"], root.cost) == (
        "me/router@v1",
        "router",
        12,
        {"gpu_seconds": 1.5},
    )
    assert [(node.keyword, node.ref) for node in root.inputs] == [
        ("prompts", "me/prompts@v1"),
        ("responses", "me/responses@v1"),
    ]
    assert [node.ref for node in root.inputs[1].inputs] == ["me/prompts@v1"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), seed=st.integers(0, 1), rows=st.sampled_from([0, 6]), position=st.integers(0, 2**20))
def test_any_flipped_byte_is_found_and_named(tmp_path, data, seed, rows, position):
    store = Store(tmp_path / f"store-{seed}-{rows}")
    if not store.root.exists():
        chain(store, tmp_path / f"model-{seed}-{rows}", rows, seed)
    file = data.draw(st.sampled_from(sorted(p for p in store.root.glob("*--*/*/*") if p.is_file())))
    links = [p for p in store.root.glob("*--*/snapshots/*/**/*") if p.is_symlink() and p.resolve() == file]
    whole = file.read_bytes()
    flip(file, position)
    with pytest.raises(DamagedArtifact) as error:
        verify(store, "me/router@v1")
    file.write_bytes(whole)
    repo = file.parent.parent.name.split("--", 1)[1].replace("--", "/")
    assert re.match(f"{re.escape(repo)}@(v1|main): ", str(error.value))
    assert any(name in str(error.value) for name in ([p.name for p in links] or [f"refs/{file.name}"]))


def test_links_and_stray_files_are_checked(store, tmp_path):
    _, responses, router = chain(store, tmp_path / "model")
    stray = router.path / "extra.safetensors"
    stray.write_bytes(b"x")
    with pytest.raises(DamagedArtifact, match="the file extra.safetensors is not in its persyn.json; remove"):
        verify(store, router.ref)
    stray.unlink()
    card = responses.path / "README.md"
    card.rename(tmp_path / "kept")
    with pytest.raises(
        DamagedArtifact, match=r"me/responses@v1: README.md is damaged, found no file, needed [0-9a-f]{64}"
    ):
        verify(store, router.ref)
    shutil.copy(store.get("me/responses").path / "persyn.json", card)
    with pytest.raises(DamagedArtifact, match="me/responses@v1: README.md is damaged"):
        verify(store, router.ref)
    card.unlink()
    os.symlink(os.readlink(tmp_path / "kept"), card)
    assert len(verify(store, router.ref)) == 3


def test_an_input_that_is_gone_or_another_is_named(store, tmp_path):
    prompts, _, router = chain(store, tmp_path / "model")
    other = store.put(repo="me/prompts", schema=PROMPTS, data=dataset_of(PROMPTS, []), fields=fields())
    tag = prompts.ref_file
    tag.write_text(other.digest[:40])
    message = f"its input `prompts`, me/prompts@v1, has digest {other.digest}, needed {prompts.digest}"
    for walk in (verify, tree):
        with pytest.raises(DamagedArtifact, match=message):
            walk(store, router.ref)
    tag.unlink()
    with pytest.raises(
        DamagedArtifact, match="its input `prompts` with digest .* is missing; me/prompts@v1 is not in"
    ):
        verify(store, router.ref)
    with pytest.raises(StoreError, match="me/none@v1 is not in the store"):
        verify(store, "me/none@v1")


@pytest.mark.parametrize("name", ["data/default/pool-00000-of-00001.parquet", "README.md", "persyn.json"])
def test_damage_is_found_before_reuse_and_mended_by_making_it_anew(store, name):
    rows = [{**row, "split": "pool"} for row in rows_of(PROMPTS, 5)]

    def put():
        return store.put(repo="me/x", schema=PROMPTS, data=dataset_of(PROMPTS, rows), fields=fields())

    stored = put()
    flip(stored.path / name, 2_000)
    with pytest.raises(DamagedArtifact, match=f"me/x@v1: (its )?{name}.*(restore it|delete)") as error:
        store.find("me/x", "prompts", "f" * 64)
    assert str(stored.ref_file.parent) in str(error.value)
    if name != "persyn.json":
        with pytest.raises(DamagedArtifact):
            load_artifact("me/x@v1", store=store)
    stored.ref_file.unlink()  # what the message says
    assert store.find("me/x", "prompts", "f" * 64) is None
    assert put().digest == stored.digest
    assert store.find("me/x", "prompts", "f" * 64).ref == "me/x@v1"
    assert store.read_dataset(store.get("me/x")).to_list() == rows
    assert len(verify(store, "me/x@v1")) == 1


def test_a_damaged_ref_is_named(store):
    stored = store.put(repo="me/a", schema=ASSIGNMENTS, data=dataset_of(ASSIGNMENTS, []), fields=fields())
    stored.ref_file.write_bytes(b"\xff\x00../../etc")
    with pytest.raises(DamagedArtifact, match=r"me/a@v1: .*/refs/v1 holds .* needed is the name of a folder in"):
        store.find("me/a", "assignments", "f" * 64)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"stage": "prompts"}', '{"unknown": 1}'])
def test_a_manifest_that_does_not_parse_is_one_sentence(store, text):
    stored = store.put(repo="me/a", schema=ASSIGNMENTS, data=dataset_of(ASSIGNMENTS, []), fields=fields())
    (stored.path / "persyn.json").write_text(text)
    with pytest.raises(DamagedArtifact, match="^me/a@v1: its persyn.json is no manifest .*") as error:
        store.get("me/a@v1")
    assert "\n" not in str(error.value)
