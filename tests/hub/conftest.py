from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import HubServer
from huggingface_hub.utils import disable_progress_bars
from huggingface_hub.utils._xet import abort_xet_session


@pytest.fixture
def hub(heavy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """With two users, of whom alice may write to `lab`; this process' client goes there."""
    with HubServer(tmp_path / "hub") as server:
        server.add_user("alice", orgs=("lab",))
        server.add_user("bob")
        server.attach(monkeypatch)
        disable_progress_bars()  # as `persyn` has it, which some other test may not have let it say in time
        yield server
        abort_xet_session()


@pytest.fixture
def plain(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large files go by LFS, not by Xet."""
    hub.use_plain(monkeypatch)
