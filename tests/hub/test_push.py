"""Publishing to a Hub: one commit and a tag, whatever is there already."""

from pathlib import Path

import pytest
from hub_samples import chain, put
from hub_server import HubServer
from huggingface_hub import CommitOperationAdd, DatasetCard, ModelCard

from persyn_hf.errors import DamagedArtifact, StoreError
from persyn_hf.store.hub.push import push
from persyn_hf.store.local import Store
from persyn_hf.store.manifest import Manifest


PNG = b"\x89PNG\r\n\x1a\n\0"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def titles(hub: HubServer, repo: str, repo_type: str = "dataset") -> list[str]:
    return [commit.title for commit in hub.repo(repo, repo_type).commits]


def manifest_at(hub: HubServer, repo: str, revision: str = "main", repo_type: str = "dataset") -> Manifest:
    return Manifest.model_validate_json(hub.repo(repo, repo_type).read("persyn.json", revision))


def test_one_commit_and_a_tag_for_each_kind(hub: HubServer, store: Store) -> None:
    api = hub.api(hub.token("alice"))
    for name, stored in chain(store).items():
        kind = "model" if name == "student" else "dataset"
        pushed = push(store, stored, api=api)
        repo = hub.repo(f"alice/{name}", kind)
        assert titles(hub, f"alice/{name}", kind) == [f"Publish v1 {stored.digest[:40]}", "initial commit"]
        assert repo.tags == {"v1": repo.commits[0].sha} == {"v1": pushed.commit}
        assert set(repo.commits[0].files) == {*stored.manifest.files, "persyn.json", ".gitattributes"}
        assert (pushed.sent, set(pushed.added)) == ("all", {*stored.manifest.files, "persyn.json"})
        manifest = manifest_at(hub, f"alice/{name}", repo_type=kind)
        assert manifest.digest == manifest.content_digest() == stored.digest
        again = push(store, stored, api=api)
        assert (again.sent, again.added, again.commit) == ("nothing", (), pushed.commit)
        assert len(repo.commits) == 2


def test_another_namespace_is_written_wherever_the_own_one_stood(hub: HubServer, store: Store) -> None:
    prompts = put(store, "prompts")
    made = put(store, "responses", (prompts,), others={"base": {"ref": "bob/base@v3", "digest": "0" * 64}})
    pushed = push(store, made, namespace="lab", api=hub.api(hub.token("alice")))
    assert (pushed.ref, pushed.url) == ("lab/responses@v1", f"{hub.url}/datasets/lab/responses/tree/v1")
    manifest = manifest_at(hub, "lab/responses")
    assert manifest.repo == "lab/responses"
    assert {word: item.ref for word, item in manifest.inputs.items()} == {
        "prompts": "lab/prompts@v1",
        "base": "bob/base@v3",
    }
    assert manifest.digest == manifest.content_digest() == made.digest
    card = hub.repo("lab/responses").read("README.md").decode()
    assert "lab/prompts" in card and "alice/" not in card


def test_other_content_under_a_tag_is_told_and_changes_nothing(hub: HubServer, store: Store, tmp_path: Path) -> None:
    api = hub.api(hub.token("alice"))
    first = put(store, "prompts")
    push(store, first, api=api)
    other = Store(tmp_path / "other")
    second = put(other, "prompts", seed=1)
    with pytest.raises(StoreError) as error:
        push(other, second, api=api)
    assert str(error.value) == (
        f"alice/prompts@v1 already holds other content on the Hub, digest {first.digest[:40]}; this artifact's digest "
        f"is {second.digest[:40]}; tags never change: set `version: v2` in its recipe, run it again, which makes "
        "nothing anew, and push alice/prompts@v2; or push to another namespace"
    )
    assert len(hub.repo("alice/prompts").commits) == 2
    assert manifest_at(hub, "alice/prompts").digest == first.digest


def test_a_new_version_replaces_the_old_files_and_nothing_of_others(hub: HubServer, store: Store) -> None:
    api = hub.api(hub.token("alice"))
    first = put(store, "responses", rows=40, figures={"figures/old.png": PNG, "figures/both.png": PNG})
    push(store, first, api=api)
    theirs = [CommitOperationAdd("notes.txt", b"mine"), CommitOperationAdd("data/extra.csv", b"a,b")]
    api.create_commit("alice/responses", theirs, commit_message="notes", repo_type="dataset")
    second = put(store, "responses", rows=3, seed=5, tag="v2", figures={"figures/both.png": PNG})
    pushed = push(store, second, api=api)
    gone = set(first.manifest.files) - set(second.manifest.files)
    assert "figures/old.png" in gone and len(gone) > 1 and set(pushed.deleted) == gone
    assert "figures/both.png" not in pushed.added
    repo = hub.repo("alice/responses")
    ours = {*second.manifest.files, "persyn.json"}
    assert set(repo.commits[0].files) == ours | {".gitattributes", "notes.txt", "data/extra.csv"}
    assert set(repo.tags) == {"v1", "v2"}
    assert manifest_at(hub, "alice/responses", "v1").digest == first.digest


