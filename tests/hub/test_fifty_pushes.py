"""Fifty pushes to a Hub that fails: every request of a push fails in every way in one of them, several in each.

Whatever happens: published once and right, or not at all and told, and then the next push publishes.
"""

import random
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hub_repos import Commit
from hub_samples import fields
from hub_server import Fault, HubServer
from huggingface_hub import CommitOperationAdd, DatasetCard
from store_samples import dataset_of, model_folder, rows_of

from persyn_hf.contract import ModelSchema
from persyn_hf.errors import StoreError
from persyn_hf.schemas import SCHEMAS
from persyn_hf.store.hub import faults
from persyn_hf.store.hub.pull import pull
from persyn_hf.store.hub.push import push
from persyn_hf.store.local import Store
from persyn_hf.store.manifest import Manifest
from persyn_hf.store.stored import Stored, repo_type


PUSHES = 50
ASKED_S = 7  # Retry-After
STAYS = 999  # times
REFUSALS = (401, 403, 404)
ENDPOINTS = {
    "create": ("POST", r"/repos/create$"),  # of new repositories alone
    "info": ("GET", r"^/api/(datasets|models)/alice/\w+$"),
    "refs": ("GET", r"/refs$"),
    "history": ("GET", r"/commits/"),
    "tree": ("GET", r"/tree/"),
    "manifest": ("HEAD", r"/resolve/.*persyn.json$"),
    "card head": ("HEAD", r"/resolve/.*README.md$"),  # of repositories that have one
    "card": ("GET", r"/resolve/.*README.md$"),
    "validate": ("POST", r"/validate-yaml$"),
    "preupload": ("POST", r"/preupload/"),
    "batch": ("POST", r"/objects/batch$"),
    "upload": ("PUT", r"^/storage/"),
    "verify": ("POST", r"/objects/verify$"),
    "commit": ("POST", r"/commit/"),
    "tag": ("POST", r"/tag/"),
}
WHOAMI = ("GET", r"/whoami-v2$")  # asked where something is refused
WRITES = {"create", "upload", "verify", "commit", "tag"}
REFUSED: list[dict[str, Any]] = [
    {"status": 401},
    {"status": 403},
    {"status": 404},
    {"status": 404, "headers": {"X-Error-Code": "RepoNotFound"}},
]
PASSING: list[dict[str, Any]] = [
    {"status": 409},
    {"status": 412},
    {"status": 429, "retry_after": ASKED_S},
    {"status": 500},
    {"status": 503, "times": STAYS},
    {"cut": 0},
    {"cut": 60},
    {"delay_s": 0.2},
]
DONE: list[dict[str, Any]] = [{"status": 500, "after": True}, {"cut": 0, "after": True}]


def is_new(number: int) -> bool:
    return number % 2 == 0


def deal() -> list[list[Fault]]:
    """The faults of each push, no two of them at one endpoint."""
    draw, hands = random.Random(0), [[] for _ in range(PUSHES)]
    for endpoint, (method, path) in ENDPOINTS.items():
        wanted = {"create": [True], "card": [False], "card head": [False]}.get(endpoint, [True, False])
        numbers = [number for number in range(PUSHES) if is_new(number) in wanted]
        failures = REFUSED + PASSING + (DONE if endpoint in WRITES else [])
        for number, failure in zip(draw.sample(numbers, len(failures)), failures, strict=True):
            hands[number].append(Fault(method, path, **failure))
    refused = [hand for hand in hands if any(fault.status in REFUSALS for fault in hand)]
    for hand, failure in zip(refused, REFUSED + PASSING, strict=False):
        hand.append(Fault(*WHOAMI, **failure))
    return hands


HANDS = deal()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two versions of an artifact of each kind, the first with files that the second lacks."""
    folder = tmp_path_factory.mktemp("fifty")
    store = Store(folder / "store")
    score = {"accuracy": 0.5, "stderr": 0.1, "low": 0.3, "high": 0.7, "num_items": 6, "unjudged": 0, "mean_tokens": 1}
    for kind, schema in SCHEMAS.items():
        for seed in (1, 2):
            if isinstance(schema, ModelSchema):
                data: Any = model_folder(folder / f"{kind}-{seed}", seed)
            else:
                data = dataset_of(schema, rows_of(schema, {1: 40, 2: 2}[seed], seed))
            more = {"metrics": {"svamp": score}} if kind == "evaluation" else {}
            about = fields(fingerprint=f"{seed}".ljust(64, "0"), **more)
            old = {"figures/old.png": b"\x89PNG"} if seed == 1 else {}
            store.put(repo=f"alice/{kind}", schema=schema, data=data, fields=about, figures=old)
    return store


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that would have been waited, ours and those of the hub library."""
    waited: list[float] = []
    clock = SimpleNamespace(**vars(time) | {"sleep": waited.append})
    monkeypatch.setattr(faults, "time", clock)
    monkeypatch.setattr("huggingface_hub.utils._http.time", clock)
    monkeypatch.setattr("huggingface_hub.file_download.time", clock)
    return waited


