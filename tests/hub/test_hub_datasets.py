"""The real `datasets` loads from the local Hub and pushes to it, in processes of its own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hub_server import HubServer
from huggingface_hub import CommitOperationAdd, HfApi


pytestmark = pytest.mark.heavy


DATA = "lab/responses"
README = """---
license: mit
configs:
- config_name: small
  data_files:
  - {split: train, path: small/train-*.parquet}
  - {split: test, path: small/test-*.parquet}
- config_name: large
  data_files:
  - {split: train, path: large/*.parquet}
---
# Responses
"""


def run(hub: HubServer, script: str, token: str | None = None) -> Any:
    """What the script puts into `found`."""
    code = f"import datasets, json\n{script}\nprint(json.dumps(found))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=hub.env(token),
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def api(hub: HubServer, tmp_path: Path) -> HfApi:
    pq = pytest.importorskip("pyarrow.parquet")
    import pyarrow as pa

    operations = [CommitOperationAdd("README.md", README.encode())]
    shards = {
        "small/train-0": range(3),
        "small/train-1": range(3, 5),
        "small/test-0": range(9, 10),
        "large/a": range(50),
    }
    for name, rows in shards.items():
        path = tmp_path / f"{name.replace('/', '-')}.parquet"
        pq.write_table(pa.table({"n": list(rows)}), path)
        operations.append(CommitOperationAdd(f"{name}.parquet", path))
    api = hub.api(hub.token("alice"))
    api.create_repo(DATA, repo_type="dataset", private=True)
    api.create_commit(DATA, operations, commit_message="publish", repo_type="dataset")
    api.create_tag(DATA, tag="v1", repo_type="dataset")
    later = [CommitOperationAdd("README.md", b"---\nlicense: mit\n---\n"), CommitOperationAdd("later.txt", b"")]
    api.create_commit(DATA, later, commit_message="later", repo_type="dataset")
    return api


def test_each_config_and_split_is_loaded_by_tag(hub: HubServer, api: HfApi) -> None:
    script = f"""
found = {{}}
for config, split in (("small", "train"), ("small", "test"), ("large", "train")):
    for streaming in (False, True):
        rows = datasets.load_dataset("{DATA}", config, split=split, revision="v1", streaming=streaming)
        found[f"{{config}} {{split}} {{streaming}}"] = [row["n"] for row in rows]
"""
    found = run(hub, script, token=api.token)
    rows = {"small train": [0, 1, 2, 3, 4], "small test": [9], "large train": list(range(50))}
    assert found == {f"{name} {streaming}": rows[name] for name in rows for streaming in (False, True)}
    assert {seen.user for seen in hub.seen("GET", "^/cdn/")} == {None}


def test_datasets_says_what_it_may_not_load(hub: HubServer, api: HfApi) -> None:
    hub.gate(DATA)
    script = f"""
found = []
for repo, revision in (("{DATA}", "v1"), ("lab/none", None)):
    try:
        datasets.load_dataset(repo, "small", revision=revision)
    except Exception as error:
        found.append([type(error).__name__, str(error)])
"""
    nothing = f"Dataset '{DATA}' doesn't exist on the Hub or cannot be accessed."
    none = ["DatasetNotFoundError", "Dataset 'lab/none' doesn't exist on the Hub or cannot be accessed."]
    assert run(hub, script) == [["DatasetNotFoundError", nothing], none]
    hub.repo(DATA).private = False
    gated = f"Dataset '{DATA}' is a gated dataset on the Hub."
    assert run(hub, script)[0] == ["DatasetNotFoundError", f"{gated} You must be authenticated to access it."]
    ask = f"{gated} Visit the dataset page at https://huggingface.co/datasets/{DATA} to ask for access."
    assert run(hub, script, token=hub.token("bob")) == [["DatasetNotFoundError", ask], none]


def test_datasets_are_pushed_and_pushed_again(hub: HubServer) -> None:
    script = """
for config, rows in (("one", range(10)), ("two", range(5)), ("one", range(7))):
    dataset = datasets.Dataset.from_dict({"n": list(rows)})
    dataset.push_to_hub("lab/pushed", config, split="train", num_shards=2)
found = [datasets.load_dataset("lab/pushed", config, split="train")["n"][:] for config in ("one", "two")]
"""
    assert run(hub, script, token=hub.token("alice")) == [list(range(7)), list(range(5))]
    repo = hub.repo("lab/pushed")
    assert [path for path in repo.commits[0].files if "parquet" in path] == [
        f"{config}/train-0000{shard}-of-00002.parquet" for config in ("one", "two") for shard in (0, 1)
    ]
    assert b"config_name: two" in repo.read("README.md")