def test_metadata_of_others_stays_on_the_card(hub: HubServer, store: Store) -> None:
    api = hub.api(hub.token("alice"))
    push(store, put(store, "prompts", licences={"prompts": "mit"}), api=api)
    repo = hub.repo("alice/prompts")
    card = DatasetCard(repo.read("README.md").decode())
    ours = card.data.to_dict()
    card.data.thumbnail = "https://example.org/x.png"
    card.data.extra_gated_prompt = "Say who you are: \N{SNOWMAN}"
    card.data.license = "apache-2.0"
    card.data.tags = [*card.data.tags, "maths"]
    edit = [CommitOperationAdd("README.md", str(card).encode())]
    api.create_commit("alice/prompts", edit, commit_message="edit", repo_type="dataset")
    push(store, put(store, "prompts", seed=1, licences={"prompts": "mit"}), api=api)
    merged = DatasetCard(repo.read("README.md").decode())
    assert merged.data.thumbnail == "https://example.org/x.png"
    assert merged.data.extra_gated_prompt == "Say who you are: \N{SNOWMAN}"
    assert merged.data.tags == [*ours["tags"], "maths"]
    assert merged.data.license == "mit", "what persyn knows goes first"
    assert "alice/prompts@v2" in merged.text and "@v1" not in merged.text


def test_evaluations_that_come_in_change_the_card_alone(hub: HubServer, store: Store, tmp_path: Path) -> None:
    api = hub.api(hub.token("alice"))
    made = chain(store, until="student")
    push(store, made["student"], api=api)
    repo = hub.repo("alice/student", "model")
    assert ModelCard(repo.read("README.md").decode()).data.eval_results is None
    put(store, "evaluation", (made["student"],))
    pushed = push(store, made["student"], api=api)
    assert (pushed.sent, pushed.added) == ("card", ("README.md", "persyn.json"))
    assert titles(hub, "alice/student", "model")[0] == "Update the card of v1"
    assert repo.tags["v1"] == repo.commits[1].sha
    (result,) = ModelCard(repo.read("README.md").decode()).data.eval_results
    assert (result.dataset_name, result.metric_value) == ("svamp", 0.5)
    assert push(store, made["student"], api=api).sent == "nothing"
    other = Store(tmp_path / "other")  # that never evaluated it
    push(other, chain(other, until="student")["student"], api=api)
    assert len(repo.commits) == 3


def test_a_card_edited_by_hand_stays_as_long_as_we_have_nothing_new(hub: HubServer, store: Store) -> None:
    api = hub.api(hub.token("alice"))
    stored = put(store, "prompts")
    push(store, stored, api=api)
    edit = [CommitOperationAdd("README.md", b"---\nlicense: mit\n---\nWritten by hand.")]
    api.create_commit("alice/prompts", edit, commit_message="edit", repo_type="dataset")
    assert push(store, stored, api=api).sent == "nothing"
    assert hub.repo("alice/prompts").read("README.md").endswith(b"Written by hand.")


def test_a_second_tag_of_the_same_content_is_only_a_tag(hub: HubServer, store: Store) -> None:
    api = hub.api(hub.token("alice"))
    push(store, put(store, "prompts"), api=api)
    pushed = push(store, put(store, "prompts", tag="paper"), api=api)
    assert (pushed.sent, pushed.added) == ("tag", ())
    repo = hub.repo("alice/prompts")
    assert repo.tags == {"v1": repo.commits[0].sha, "paper": repo.commits[0].sha}
    assert len(repo.commits) == 2
    for tag in ("v1", "paper"):
        assert push(store, store.get(f"alice/prompts@{tag}"), api=api).sent == "nothing", "the card is that of v1"


def test_a_tag_of_others_is_theirs(hub: HubServer, store: Store) -> None:
    api = hub.api(hub.token("alice"))
    stored = put(store, "prompts")
    api.create_repo("alice/prompts", repo_type="dataset")
    api.create_tag("alice/prompts", tag="v1", repo_type="dataset")
    with pytest.raises(StoreError) as error:
        push(store, stored, api=api)
    assert str(error.value) == (
        f"alice/prompts@v1 already holds what persyn did not publish there; this artifact's digest is "
        f"{stored.digest[:40]}; tags never change: set `version: v2` in its recipe, run it again, which makes nothing "
        "anew, and push alice/prompts@v2; or push to another namespace"
    )
    assert len(hub.repo("alice/prompts").commits) == 1


