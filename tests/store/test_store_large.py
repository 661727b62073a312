"""Datasets that are not kept in memory: the same rows from a file without a name."""

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset
from rows import prompt
from store_samples import fields

from persyn_hf.schemas import PROMPTS
from persyn_hf.store import parquet, parquet_read
from persyn_hf.store.local import Store


@pytest.fixture
def prompts() -> Dataset:
    """5,000 prompts whose splits take turns at random."""
    splits = np.random.default_rng(0).choice(["pool", "dev", "calibration"], 5000, p=[0.8, 0.1, 0.1]).tolist()
    rows = [
        prompt(f"question {number}", f"{number:016x}", reference=None if number % 3 else str(number), split=split)
        for number, split in enumerate(splits)
    ]
    return PROMPTS.dataset(rows)


def test_rows_come_back_in_order_whether_in_memory_or_not(tmp_path, monkeypatch, prompts):
    store = Store(tmp_path)
    stored = store.put(repo="me/p", schema=PROMPTS, data=prompts, fields=fields())
    assert store.read_dataset(stored)[:] == prompts[:]
    monkeypatch.setattr(parquet_read, "IN_MEMORY", 100)
    for chunk in (7, 4999, 10_000):
        monkeypatch.setattr(parquet_read, "CHUNK", chunk)
        found = store.read_dataset(stored)
        assert found[:] == prompts[:] and found.features == PROMPTS.features
    dev = store.read_dataset(stored, split="dev")
    assert dev[:] == prompts.filter(lambda row: row["split"] == "dev")[:]


def test_how_the_rows_lay_in_memory_does_not_show(tmp_path, prompts, monkeypatch):
    """In one piece, in many, or as a selection: the same bytes."""
    tables = [prompts.data.table.slice(start, 333) for start in range(0, 5000, 333)]
    pieces = Dataset(pa.concat_tables(tables))
    selected = prompts.select(list(range(4999, -1, -1))).select(list(range(4999, -1, -1)))
    monkeypatch.setattr(parquet, "ROW_GROUP", 500)
    found = [
        Store(tmp_path / name).put(repo="me/p", schema=PROMPTS, data=data, fields=fields(), shard_rows=1200).manifest
        for name, data in (("whole", prompts), ("pieces", pieces), ("selected", selected))
    ]
    assert found[0].files.keys() >= {f"data/default/pool-0000{n}-of-00004.parquet" for n in range(4)}
    data = [{name: digest for name, digest in one.files.items() if name != "README.md"} for one in found]
    assert data[0] == data[1] == data[2]
