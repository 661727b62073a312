"""Recipes that publish while they run, and that begin with what is published."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hub_server import Fault, HubServer
from huggingface_hub import constants

from persyn_hf.cli.main import main
from persyn_hf.store.local import Store


STEPS = (
    "prompts",
    "assignments-all",
    "responses",
    "rewards-s",
    "pairs-s",
    "router-s",
    "assignments-s-persyn",
)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """From prompts to the assignments of the pool; its responses are imported, so no model is needed."""
    questions = [{"question": f"What is {a} + {a % 7 + 2}?", "answer": str(a + a % 7 + 2)} for a in range(10, 40)]
    responses = [
        {"prompt": row["question"], "teacher": teacher, "response": f"It is {int(row['answer']) + (i // skip) % 2}."}
        for i, row in enumerate(questions)
        for teacher, skip in (("a", 1), ("b", 2))
    ]
    for name, rows in (("q", questions), ("r", responses)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {
        "name": "small",
        "namespace": "alice",
        "until": "assign",
        "teachers": [{"name": "a"}, {"name": "b"}],
        "students": [{"name": "s"}],
        "strategies": ["persyn"],
        "prompts": {
            "path": "./q.jsonl",
            "columns": {"prompt": "question", "reference": "answer"},
            "references": "math",
            **{"calibration": 16, "dev": 6, "pool": 8},
        },
        "generate": {"engine": "import", "path": "./r.jsonl"},
        "score": {"learnability": "none", "alpha": 0},
        "train_router": {"kind": "global_best"},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture
def login(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """Alice's token, where the hub library finds it."""
    token = hub.token("alice")
    monkeypatch.setenv("HF_TOKEN", token)
    return token


def digests(store: Path) -> dict[str, str]:
    return {item.ref: item.digest for item in Store(store).artifacts()}


def num_commits(hub: HubServer) -> int:
    return sum(len(repo.commits) for repo in hub.api_state.repos.values())


