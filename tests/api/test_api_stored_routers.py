"""A stored router knows how sure it is by the prompts and rewards beside which it was trained, wherever they are."""

import json
from pathlib import Path

import pytest
from test_api_routing import NEW, cells, of_contracts

import persyn_hf
from persyn_hf.api.rewarding import labelled
from persyn_hf.errors import DamagedArtifact, InputError
from persyn_hf.schemas import PROMPTS, REWARDS, ROUTER
from persyn_hf.store.local import Store
from persyn_hf.store.stored import Stored


OWNER = "alice"
REF = f"{OWNER}/router@v1"


def put(store: Store, work_dir: Path) -> tuple[persyn_hf.Router, dict[str, Stored]]:
    """Store prompts, rewards and a router that was trained on them."""
    rewards, prompts = of_contracts(30, NEW)
    trained = persyn_hf.train_router(rewards, prompts, kind="ridge")
    trained.save(work_dir / "router")
    (work_dir / "router" / "learned.json").unlink()
    known, asked = labelled(rewards, prompts)
    made = {}
    for name, schema, data in (("prompts", PROMPTS, asked), ("rewards", REWARDS, known)):
        made[name] = store.put(repo=f"{OWNER}/{name}", schema=schema, data=data, fields={"stage": name})
    inputs = {name: {"ref": item.ref, "digest": item.digest} for name, item in made.items()}
    about = {"stage": "train_router", "inputs": inputs, "metrics": dict(trained.metrics)}
    made["router"] = store.put(repo=f"{OWNER}/router", schema=ROUTER, data=work_dir / "router", fields=about)
    return trained, made


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_it_predicts_as_when_it_was_trained(store: Store, tmp_path: Path) -> None:
    trained, _ = put(store, tmp_path)
    loaded = persyn_hf.load_router(REF, store=store.root)
    assert loaded.predict(NEW).to_list() == trained.predict(NEW).to_list()
    assert loaded.predict(NEW)["confidence"][0] > 0.8
    assert loaded.metrics["router"] == trained.metrics["router"]
    assert set(persyn_hf.load_router(REF, store=store, confidence=False).predict(NEW)["confidence"]) == {None}


def test_without_what_it_was_trained_beside_it_routes_and_is_not_sure(store: Store, tmp_path: Path) -> None:
    trained, made = put(store, tmp_path)
    made["rewards"].ref_file.unlink()
    predicted = persyn_hf.load_router(REF, store=store).predict(NEW)
    assert predicted["teacher"][:] == trained.predict(NEW)["teacher"][:]
    assert set(predicted["confidence"]) == {None}


def test_other_rewards_under_the_same_name_are_not_taken(store: Store, tmp_path: Path) -> None:
    _, made = put(store, tmp_path)
    other, _ = labelled([row | {"reward": 0.0} for row in cells()], None)
    fields = {"stage": "rewards"}
    moved = store.put(repo=f"{OWNER}/rewards", schema=REWARDS, data=other, fields=fields, tag="v2")
    made["rewards"].ref_file.write_text(moved.ref_file.read_text())
    assert set(persyn_hf.load_router(REF, store=store).predict(NEW)["confidence"]) == {None}


def test_damage_is_told(store: Store, tmp_path: Path) -> None:
    _, made = put(store, tmp_path)
    (file,) = made["prompts"].path.glob("data/*/dev-*.parquet")
    blob = file.resolve()
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    with pytest.raises(DamagedArtifact, match="alice/prompts@v1"):
        persyn_hf.load_router(REF, store=store)


def test_a_folder_that_is_no_router_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no router: no router.json in it"):
        persyn_hf.load_router(tmp_path)
    persyn_hf.train_router(cells(), kind="ridge").save(tmp_path / "router")
    for text in ("{", "[]", json.dumps({"prior": [1], "dev": {}, "metrics": {}})):
        (tmp_path / "router" / "learned.json").write_text(text)
        with pytest.raises(InputError, match="learned.json is damaged"):
            persyn_hf.load_router(tmp_path / "router")