@pytest.mark.heavy
@pytest.mark.usefixtures("plain")  # for Xet see test_xet
@pytest.mark.parametrize("number", range(PUSHES))
def test_published_once_and_right_or_told(
    hub: HubServer, store: Store, pauses: list[float], tmp_path: Path, number: int
) -> None:
    kind, token = list(SCHEMAS)[number % len(SCHEMAS)], hub.token("alice")
    api, stored = hub.api(token), store.get(f"alice/{kind}@v1")
    if not is_new(number):
        push(store, stored, api=api)
        edit(hub, stored, token)
        stored = store.get(f"alice/{kind}@v2")
    hub.faults[:] = [replace(fault) for fault in HANDS[number]]
    # the hub library repeats a HEAD at once, the first time
    rate_limited = any(fault.status == 429 and fault.method != "HEAD" for fault in hub.faults)
    pushed = None
    while pushed is None:
        begun = [replace(fault) for fault in hub.faults]
        try:
            pushed = push(store, stored, api=api)
        except StoreError as error:
            refused = [fault for fault in begun if fault.status in REFUSALS and fault not in hub.faults]
            staying = [fault for fault in hub.faults if 1 < fault.times < STAYS]
            assert refused or staying, f"nothing that had to end it: {error}"
            check_told(str(error), stored, token)
            check_unpublished(hub, stored)
            hub.faults[:] = [fault for fault in hub.faults if fault not in staying]
    left = [fault for fault in hub.faults if fault.times in (1, STAYS)]
    assert {(fault.method, fault.path_pattern) for fault in left} <= {WHOAMI}, "all have happened"
    assert not rate_limited or max(pauses, default=0) >= ASKED_S
    check_published(hub, store, stored)
    assert hub.repo(stored.repo, repo_type(kind)).tags[stored.tag] == pushed.commit
    again = push(store, stored, api=api)
    assert (again.sent, again.commit) == ("nothing", pushed.commit)
    (pulled,) = pull(Store(tmp_path / "other"), stored.ref, api=api)
    assert pulled.digest == stored.digest
    pulled.check()


def edit(hub: HubServer, stored: Stored, token: str) -> None:
    """What others do to a repository between two pushes."""
    kind = repo_type(stored.kind)
    card = DatasetCard(hub.repo(stored.repo, kind).read("README.md").decode())
    card.data.thumbnail = "https://example.org/x.png"
    card.data.tags = [*card.data.tags, "maths"]
    operations = [CommitOperationAdd("README.md", str(card).encode()), CommitOperationAdd("notes.txt", b"mine")]
    hub.api(token).create_commit(stored.repo, operations, commit_message="edit", repo_type=kind)


def check_told(message: str, stored: Stored, token: str) -> None:
    assert "\n" not in message and "; " in message and len(message) < 300, message
    assert "alice/" in message, message
    assert token not in message and "://" not in message.replace("https://huggingface.co/settings/tokens", ""), message


def publishing(hub: HubServer, stored: Stored) -> list[Commit]:
    """The commits that published this tag, each of them whole."""
    repo = hub.repo(stored.repo, repo_type(stored.kind))
    found = [commit for commit in repo.commits if commit.title.startswith(f"Publish {stored.tag} ")]
    for commit in found:
        manifest = Manifest.model_validate_json(repo.read("persyn.json", commit.sha))
        assert manifest.digest == manifest.content_digest() == stored.digest
        ours = {name: commit.files[name].sha256 for name in manifest.files if name != "README.md"}
        assert ours == {name: digest for name, digest in manifest.files.items() if name != "README.md"}
        assert set(commit.files) - {".gitattributes", "notes.txt"} == {*manifest.files, "persyn.json"}, "none is stale"
    return found


def check_unpublished(hub: HubServer, stored: Stored) -> None:
    kind = repo_type(stored.kind)
    if hub.has_repo(stored.repo, kind):
        assert stored.tag not in hub.repo(stored.repo, kind).tags
        assert len(publishing(hub, stored)) <= 1, "which lacks its tag: the next push finds it"


def check_published(hub: HubServer, store: Store, stored: Stored) -> None:
    repo = hub.repo(stored.repo, repo_type(stored.kind))
    (commit,) = publishing(hub, stored)
    assert commit is repo.commits[0] and repo.tags[stored.tag] == commit.sha
    ours, card = (stored.path / "README.md").read_bytes().decode(), repo.read("README.md", stored.tag).decode()
    if stored.tag == "v1":
        assert (card, len(repo.commits), set(repo.tags)) == (ours, 2, {"v1"})
        return
    assert (len(repo.commits), set(repo.tags)) == (4, {"v1", "v2"})
    assert repo.read("notes.txt", "v2") == b"mine"
    merged, own = DatasetCard(card), DatasetCard(ours)
    assert merged.text == own.text
    expected = own.data.to_dict() | {"thumbnail": "https://example.org/x.png", "tags": [*own.data.tags, "maths"]}
    assert merged.data.to_dict() == expected
