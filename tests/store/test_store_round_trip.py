"""What is stored is read back exactly, by persyn and by the tools of Hugging Face."""

import datetime
import subprocess
import sys

import pytest
from datasets import Dataset, concatenate_datasets, get_dataset_config_names, load_dataset
from huggingface_hub import scan_cache_dir, snapshot_download
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_samples import DATASETS, MODELS, dataset_of, fields, model_folder, rows_of

from persyn_hf.errors import StoreError
from persyn_hf.schemas import PAIRS, PROMPTS, RESPONSES, SFT
from persyn_hf.store.load import load_artifact
from persyn_hf.store.local import Store, default_root


by_kind = pytest.mark.parametrize("schema", DATASETS, ids=lambda schema: schema.kind)


@by_kind
@pytest.mark.parametrize("count", [0, 1, 60])
def test_rows_come_back_in_order(store, schema, count):
    rows = rows_of(schema, count)
    stored = store.put(repo="me/x", schema=schema, data=dataset_of(schema, rows), fields=fields())
    back = store.read_dataset(store.get("me/x@v1", schema.kind))
    assert back.features == schema.features
    assert back.to_list() == dataset_of(schema, rows).to_list()
    schema.check(back, "what was read")
    assert stored.ref == "me/x@v1" and stored.digest == stored.manifest.content_digest()
    for config, splits in stored.manifest.rows.items():
        for split in splits:
            part = store.read_dataset(stored, config=config, split=split).to_list()
            assert part == [
                row
                for row in back.to_list()
                if row.get(schema.config_by, config) == config and row.get(schema.split_by, split) == split
            ]


@by_kind
def test_hugging_face_reads_every_config_and_split(store, tmp_path, schema):
    rows = dataset_of(schema, rows_of(schema, 60))
    stored = store.put(repo="me/x", schema=schema, data=rows, fields=fields())
    folder = snapshot_download("me/x", repo_type="dataset", revision="v1", cache_dir=store.root, local_files_only=True)
    assert folder == str(stored.path)
    configs = list(stored.manifest.rows)
    names = ["all", *configs] if len(configs) > 1 else configs
    assert get_dataset_config_names(folder) == names
    for config in configs:
        loaded = load_dataset(folder, config, cache_dir=str(tmp_path / "cache"))
        assert {name: len(part) for name, part in loaded.items()} == stored.manifest.rows[config]
        assert all(part.features == schema.features for part in loaded.values())
    whole = load_dataset(folder, cache_dir=str(tmp_path / "cache"))  # no config named: nothing may be left out
    key = str
    assert sorted(map(key, concatenate_datasets(list(whole.values())).to_list())) == sorted(map(key, rows.to_list()))


@by_kind
def test_an_empty_dataset_keeps_its_columns(store, schema):
    stored = store.put(repo="me/x", schema=schema, data=dataset_of(schema, []), fields=fields())
    assert stored.manifest.rows == {"default": {"train": 0}}
    # load_dataset of datasets 5.2 refuses every split without rows unless it streams: "corresponds to no data"
    streamed = load_dataset(str(stored.path), streaming=True)["train"]
    assert streamed.features == schema.features and list(streamed) == []
    assert load_artifact("me/x", store=store)["train"].features == schema.features


@pytest.mark.parametrize("schema", MODELS, ids=lambda schema: schema.kind)
def test_models_come_back(store, tmp_path, schema):
    folder = model_folder(tmp_path / "model")
    (folder / "README.md").write_text("what a trainer wrote")
    (folder / ".cache").write_text("hidden")
    stored = store.put(repo="me/m", schema=schema, data=folder, fields=fields())
    read = snapshot_download("me/m", revision="v1", cache_dir=store.root, local_files_only=True)
    assert read == str(stored.path) == load_artifact("me/m@v1", store=store)
    for name in ("config.json", "1_Pooling/config.json", "model.safetensors"):
        assert (stored.path / name).read_bytes() == (folder / name).read_bytes()
    assert "what a trainer wrote" not in (stored.path / "README.md").read_text()
    assert not (stored.path / ".cache").exists()


def test_the_cache_scanner_has_nothing_to_say_about_artifacts(store, tmp_path):
    store.put(repo="me/x", schema=PROMPTS, data=dataset_of(PROMPTS, rows_of(PROMPTS, 3)), fields=fields())
    store.put(repo="me/m", schema=MODELS[0], data=model_folder(tmp_path / "model"), fields=fields())
    found = scan_cache_dir(store.root)
    assert {(repo.repo_type, repo.repo_id) for repo in found.repos} == {("dataset", "me/x"), ("model", "me/m")}
    assert [ref for repo in found.repos for rev in repo.revisions for ref in sorted(rev.refs)] == ["main", "v1"] * 2
    assert all(".persyn" in str(warning) for warning in found.warnings)


def test_load_artifact_gives_what_load_dataset_gives(store):
    rows = dataset_of(RESPONSES, rows_of(RESPONSES, 40))
    store.put(repo="me/x", schema=RESPONSES, data=rows, fields=fields())
    assert set(load_artifact("me/x", store=store)) == {"calibration", "dev", "pool"}
    one = load_artifact("me/x@v1", config="a", split="dev", store=store.root)
    assert isinstance(one, Dataset) and set(one["teacher"]) == {"a"} and set(one["split"]) == {"dev"}
    assert set(load_artifact("me/x@v1", config="a", store=store)["dev"]["teacher"]) == {"a"}
    with pytest.raises(StoreError, match=r"me/x@v1 has no config `b_2`, did you mean `b_1`\? \(known: "):
        load_artifact("me/x@v1", config="b_2", store=store)
    with pytest.raises(StoreError, match=r"has no split `deb`, did you mean `dev`\?"):
        load_artifact("me/x@v1", split="deb", store=store)


