from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import HubServer
from huggingface_hub.utils import disable_progress_bars


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """With two users, of whom alice may write to `lab`; this process' client goes there."""
    with HubServer(tmp_path / "hub") as server:
        server.add_user("alice", orgs=("lab",))
        server.add_user("bob")
        server.attach(monkeypatch)
        disable_progress_bars()  # as `persyn` has it, which some other test may not have let it say in time
        yield server
