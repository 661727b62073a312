"""A run of the tiny world on the Hub: pushed by its maker; loaded, checked and continued by a stranger.

Each has a home, a store and processes of their own, with the unmodified `datasets` and `transformers`.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hub_server import HubServer

from persyn_hf.schemas import SCHEMAS, ModelSchema
from persyn_hf.store.local import Store
from persyn_hf.store.stored import Stored


TEACHERS = {"qwen-gen": "apache-2.0", "gemma-terse": "mit"}
SMALL = [
    "strategies=[persyn]",
    "prompts.calibration=12",
    "prompts.dev=6",
    "prompts.pool=6",
    "generate.max_tokens=40",
    "evaluate.limit=4",
    "evaluate.max_tokens=40",
]
LAST = "tiny/smoke-evaluation-qwen-student-persyn@v1"
BESIDE = (
    "tiny/smoke-evaluation-qwen-student-base@v1",
    "tiny/smoke-pairs-qwen-student@v1",
)  # not made from, not for it
OF_ALPHA = ("rewards-qwen-student", "pairs-qwen-student", "router-qwen-student", "assignments-qwen-student-persyn")
COMMANDS = """
import json, sys
from persyn_hf.cli.main import main
for command in json.load(sys.stdin):
    if code := main(command):
        sys.exit(code)
"""
LOAD = """
import json, sys
from datasets import get_dataset_config_names, load_dataset
found = {}
for repo, tag in json.load(sys.stdin):
    names = get_dataset_config_names(repo, revision=tag)
    found[repo] = {}
    for name in [None, *names]:
        for streaming in (False, True):
            loaded = load_dataset(repo, *([name] if name else []), revision=tag, streaming=streaming)
            found[repo][f"{name} {streaming}"] = {split: list(rows) for split, rows in loaded.items()}
json.dump(found, open(sys.argv[1], "w"))
"""
USE = """
import json, sys
from huggingface_hub import snapshot_download
from transformers import AutoModelForCausalLM, AutoTokenizer
student, router, stored = json.load(sys.stdin)
turns = [{"role": "user", "content": "What is 2 + 2?"}]
answers = []
for name, options in ((student, {"revision": "v1"}), (stored, {})):
    tokenizer = AutoTokenizer.from_pretrained(name, **options)
    model = AutoModelForCausalLM.from_pretrained(name, **options)
    inputs = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answers.append(model.generate(**inputs, max_new_tokens=5, do_sample=False)[0].tolist())