def test_neither_store_nor_hub_is_one_sentence_without_secrets(store, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecretsecret")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(StoreError, match="me/none@v1 is not in the store .*; .* needs the Hub") as error:
        load_artifact("me/none@v1", store=store)
    assert "hf_secret" not in str(error.value)


def test_several_shards(store):
    rows = rows_of(PAIRS, 50)
    stored = store.put(repo="me/x", schema=PAIRS, data=dataset_of(PAIRS, rows), fields=fields(), shard_rows=7)
    pool = [name for name in stored.manifest.files if "/pool-" in name]
    assert len(pool) > 1 and all(name.endswith(f"-of-{len(pool):05d}.parquet") for name in pool)
    assert store.read_dataset(stored).to_list() == rows


def test_same_rows_give_the_same_bytes_whatever_their_memory_layout(store, tmp_path):
    rows = rows_of(SFT, 5_000)
    plain = dataset_of(SFT, rows)
    chunked = concatenate_datasets([plain.select(range(0, 1_234)), plain.select(range(1_234, 5_000))])
    selected = dataset_of(SFT, rows[::-1]).select(range(4_999, -1, -1))
    first = store.put(repo="me/x", schema=SFT, data=plain, fields=fields())
    for data in (chunked, selected):
        other = Store(tmp_path / "other").put(repo="me/x", schema=SFT, data=data, fields=fields())
        assert other.digest == first.digest


def test_the_digest_depends_on_content_and_settings_only(store, tmp_path):
    def digest(name, data=3, **more):
        rows = dataset_of(PROMPTS, rows_of(PROMPTS, data))
        return Store(tmp_path / name).put(repo="me/x", schema=PROMPTS, data=rows, fields=fields(**more)).digest

    later = (datetime.datetime.now() + datetime.timedelta(days=1)).isoformat()
    first = digest("a")
    assert first == digest("b", created_at=later, cost={"s": 9}, packages={"datasets": "9"}, fingerprint="0" * 64)
    others = [digest("c", settings={"samples": 5}), digest("d", seed=8), digest("e", data=4)]
    others.append(digest("f", inputs={"prompts": {"ref": "me/p@v1", "digest": "1" * 64}}))
    assert len({first, *others}) == 5


def test_the_order_of_rows_is_content(store):
    rows = rows_of(PAIRS, 30)
    first = store.put(repo="me/x", schema=PAIRS, data=dataset_of(PAIRS, rows), fields=fields())
    second = store.put(repo="me/x", schema=PAIRS, data=dataset_of(PAIRS, rows[::-1]), fields=fields())
    assert first.digest != second.digest
    assert store.read_dataset(second).to_list() == rows[::-1]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "prompt_id": st.text(max_size=8),
                "messages": st.lists(
                    st.fixed_dictionaries({"role": st.text(max_size=3), "content": st.text(max_size=20)}), max_size=3
                ),
                "reference": st.none() | st.text(max_size=5),
                "source": st.text(max_size=3),
                "topic": st.none() | st.text(max_size=3),
                "split": st.from_regex(r"[a-z0-9_]{1,3}(\.[a-z]{1,2})?", fullmatch=True),
            }
        ),
        max_size=12,
    ),
    st.integers(1, 5),
)
def test_any_rows_round_trip(store, rows, shard_rows):
    stored = store.put(
        repo="me/x", schema=PROMPTS, data=dataset_of(PROMPTS, rows), fields=fields(), shard_rows=shard_rows
    )
    assert store.read_dataset(stored).to_list() == rows


def test_names_that_the_hub_does_not_take_are_refused(store):
    rows = [{**row, "teacher": "../up"} for row in rows_of(RESPONSES, 2)]
    with pytest.raises(StoreError, match=r"the column `teacher` holds '../up', which cannot name a config"):
        store.put(repo="me/x", schema=RESPONSES, data=dataset_of(RESPONSES, rows), fields=fields())
    assert store.artifacts() == []


def test_only_known_kinds_of_files_are_stored(store, tmp_path):
    for name in ("training_args.bin", "model.PT", "sub/rng.pkl", "modeling.py", "weights.zip", "LICENSE"):
        folder = model_folder(tmp_path / name.replace("/", "-"))
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"\x80\x04.")
        with pytest.raises(StoreError, match="is of a kind that no artifact may hold.*save weights as safetensors"):
            store.put(repo="me/m", schema=MODELS[0], data=folder, fields=fields())
    assert store.artifacts() == [] and list((store.state_dir / "incoming").iterdir()) == []


def test_wrong_data_is_refused(store, tmp_path):
    with pytest.raises(StoreError, match="me/m of kind `router` is made of the folder of a model, got Dataset"):
        store.put(repo="me/m", schema=MODELS[0], data=dataset_of(PROMPTS, []), fields=fields())
    with pytest.raises(StoreError, match="is no folder"):
        store.put(repo="me/m", schema=MODELS[0], data=tmp_path / "none", fields=fields())
    with pytest.raises(StoreError, match="holds no model files"):
        store.put(repo="me/m", schema=MODELS[0], data=tmp_path, fields=fields())


def test_the_root_comes_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("PERSYN_STORE", str(tmp_path))
    assert default_root() == tmp_path == Store().root
    monkeypatch.delenv("PERSYN_STORE")
    assert str(default_root()) == "artifacts"


def test_importing_the_store_loads_nothing_heavy():
    heavy = "{'torch', 'transformers', 'datasets', 'pyarrow', 'huggingface_hub', 'jinja2'}"
    code = f"import sys, persyn_hf.store.local, persyn_hf.store.lineage; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
