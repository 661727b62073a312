"""Training data for other trainers: what lies in the files is what was stored."""

import json
from pathlib import Path

import pytest
from datasets import load_dataset
from store_samples import dataset_of, fields, rows_of

from persyn_hf.errors import StoreError
from persyn_hf.schemas import PROMPTS, SFT
from persyn_hf.store.export import export
from persyn_hf.store.local import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    found = Store(tmp_path_factory.mktemp("store"))
    found.put(repo="local/demo-sft", schema=SFT, data=dataset_of(SFT, rows_of(SFT, 2500)), fields=fields("mix"))
    found.put(repo="local/demo", schema=PROMPTS, data=dataset_of(PROMPTS, rows_of(PROMPTS, 3)), fields=fields("p"))
    return found


def test_jsonl_is_the_rows(store: Store, tmp_path: Path) -> None:
    (path,) = export(store, "local/demo-sft", "jsonl", tmp_path / "new")
    assert path == tmp_path / "new" / "demo-sft-v1.jsonl"
    expected = store.read_dataset(store.get("local/demo-sft")).select_columns(["prompt", "completion"])
    assert [json.loads(line) for line in path.read_text("utf-8").split("\n")[:-1]] == list(expected)
    assert load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path))[:] == expected[:]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_llama_factory_finds_the_rows_by_its_dataset_info(store: Store, tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text('{"theirs": {"file_name": "other.json"}}')
    path, info = export(store, "local/demo-sft@v1", "llama-factory", tmp_path)
    known = json.loads(info.read_text())
    assert list(known) == ["theirs", "demo-sft-v1"]
    entry = known["demo-sft-v1"]
    assert (tmp_path / entry["file_name"]) == path
    assert (entry["formatting"], entry["columns"]) == ("sharegpt", {"messages": "messages"})
    rows = [json.loads(line)[entry["columns"]["messages"]] for line in path.read_text("utf-8").split("\n")[:-1]]
    expected = store.read_dataset(store.get("local/demo-sft"))
    assert rows == [row["prompt"] + row["completion"] for row in expected]
    assert {key for row in rows for turn in row for key in turn} == {
        entry["tags"]["role_tag"],
        entry["tags"]["content_tag"],
    }


def test_what_cannot_be_exported(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="local/demo is of kind `prompts`, needed is `sft`; name another artifact"):
        export(store, "local/demo", "jsonl", tmp_path)
    (tmp_path / "dataset_info.json").write_text("[]")
    with pytest.raises(StoreError) as caught:
        export(store, "local/demo-sft", "llama-factory", tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/dataset_info.json must hold a JSON object of datasets, and does not; mend it, or give another "
        "folder"
    )
    assert (tmp_path / "dataset_info.json").read_text() == "[]" and len(list(tmp_path.iterdir())) == 1
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="file"):
        export(store, "local/demo-sft", "jsonl", tmp_path / "file")