def test_a_dry_run_lists_and_changes_nothing(hub: HubServer, store: Store) -> None:
    api = hub.api(hub.token("alice"))
    first = put(store, "responses", rows=40)
    planned = push(store, first, dry_run=True, api=api)
    assert not hub.has_repo("alice/responses")
    pushed = push(store, first, api=api)
    assert (planned.sent, set(planned.added), planned.num_bytes) == ("all", set(pushed.added), pushed.num_bytes)
    second = put(store, "responses", rows=3, seed=5)
    before = len(hub.requests)
    planned = push(store, second, dry_run=True, api=api)
    assert {seen.method for seen in hub.requests[before:]} <= {"GET", "HEAD"}
    pushed = push(store, second, api=api)
    assert (planned.added, planned.deleted) == (pushed.added, pushed.deleted)
    assert planned.deleted and planned.sent == "all"
    assert push(store, second, dry_run=True, api=api).sent == "nothing"


def test_private_repositories(hub: HubServer, store: Store) -> None:
    api = hub.api(hub.token("alice"))
    stored = put(store, "prompts")
    push(store, stored, private=True, api=api)
    assert hub.repo("alice/prompts").private
    push(store, stored, namespace="lab", api=api)
    assert not hub.repo("lab/prompts").private
    with pytest.raises(StoreError) as error:
        push(store, put(store, "prompts", seed=1), namespace="lab", private=True, api=api)
    assert str(error.value) == (
        "lab/prompts is public on the Hub; make it private in its settings, or leave --private out"
    )
    assert len(hub.repo("lab/prompts").commits) == 2


@pytest.mark.parametrize(
    ("user", "role", "message"),
    [
        (
            "alice",
            "read",
            "the token of `alice` can only read, pushing needs one that can write; run `hf auth login` with a token "
            "of role write (https://huggingface.co/settings/tokens)",
        ),
        (
            "bob",
            "write",
            "`bob` has no right to write to the namespace `alice`, only to bob; name one of them with --namespace, or "
            "as `namespace:` of the recipe",
        ),
        (
            None,
            None,
            "pushing needs a login, found none; run `hf auth login` with a token of role write "
            "(https://huggingface.co/settings/tokens)",
        ),
    ],
)
def test_without_the_right_to_write(hub: HubServer, store: Store, user: str | None, role: str, message: str) -> None:
    stored = put(store, "prompts")
    api = hub.api(hub.token(user, role) if user else None)
    with pytest.raises(StoreError) as error:
        push(store, stored, api=api)
    assert str(error.value) == message
    assert not hub.has_repo("alice/prompts")
    push(store, stored, api=hub.api(hub.token("alice")))
    with pytest.raises(StoreError) as error:
        push(store, put(store, "prompts", seed=1), api=api)
    assert str(error.value) == message, "the same where the repository exists"
    assert len(hub.repo("alice/prompts").commits) == 2


def test_a_login_that_the_hub_does_not_know(hub: HubServer, store: Store) -> None:
    with pytest.raises(StoreError) as error:
        push(store, put(store, "prompts"), api=hub.api("hf_unknownunknownunknown"))
    assert str(error.value) == (
        "pushing to alice/...: the Hub does not accept your login; run `hf auth login --force`, or correct HF_TOKEN"
    )


def test_damaged_artifacts_are_not_published(hub: HubServer, store: Store) -> None:
    stored = put(store, "prompts")
    blob = (stored.path / "data/default/pool-00000-of-00001.parquet").resolve()
    blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    with pytest.raises(DamagedArtifact, match="pool-00000-of-00001.parquet is damaged"):
        push(store, stored, api=hub.api(hub.token("alice")))
    assert not hub.has_repo("alice/prompts")


def test_what_the_repository_ignores_is_published_all_the_same(hub: HubServer, store: Store) -> None:
    """The Hub tells its clients to leave out what a .gitignore names, and they do so in silence."""
    api = hub.api(hub.token("alice"))
    api.create_repo("alice/prompts", repo_type="dataset")
    ignore = CommitOperationAdd(".gitignore", b"*.parquet\npersyn.json\n")
    api.create_commit("alice/prompts", [ignore], commit_message="ignore", repo_type="dataset")
    lost = api.create_commit(
        "alice/prompts", [CommitOperationAdd("x.parquet", PNG)], commit_message="lost", repo_type="dataset"
    )
    assert "x.parquet" not in hub.repo("alice/prompts").at(lost.oid).files, "so it is for others"
    stored = put(store, "prompts")
    push(store, stored, api=api)
    assert set(hub.repo("alice/prompts").at("v1").files) >= {*stored.manifest.files, "persyn.json"}


def test_a_commit_over_the_limit_of_the_hub_is_told(hub: HubServer, store: Store) -> None:
    stored, api = put(store, "prompts"), hub.api(hub.token("alice"))
    hub.api_state.uploads.max_lfs_files = 0
    with pytest.raises(StoreError, match=r"larger than the Hub takes in one commit \(413\)"):
        push(store, stored, api=api)
    assert titles(hub, "alice/prompts") == ["initial commit"]
