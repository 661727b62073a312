"""A router that somebody has published is asked on another machine."""

from pathlib import Path

import pytest
from hub_server import HubServer
from test_api_routing import NEW
from test_api_stored_routers import OWNER, REF, put

import persyn_hf
from persyn_hf.store.hub.push import push
from persyn_hf.store.local import Store


@pytest.mark.heavy
def test_a_published_router_predicts_as_on_the_machine_that_made_it(hub: HubServer, tmp_path: Path) -> None:
    store = Store(tmp_path / "me")
    trained, made = put(store, tmp_path)
    for stored in made.values():
        push(store, stored, api=hub.api(hub.token(OWNER)))
    loaded = persyn_hf.load_router(REF, store=tmp_path / "empty")
    assert loaded.predict(NEW).to_list() == trained.predict(NEW).to_list()
    assert loaded.predict(NEW)["confidence"][0] > 0.8
    assert not (tmp_path / "empty").exists(), "it is in the cache of the hub library"
