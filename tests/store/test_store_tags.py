"""Tags never change, the same content is stored once, and what was made is found again."""

import re

import pytest
from store_samples import dataset_of, fields, rows_of

from persyn_hf.errors import StoreError
from persyn_hf.schemas import ASSIGNMENTS, PROMPTS


def put(store, count=3, tag=None, **more):
    data = dataset_of(PROMPTS, rows_of(PROMPTS, count))
    return store.put(repo="me/x", schema=PROMPTS, data=data, fields=fields(**more), tag=tag)


def files(store):
    return {path: path.lstat().st_mtime_ns for path in store.root.glob("datasets--*/**/*")}


def test_the_same_content_is_written_once(store):
    first = put(store)
    before = files(store)
    assert put(store, cost={"gpu_seconds": 99}) == first
    assert files(store) == before


def test_tags_count_up(store):
    assert [put(store, count).tag for count in (1, 2, 3, 1)] == ["v1", "v2", "v3", "v1"]
    assert [put(store, count).tag for count in range(4, 11)][-1] == "v10"
    assert [item.tag for item in store.artifacts()] == [f"v{number}" for number in range(1, 11)]
    assert store.get("me/x").tag == "v10"  # stored last


def test_other_content_under_a_tag_is_refused(store):
    first = put(store, 1, tag="v1")
    with pytest.raises(StoreError) as error:
        put(store, 2, tag="v1")
    second = put(store, 2, tag="v2")
    assert str(error.value) == (
        f"me/x@v1 already holds other content, digest {first.digest[:40]}; this run made {second.digest[:40]}; "
        "tags never change: set `version` to a new one, or leave it out for v2"
    )
    assert store.get("me/x@v1").digest == first.digest


def test_a_second_tag_for_the_same_content_is_only_a_name(store):
    first = put(store)
    second = put(store, tag="paper-2026")
    assert second.path == first.path and second.tag == "paper-2026"
    assert put(store, tag="paper-2026") == second


@pytest.mark.parametrize("tag", ["main", "a/b", "..", "", "0" * 40, "-v", "a b"])
def test_tags_that_cannot_be(store, tag):
    with pytest.raises(StoreError, match="cannot be a tag"):
        put(store, tag=tag)


@pytest.mark.parametrize("repo", ["x", "a/b/c", "../x/y", "a/..", "a--b/c", "a/b--c", "a/" + "b" * 96, "a/", ""])
def test_repositories_that_cannot_be(store, repo):
    with pytest.raises(StoreError, match="cannot name an artifact; needed is NAMESPACE/NAME"):
        store.put(repo=repo, schema=PROMPTS, data=dataset_of(PROMPTS, []), fields=fields())


def test_find_by_fingerprint(store):
    assert store.find("me/x", "prompts", "f" * 64) is None
    first, second = put(store, 1, fingerprint="1" * 64), put(store, 2, fingerprint="2" * 64)
    assert store.find("me/x", "prompts", "1" * 64) == first
    assert store.find("me/x", "prompts", "2" * 64) == second
    assert store.find("me/x", "prompts", "3" * 64) is None
    assert store.find("me/y", "prompts", "1" * 64) is None
    assert store.find("me/x", "pairs", "1" * 64) is None


def test_a_new_fingerprint_that_led_to_the_same_content_is_found_too(store):
    first = put(store, fingerprint="1" * 64)
    assert put(store, fingerprint="2" * 64) == first
    assert store.find("me/x", "prompts", "2" * 64) == store.find("me/x", "prompts", "1" * 64) == first


def test_get_names_the_nearest(store):
    with pytest.raises(StoreError, match=f"me/x@v1 is not in the store {store.root}$"):
        store.get("me/x@v1")
    put(store)
    with pytest.raises(StoreError, match=re.escape(f"is not in the store {store.root}, did you mean me/x@v1?")):
        store.get("me/x@v2")
    with pytest.raises(StoreError, match=re.escape(f"me/x@v2 is not in the store {store.root}") + "$"):
        store.get("me/x@v2", "responses")  # none of that kind is there
    with pytest.raises(StoreError, match="me/x@v1 is of kind `prompts`, needed is `assignments`"):
        store.get("me/x@v1", "assignments")
    with pytest.raises(StoreError, match="names no artifact"):
        store.get("me/x@../../v1")


def test_the_manifest_says_how_it_was_made(store):
    prompts = put(store)
    data = dataset_of(ASSIGNMENTS, rows_of(ASSIGNMENTS, 4))
    inputs = {"prompts": {"ref": prompts.ref, "digest": prompts.digest}}
    made = store.put(repo="me/a", schema=ASSIGNMENTS, data=data, fields=fields(stage="assign", inputs=inputs))
    manifest = store.get("me/a").manifest
    assert manifest == made.manifest
    assert (manifest.stage, manifest.kind, manifest.repo, manifest.seed) == ("assign", "assignments", "me/a", 7)
    assert manifest.teacher_names == ["a", "b_1"]
    assert manifest.inputs["prompts"].digest == prompts.digest
    assert sum(sum(splits.values()) for splits in manifest.rows.values()) == 4
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", manifest.created_at)


def test_numbers_that_json_has_no_word_for_become_null(store):
    stored = put(store, metrics={"loss": float("nan"), "ppl": {"a": float("inf")}})
    assert store.get(stored.ref).manifest.metrics == {"loss": None, "ppl": {"a": None}}
