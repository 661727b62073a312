"""The local Hub answers so that the real client of the Hub is content, or says what it says to the Hub's errors."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import numpy as np
import pytest
from hub_server import HubServer
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, DatasetCard, HfApi, HfFileSystem, ModelCard
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile, RepoFolder


README = b"---\nlicense: mit\nlanguage: [en, de]\ntags: [persyn]\n---\n# Numbers\n"
LARGE = os.urandom(3_000_000)  # in LFS by its name, as *.parquet
DATA = "lab/data"


@pytest.fixture
def api(hub: HubServer) -> HfApi:
    return hub.api(hub.token("alice"))


def publish(api: HfApi, files: dict[str, bytes]) -> str:
    api.create_repo(DATA, repo_type="dataset", exist_ok=True)
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    return api.create_commit(DATA, operations, commit_message="publish", repo_type="dataset").oid


def status(error: pytest.ExceptionInfo[HfHubHTTPError]) -> int:
    return error.value.response.status_code


@pytest.mark.usefixtures("plain")
def test_commits_hold_small_and_large_files_and_deletions(hub: HubServer, api: HfApi) -> None:
    assert str(api.create_repo(DATA, repo_type="dataset")) == f"{hub.url}/datasets/{DATA}"
    first = publish(api, {"README.md": README, "a/b/x.parquet": LARGE, "a/y.txt": b"y", "a/z.txt": b""})
    operations = [CommitOperationDelete("a/b/"), CommitOperationDelete("a/y.txt"), CommitOperationAdd("n.txt", b"new")]
    second = api.create_commit(DATA, operations, commit_message="less", commit_description="Why.", repo_type="dataset")

    commits = hub.repo(DATA).commits
    assert [commit.sha for commit in commits[:2]] == [second.oid, first]
    assert [commit.title for commit in commits] == ["less", "publish", "initial commit"]
    assert list(commits[0].files) == [".gitattributes", "README.md", "a/z.txt", "n.txt"]
    assert hub.repo(DATA).read("a/b/x.parquet", first) == LARGE
    assert hub.repo(DATA).read("README.md") == README
    assert [
        (commit.commit_id, commit.title, commit.authors) for commit in api.list_repo_commits(DATA, repo_type="dataset")
    ] == [(commit.sha, commit.title, ["alice"]) for commit in commits]
    assert len(hub.seen("PUT", "^/storage/dataset/lab/data/")) == 1


def test_listings_are_those_of_the_revision(hub: HubServer, api: HfApi) -> None:
    first = publish(api, {"README.md": README, "a/b/x.parquet": LARGE, "a/y.txt": b"y"})
    publish(api, {"a/y.txt": b"another"})

    found = list(api.list_repo_tree(DATA, repo_type="dataset", recursive=True, revision=first, expand=True))
    assert [entry.path for entry in found] == [".gitattributes", "README.md", "a", "a/b", "a/b/x.parquet", "a/y.txt"]
    assert [type(entry) for entry in found] == [RepoFile, RepoFile, RepoFolder, RepoFolder, RepoFile, RepoFile]
    assert found[0].last_commit.title == "initial commit" and found[4].last_commit.oid == first
    assert found[4].lfs.sha256 == hashlib.sha256(LARGE).hexdigest() and found[4].size == len(LARGE)
    assert [entry.path for entry in api.list_repo_tree(DATA, "a", repo_type="dataset")] == ["a/b", "a/y.txt"]
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree(DATA, "b", repo_type="dataset"))
    info = api.get_paths_info(DATA, ["a", "a/y.txt", "none"], repo_type="dataset")
    assert [entry.path for entry in info] == ["a", "a/y.txt"] and info[1].size == 7
    # What git itself names these bytes: git hash-object.
    assert api.get_paths_info(DATA, "a/y.txt", repo_type="dataset", revision=first)[0].blob_id == (
        "e25f1814e51579d5f55c0f1fe0135ddb28a47f4a"
    )
    about = api.dataset_info(DATA, revision=first, files_metadata=True)
    assert (about.sha, about.private, about.gated, about.card_data.license) == (first, False, False, "mit")
    assert about.tags == ["language:en", "language:de", "license:mit", "persyn", "region:us"]
    assert {file.rfilename: file.size for file in about.siblings}["a/y.txt"] == 1


def test_long_listings_come_in_pages(hub: HubServer, api: HfApi) -> None:
    publish(api, {f"data/{number}": b"%d" % number for number in range(7)})
    hub.api_state.page_size = 3
    hub.requests.clear()
    paths = [entry.path for entry in api.list_repo_tree(DATA, "data", repo_type="dataset", recursive=True)]
    assert paths == [f"data/{number}" for number in range(7)]
    assert len(hub.seen("GET", "/tree/main/data")) == 3


def test_a_commit_on_another_parent_is_refused(hub: HubServer, api: HfApi) -> None:
    parent = publish(api, {"README.md": README})
    head = publish(api, {"n.txt": b"meanwhile"})
    with pytest.raises(HfHubHTTPError, match="A commit has happened since. Please refresh and try again.") as error:
        add = CommitOperationAdd("n.txt", b"mine")
        api.create_commit(DATA, [add], commit_message="late", repo_type="dataset", parent_commit=parent)
    assert status(error) == 412
    assert hub.repo(DATA).commits[0].sha == head and hub.repo(DATA).read("n.txt") == b"meanwhile"


def test_of_commits_and_tags_at_the_same_time_one_wins(hub: HubServer, api: HfApi) -> None:
    parent = publish(api, {"README.md": README})

    def push(number: int) -> int:
        add = CommitOperationAdd("n.txt", b"%d" % number)
        try:
            done = api.create_commit(DATA, [add], commit_message="n", repo_type="dataset", parent_commit=parent)
            api.create_tag(DATA, tag="v1", revision=done.oid, repo_type="dataset")
        except HfHubHTTPError as error:
            return error.response.status_code
        return 200

    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(push, range(8))) == [200] + [412] * 7
    assert [commit.parent for commit in hub.repo(DATA).commits[:1]] == [parent]
    assert hub.repo(DATA).tags == {"v1": hub.repo(DATA).commits[0].sha}


def test_a_commit_is_all_or_nothing(hub: HubServer, api: HfApi) -> None:
    head = publish(api, {"README.md": README})
    operations = [CommitOperationAdd("n.txt", b"new"), CommitOperationDelete("none.txt")]
    with pytest.raises(EntryNotFoundError, match="A file with this name doesn't exist"):
        api.create_commit(DATA, operations, commit_message="half", repo_type="dataset")
    assert hub.repo(DATA).commits[0].sha == head


def test_tags_do_not_move(hub: HubServer, api: HfApi) -> None:
    first = publish(api, {"README.md": README})
    api.create_tag(DATA, tag="v1", repo_type="dataset")
    publish(api, {"n.txt": b"new"})
    with pytest.raises(HfHubHTTPError, match="Tag reference exists already") as error:
        api.create_tag(DATA, tag="v1", repo_type="dataset")
    assert status(error) == 409
    api.create_tag(DATA, tag="v1", repo_type="dataset", exist_ok=True)
    refs = api.list_repo_refs(DATA, repo_type="dataset")
    assert [(tag.name, tag.ref, tag.target_commit) for tag in refs.tags] == [("v1", "refs/tags/v1", first)]
    assert [branch.name for branch in refs.branches] == ["main"]
    assert hub.repo(DATA).tags == {"v1": first} and hub.repo(DATA).at("v1").title == "publish"
    with pytest.raises(RevisionNotFoundError, match="Invalid rev id: v9"):
        api.create_tag(DATA, tag="v2", revision="v9", repo_type="dataset")
    api.delete_tag(DATA, tag="v1", repo_type="dataset")
    with pytest.raises(RevisionNotFoundError):
        api.delete_tag(DATA, tag="v1", repo_type="dataset")


@pytest.mark.usefixtures("plain")
def test_downloads_are_cached_by_etag(hub: HubServer, api: HfApi, tmp_path: Path) -> None:
    publish(api, {"README.md": README, "data/x.parquet": LARGE})
    api.create_tag(DATA, tag="v1", repo_type="dataset")
    publish(api, {"README.md": README + b"More.\n"})

    folder = Path(api.snapshot_download(DATA, repo_type="dataset", revision="v1"))
    assert (folder / "README.md").read_bytes() == README and (folder / "data/x.parquet").read_bytes() == LARGE
    assert [seen.user for seen in hub.seen("GET", "^/cdn/")] == [None]  # no token goes to another host
    hub.requests.clear()
    path = api.hf_hub_download(DATA, "data/x.parquet", repo_type="dataset")  # of main, whose content is the same
    assert Path(path).read_bytes() == LARGE
    assert hub.seen("GET", "/resolve/|/cdn/") == [] and len(hub.seen("HEAD", "/resolve/main/")) == 1
    resolved = Path(api.hf_hub_download(DATA, "README.md", repo_type="dataset", local_dir=tmp_path / "here"))
    assert resolved.read_bytes() == README + b"More.\n"


def test_parts_of_files_are_read_by_range(hub: HubServer, api: HfApi) -> None:
    publish(api, {"data/x.parquet": LARGE, "t.txt": b"0123456789"})
    files = HfFileSystem(endpoint=hub.url, token=api.token, skip_instance_cache=True)
    with files.open(f"datasets/{DATA}/data/x.parquet", block_size=1000, cache_type="none") as file:
        file.seek(2_000_000)
        assert file.read(100) == LARGE[2_000_000:2_000_100]
    assert files.cat_file(f"datasets/{DATA}@main/t.txt", start=3, end=5) == b"34"
    assert files.ls(f"datasets/{DATA}/data", detail=False) == [f"datasets/{DATA}/data/x.parquet"]
    assert {seen.status for seen in hub.seen("GET", "^/cdn/|/t.txt")} == {206}


@pytest.mark.usefixtures("plain")
def test_folders_are_uploaded_once(hub: HubServer, api: HfApi, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name, content in {"README.md": README, "data/x.npy": LARGE}.items():
        (tmp_path / name).write_bytes(content)
    api.create_repo("alice/model")
    options = {"ignore_patterns": "hub/**", "delete_patterns": "*.txt"}
    api.upload_file(path_or_fileobj=b"old", path_in_repo="old.txt", repo_id="alice/model")
    one = api.upload_folder(repo_id="alice/model", folder_path=tmp_path, **options)
    two = api.upload_folder(repo_id="alice/model", folder_path=tmp_path, **options)
    assert one.oid == two.oid == hub.repo("alice/model", "model").commits[0].sha
    assert list(hub.repo("alice/model", "model").commits[0].files) == [
        ".gitattributes",
        "README.md",
        "data/x.npy",
    ]
    assert len(hub.seen("PUT")) == 1


@pytest.mark.usefixtures("plain")
def test_the_largest_files_go_in_parts(hub: HubServer, api: HfApi) -> None:
    hub.api_state.uploads.part_size = 1_000_000
    publish(api, {"x.parquet": LARGE, "y.parquet": LARGE[:1_000_000]})
    assert hub.repo(DATA).read("x.parquet") == LARGE
    parts = [seen.path.rpartition("/")[2] for seen in hub.seen("PUT", r"/\d$")]
    assert parts == ["1", "2", "3"] and len(hub.seen("POST", "/complete_multipart/")) == 1
    assert len(hub.seen("PUT")) == 4, "the other file goes in one piece"


def test_chunks_that_xet_has_are_not_sent_again(hub: HubServer, api: HfApi, tmp_path: Path) -> None:
    texts = [
        b"one line, many times\n" * 50_000,
        os.urandom(300_000) + LARGE,
        np.arange(300_001, dtype="<f4").tobytes(),
    ]
    files = {f"{number}.parquet": text for number, text in enumerate(texts)}  # packed in three ways
    publish(api, files)
    publish(api, {"again.parquet": LARGE + b"x"})
    assert {name: hub.repo(DATA).read(name) for name in files} == files
    sent = sum(chunk.end - chunk.start for xorb in hub.api_state.xet.xorbs.values() for chunk in xorb)
    assert sent < sum(map(len, texts)) + 200_000, "the chunk at its end is new"
    folder = Path(api.snapshot_download(DATA, repo_type="dataset", local_dir=tmp_path / "here"))
    assert {name: (folder / name).read_bytes() for name in files} == files


def test_a_token_for_writing_to_xet_needs_the_right_to_write(hub: HubServer, api: HfApi) -> None:
    publish(api, {"README.md": README})
    route = f"{hub.url}/api/datasets/{DATA}"
    headers = {"Authorization": f"Bearer {hub.token('bob')}"}
    assert httpx2.get(f"{route}/xet-write-token/main", headers=headers).status_code == 403
    access = httpx2.get(f"{route}/xet-read-token/main", headers=headers).json()
    headers = {"Authorization": f"Bearer {access['accessToken']}"}
    assert httpx2.post(f"{access['casUrl']}/v1/xorbs/default/{'0' * 64}", headers=headers).status_code == 404
    assert httpx2.get(f"{access['casUrl']}/v1/reconstructions/{'0' * 64}").status_code == 401


def test_repositories_are_made_once_moved_and_deleted(hub: HubServer, api: HfApi) -> None:
    api.create_repo(DATA, repo_type="dataset", private=True)
    assert hub.repo(DATA).private and not hub.has_repo(DATA, "model")
    with pytest.raises(HfHubHTTPError, match="You already created this dataset repo") as error:
        api.create_repo(DATA, repo_type="dataset")
    assert status(error) == 409
    assert api.create_repo(DATA, repo_type="dataset", exist_ok=True).repo_id == DATA
    api.update_repo_settings(DATA, repo_type="dataset", private=False, gated="auto")
    assert (hub.repo(DATA).private, hub.repo(DATA).gated) == (False, "auto")
    api.create_branch(DATA, branch="next", repo_type="dataset")
    api.upload_file(path_or_fileobj=b"n", path_in_repo="n", repo_id=DATA, repo_type="dataset", revision="next")
    assert len(list(hub.repo(DATA).history("next"))) == 2 and len(hub.repo(DATA).commits) == 1
    api.move_repo(DATA, "alice/data", repo_type="dataset")
    assert api.repo_exists("alice/data", repo_type="dataset") and not api.repo_exists(DATA, repo_type="dataset")
    api.delete_repo("alice/data", repo_type="dataset")
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo("alice/data", repo_type="dataset")


def test_what_is_missing_has_its_own_error(hub: HubServer, api: HfApi) -> None:
    publish(api, {"README.md": README})
    with pytest.raises(RepositoryNotFoundError):
        api.dataset_info("lab/none")
    with pytest.raises(RevisionNotFoundError, match="Invalid rev id: v9"):
        api.dataset_info(DATA, revision="v9")
    with pytest.raises(RevisionNotFoundError):
        api.snapshot_download(DATA, repo_type="dataset", revision="refs/convert/parquet")
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download(DATA, "none.txt", repo_type="dataset")
    assert not api.file_exists(DATA, "none.txt", repo_type="dataset")
    with pytest.raises(HfHubHTTPError, match="This test Hub does not speak GET /api/collections/lab/none"):
        api.get_collection("lab/none")


def test_cards_are_checked_before_they_are_committed(hub: HubServer, api: HfApi) -> None:
    publish(api, {"README.md": README})
    card = DatasetCard.load(DATA, token=api.token)
    assert card.data.license == "mit"
    card.data.license = "made-up"
    with pytest.raises(ValueError, match=r'"license\\" must be one of .*, not made-up'):
        card.push_to_hub(DATA, token=api.token)
    card.data.license = "apache-2.0"
    card.push_to_hub(DATA, token=api.token)
    assert b"license: apache-2.0" in hub.repo(DATA).read("README.md")
    for broken in (b"---\nlicense: [mit\n---\n", b"---\nconfigs:\n- data_files: x.parquet\n---\n"):
        with pytest.raises(ValueError, match="Invalid metadata in README.md"):
            publish(api, {"README.md": broken})
    with pytest.warns(UserWarning, match="empty or missing yaml metadata in repo card"):
        publish(api, {"README.md": b"# No metadata\n"})


def test_models_show_their_results(hub: HubServer, api: HfApi) -> None:
    content = """---
license: apache-2.0
base_model: Qwen/Qwen3-0.6B
datasets: [lab/data]
model-index:
- name: student
  results:
  - task: {type: text-generation}
    dataset: {type: lab/gsm8k, name: GSM8K, split: test}
    metrics: [{type: exact_match, value: 0.5}]
---
# Student
"""
    api.create_repo("lab/student")
    ModelCard(content).push_to_hub("lab/student", token=api.token)
    result = ModelCard.load("lab/student", token=api.token).data.eval_results[0]
    assert (result.dataset_name, result.metric_type, result.metric_value) == ("GSM8K", "exact_match", 0.5)
    info = api.model_info("lab/student")
    assert {"base_model:Qwen/Qwen3-0.6B", "dataset:lab/data"} <= set(info.tags)
    assert info.model_index[0]["results"][0]["dataset"]["name"] == "GSM8K"
    with pytest.raises(ValueError, match=r"results\[0\].dataset.name.* is required"):
        broken = content.replace("name: GSM8K, ", "").encode()
        api.upload_file(path_or_fileobj=broken, path_in_repo="README.md", repo_id="lab/student")
