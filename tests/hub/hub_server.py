"""A local Hugging Face Hub, for the unmodified clients `huggingface_hub` and `datasets`, that fails on demand.

Large files come and go by Xet, as they do wherever its client is installed, or by LFS where that is switched off
(`use_plain`). Both are at `localhost` while the Hub itself is at `127.0.0.1`: another host, as on the Hub, where no
token may go.
"""

import contextlib
import os
import re
import socket
import threading
from pathlib import Path

import pytest
from hub_api import Api
from hub_faults import Fault, Seen
from hub_http import HubHttp
from hub_repos import Repo
from huggingface_hub import HfApi, constants, hf_api
from huggingface_hub.utils._xet import abort_xet_session


__all__ = ["Fault", "HubServer"]

# The client's own retries, short: that of the whole transfer is what is tried here.
XET_IN_TESTS = {"HF_XET_CLIENT_RETRY_BASE_DELAY": "50ms", "HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "1"}


class HubServer:
    """Started at once; a context manager, which fails at its end if the server itself crashed meanwhile."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.with_xet = True
        self.faults: list[Fault] = []
        self.requests: list[Seen] = []
        self.crashes: list[str] = []
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.sockets: set[socket.socket] = set()
        self._http = HubHttp(self)
        port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{port}"
        self.api_state = Api(root, self.url, f"http://localhost:{port}")
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def __enter__(self) -> "HubServer":
        return self

    def __exit__(self, *args: object) -> None:
        self.stop()
        assert not self.crashes, "\n".join(self.crashes)

    def stop(self) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        with self.lock:
            for open_socket in self.sockets:
                with contextlib.suppress(OSError):
                    open_socket.shutdown(socket.SHUT_RDWR)

    # Accounts and clients

    def add_user(self, name: str, orgs: tuple[str, ...] = ()) -> None:
        self.api_state.accounts.orgs[name] = orgs

    def token(self, user: str, role: str = "write") -> str:
        return self.api_state.accounts.issue(user, role)

    def api(self, token: str | None = None) -> HfApi:
        """In this process, where the clients must be let through: see `attach`."""
        return HfApi(endpoint=self.url, token=token or False)

    def attach(self, monkeypatch: pytest.MonkeyPatch, home: Path | None = None) -> None:
        """Points `huggingface_hub` here in this very process, which has read its environment long ago.

        `datasets` keeps copies of its own: use it in a process with `env`.
        """
        home = home or self.root / "home"
        template = self.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", self.url)
        monkeypatch.setattr(hf_api.api, "endpoint", self.url)  # behind the functions of the module
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", not self.with_xet)
        for name, value in {**XET_IN_TESTS, "HF_XET_CACHE": str(home / "xet")}.items():
            monkeypatch.setenv(name, value)
        abort_xet_session()  # the next one reads these
        monkeypatch.setattr(constants, "HF_HOME", str(home))
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)

    def use_plain(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Large files go by LFS from now on, as a user has it who sets HF_HUB_DISABLE_XET=1."""
        self.with_xet = False
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)

    def env(self, token: str | None = None, home: Path | None = None) -> dict[str, str]:
        """The whole environment of a process whose Hub this is."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING_FACE_"))}
        ours.pop("TRANSFORMERS_OFFLINE", None)
        ours |= {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home or self.root / "home"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "NO_PROXY": "127.0.0.1,localhost",
        }
        ours |= XET_IN_TESTS if self.with_xet else {"HF_HUB_DISABLE_XET": "1"}
        return ours | ({"HF_TOKEN": token} if token else {})

    # State

    def repo(self, repo_id: str, repo_type: str = "dataset") -> Repo:
        """Its `commits`, `tags`, `private`, `read(path, revision)`."""
        return self.api_state.repos[repo_type, repo_id]

    def has_repo(self, repo_id: str, repo_type: str = "dataset") -> bool:
        return (repo_type, repo_id) in self.api_state.repos

    def gate(self, repo_id: str, repo_type: str = "dataset", accepted: tuple[str, ...] = ()) -> None:
        repo = self.repo(repo_id, repo_type)
        repo.gated, repo.accepted = "auto", set(accepted)

    def seen(self, method: str, path_pattern: str = "") -> list[Seen]:
        with self.lock:
            requests = list(self.requests)
        return [seen for seen in requests if seen.method == method and re.search(path_pattern, seen.path)]

    def take_fault(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.matches(method, path):
                    fault.times -= 1
                    if fault.times <= 0:
                        self.faults.remove(fault)
                    return fault
        return None