@pytest.mark.heavy
def test_published_from_one_store_and_continued_in_another(
    hub: HubServer, login: str, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    command = [sys.executable, "-m", "persyn_hf.cli", "run", str(recipe), "--push", "--store", str(first)]
    done = subprocess.run(command, env=hub.env(login), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    refs = [f"alice/small-{step}@v1" for step in STEPS]
    assert (
        [ref for ref in refs if f"pushed {ref} (" in done.stdout] == refs == [*sorted(digests(first), key=refs.index)]
    )
    for step in STEPS:
        repo = hub.repo(f"alice/small-{step}", "model" if step == "router-s" else "dataset")
        assert (len(repo.commits), set(repo.tags)) == (2, {"v1"})
    before = num_commits(hub)
    assert main(["run", str(recipe), "--push", "--store", str(first)]) == 0
    assert f": {refs[0]} is on the Hub: {hub.url}/datasets/alice/small-prompts/tree/v1\n" in capsys.readouterr().out
    assert num_commits(hub) == before, "what is there is not pushed again"
    assert main(["artifacts", "pull", refs[-1], "--lineage", "--store", str(second)]) == 0
    assert digests(second) == {ref: digests(first)[ref] for ref in digests(second)}
    assert main(["run", str(recipe), "--store", str(second)]) == 0
    out = capsys.readouterr().out
    reused = len(digests_pulled(out))
    assert f"\nall steps are done: {len(STEPS) - reused} run now, {reused} reused, in " in out
    assert digests(second) == digests(first)
    assert main(["artifacts", "verify", refs[-1], "--store", str(second)]) == 0
    assert login not in done.stdout + done.stderr
    for path in [path for store in (first, second) for path in store.rglob("*") if path.is_file()]:
        assert login.encode() not in path.read_bytes(), path


def digests_pulled(out: str) -> set[str]:
    return {line.split("reused ")[1].split("@")[0] for line in out.splitlines() if ": reused alice/" in line}


def test_a_recipe_begins_with_what_others_published(
    hub: HubServer, login: str, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    assert main(["run", str(recipe), "--push", "--store", str(theirs)]) == 0
    pinned = "inputs={prompts: alice/small-prompts@v1, rewards: alice/small-rewards-s@v1}"
    mine = [str(recipe), "--set", "namespace=bob", "--set", pinned, "--store", str(ours)]
    assert main(["plan", *mine]) == 0
    out = capsys.readouterr().out
    ref = "alice/small-rewards-s@v1"
    assert f"{ref} is on the Hub, not in the store: `persyn run` pulls it, or: persyn artifacts pull {ref}\n" in out
    assert not ours.exists(), "a plan brings nothing"
    assert main(["run", *mine]) == 0
    out = capsys.readouterr().out
    assert "inputs: pulled alice/small-prompts@v1, digest " in out and f"inputs: pulled {ref}, digest " in out
    found = digests(ours)
    assert set(found) == {
        "alice/small-prompts@v1",
        ref,
        "bob/small-pairs-s@v1",
        "bob/small-router-s@v1",
        "bob/small-assignments-s-persyn@v1",
    }
    same = "small-assignments-s-persyn@v1"
    assert found[f"bob/{same}"] == digests(theirs)[f"alice/{same}"]


def test_a_pinned_input_offline(
    hub: HubServer, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    store = tmp_path / "store"
    for command, doing in (("run", "pulling"), ("plan", "reading")):
        pinned = ["--set", "inputs={rewards: alice/small-rewards-s@v1}"]
        assert main([command, str(recipe), *pinned, "--store", str(store)]) == 2
        message = capsys.readouterr().err
        assert message.startswith(f"error: alice/small-rewards-s@v1 is not in the store {store}")
        assert message.endswith(
            f"; {doing} alice/small-rewards-s@v1 needs the Hub, and HF_HUB_OFFLINE forbids to ask it; "
            "unset HF_HUB_OFFLINE and try again\n"
        )
    assert not Store(store).artifacts()


def test_rights_are_asked_for_before_any_work(
    hub: HubServer, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for token, message in (
        (None, "pushing to alice/... needs a login at the Hub, found none; run `hf auth login`, then try again"),
        (hub.token("bob"), "`bob` has no right to write to the namespace `alice`, only to bob; "),
        (hub.token("alice", "read"), "the token of `alice` can only read, pushing needs one that can write; "),
    ):
        monkeypatch.setenv("HF_TOKEN", token) if token else monkeypatch.delenv("HF_TOKEN", raising=False)
        assert main(["run", str(recipe), "--push", "--store", str(tmp_path / "store")]) == 2
        assert capsys.readouterr().err.startswith(f"error: {message}")
    assert main(["run", str(recipe), "--private", "--store", str(tmp_path / "store")]) == 2
    assert capsys.readouterr().err == (
        "error: --private is about what --push makes, and there is no --push; add it, or leave --private out\n"
    )
    assert not (tmp_path / "store").exists()


def test_what_could_not_be_pushed_does_not_stop_the_run(
    hub: HubServer, login: str, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    hub.faults.append(Fault("POST", r"small-responses/commit/", 403, times=1))
    hub.faults.append(Fault("POST", r"small-pairs-s/commit/", 403, times=2))
    assert main(["run", str(recipe), "--push", "--private", "--store", str(store)]) == 2
    out, err = capsys.readouterr()
    assert len(digests(store)) == len(STEPS), "the run went on"
    assert "warning: not pushed: pushing alice/small-responses@v1: the Hub forbids it to you (403)" in out
    assert out.count("pushed alice/small-responses@v1 (") == 1, "tried again at the end"
    again = f"artifacts push alice/small-pairs-s@v1 --store {store} --private"
    assert err.startswith("error: the run is finished and stored, but pushing alice/small-pairs-s@v1: the Hub forbids")
    assert err.endswith(f"; push with: persyn {again}\n")
    assert main(again.split()) == 0
    assert all(repo.tags == {"v1": repo.commits[0].sha} for repo in hub.api_state.repos.values())
    assert all(repo.private for repo in hub.api_state.repos.values())


def test_pushing_by_hand(
    hub: HubServer, login: str, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ["--store", str(tmp_path / "store")]
    assert main(["run", str(recipe), "--set", "until=pair", *store]) == 0
    capsys.readouterr()
    push = ["artifacts", "push", "alice/small-pairs-s@v1", "--namespace", "lab", "--lineage", *store]
    assert main([*push, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert (
        out.startswith("would push lab/small-prompts@v1 (")
        and "\n  + data/default/pool-00000-of-00001.parquet\n" in out
    )
    assert not hub.api_state.repos
    assert main(push) == 0
    order = [line.split()[1] for line in capsys.readouterr().out.splitlines()]
    assert order == [
        f"lab/small-{step}@v1" for step in ("prompts", "assignments-all", "responses", "rewards-s", "pairs-s")
    ]
    assert main(["artifacts", "push", "alice/small-pair-s@v1", *store]) == 2
    assert "alice/small-pair-s@v1 is not in the store" in capsys.readouterr().err