folders = [snapshot_download(repo, revision="v1") for repo in (student, router)]
json.dump([answers, folders], open(sys.argv[1], "w"))
"""


@dataclass
class Person:
    """Somebody with a login, a home and a store."""

    hub: HubServer
    folder: Path
    token: str
    said: str = ""

    @property
    def store(self) -> Store:
        return Store(self.folder / "store")

    def python(self, script: str, given: Any, *arguments: str) -> str:
        """What it prints."""
        home = self.folder / "home"
        home.mkdir(parents=True, exist_ok=True)
        (home / "token").write_text(self.token)  # where `hf auth login` leaves it
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            env=self.hub.env(home=home) | {"PERSYN_STORE": str(self.store.root)},
            input=json.dumps(given),
            capture_output=True,
            text=True,
        )
        self.said += done.stdout + done.stderr
        assert done.returncode == 0, done.stderr
        return done.stdout

    def persyn(self, *commands: list[str]) -> str:
        return self.python(COMMANDS, commands)

    def result(self, script: str, given: Any) -> Any:
        path = self.folder / "result.json"
        self.python(script, given, str(path))
        return json.loads(path.read_text())


def run_command(root: Path, *overrides: str) -> list[str]:
    tiny = root / "recipes" / "tiny"
    pool = [
        {"name": name, "model": str(tiny / "zoo" / name), "family": name[:4], "license": licence}
        for name, licence in TEACHERS.items()
    ]
    sets = [part for override in (f"teachers={json.dumps(pool)}", *SMALL, *overrides) for part in ("--set", override)]
    return ["run", str(tiny / "smoke.yaml"), *sets]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    with HubServer(tmp_path_factory.mktemp("hub")) as hub:
        hub.add_user("alice", orgs=("tiny",))
        hub.add_user("bob")
        yield hub


@pytest.fixture(scope="module")
def maker(server: HubServer, tmp_path_factory: pytest.TempPathFactory, root: Path) -> Person:
    """Who ran the recipe and pushed all of it."""
    alice = Person(server, tmp_path_factory.mktemp("alice"), server.token("alice"))
    said = alice.persyn(run_command(root), ["artifacts", "push", LAST, *BESIDE, "--lineage"])
    for stored in alice.store.artifacts():
        assert said.count(f"pushed {stored.ref} (") == 1
    return alice


@pytest.fixture(scope="module")
def stranger(server: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Person:
    return Person(server, tmp_path_factory.mktemp("bob"), server.token("bob", "read"))


def of_kind(maker: Person, *, models: bool) -> list[Stored]:
    return [item for item in maker.store.artifacts() if isinstance(SCHEMAS[item.kind], ModelSchema) is models]


def test_every_dataset_loads_plainly(maker: Person, stranger: Person) -> None:
    stored = of_kind(maker, models=False)
    found = stranger.result(LOAD, [(item.repo, item.tag) for item in stored])
    assert {item.kind for item in stored} == {kind for kind, of in SCHEMAS.items() if not isinstance(of, ModelSchema)}
    for item in stored:
        expected = {
            config: {split: list(maker.store.read_dataset(item, config, split)) for split in splits}
            for config, splits in item.manifest.rows.items()
        }
        everything: dict[str, list[Any]] = {}
        for config in sorted(expected):
            for split, rows in expected[config].items():
                everything.setdefault(split, []).extend(rows)
        if len(expected) > 1:
            expected["all"] = everything
        expected["None"] = everything
        asked = {f"{config} {streaming}": of for config, of in expected.items() for streaming in (False, True)}
        assert found[item.repo] == asked, item.ref


def test_models_load_plainly(maker: Person, stranger: Person) -> None:
    router, student = sorted(of_kind(maker, models=True), key=lambda item: item.kind)
    (published, ours), folders = stranger.result(USE, [student.repo, router.repo, str(student.path)])
    assert published == ours and len(ours) > 5
    for item, folder in zip((student, router), folders, strict=True):
        for name in item.manifest.files.keys() - {"README.md"}:  # the student's has learned of its evaluation
            assert (Path(folder) / name).read_bytes() == (item.path / name).read_bytes(), f"{item.ref}: {name}"


def test_verified_from_an_empty_store_and_continued(maker: Person, stranger: Person, root: Path) -> None:
    assert not stranger.store.root.exists()
    made = maker.store.artifacts()
    pulls = [["artifacts", "pull", ref, "--lineage"] for ref in (LAST, *BESIDE)]
    another = run_command(root, "score.alpha=0.9", "until=assign")
    said = stranger.persyn(["artifacts", "verify", LAST], *pulls, run_command(root), another)
    assert f"\nverified {len(made) - len(BESIDE)} artifacts, every file of each\npulled {LAST}, " in said
    assert f"\nall steps are done: 0 run now, {len(made)} reused" in said
    assert f"\nall steps are done: {len(OF_ALPHA)} run now, {7 - len(OF_ALPHA)} reused" in said
    assert all(f": stored tiny/smoke-{name}@v2 " in said for name in OF_ALPHA)
    found = {item.ref: item.digest for item in stranger.store.artifacts()}
    assert {ref: digest for ref, digest in found.items() if ref.endswith("@v1")} == {
        item.ref: item.digest for item in made
    }


def test_no_token_is_anywhere(maker: Person, stranger: Person) -> None:
    for person in (maker, stranger):
        assert person.said
        for path in person.folder.rglob("*"):
            if path.is_file() and path != person.folder / "home" / "token":
                assert person.token.encode() not in path.read_bytes(), path
        assert person.token not in person.said
