"""Several versions of one artifact on a Hub: `main` shows the newest, and a taken tag has a way out that works."""

from pathlib import Path

import pytest
from hub_samples import chain, put
from hub_server import Fault, HubServer
from huggingface_hub import HfApi
from test_push_run import recipe  # noqa: F401  # a fixture

from persyn_hf.cli.main import main
from persyn_hf.runner.publishing import one_line
from persyn_hf.store.hub import faults
from persyn_hf.store.hub.pull import pull
from persyn_hf.store.hub.push import push
from persyn_hf.store.lineage import verify
from persyn_hf.store.local import Store
from persyn_hf.store.manifest import Manifest
from persyn_hf.store.stored import is_older


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def api(hub: HubServer) -> HfApi:
    return hub.api(hub.token("alice"))


def at(hub: HubServer, revision: str, repo: str = "alice/prompts") -> Manifest:
    return Manifest.model_validate_json(hub.repo(repo).read("persyn.json", revision))


@pytest.mark.parametrize(
    ("tag", "than", "older"),
    [
        ("v2", "v10", True),
        ("v10", "v2", False),
        ("v1", "v1.1", True),
        ("2026-01-31", "2026-02-01", True),
        ("v1", "v1", False),
        ("alpha", "v2", False),
        ("v1", "paper", False),
    ],
)
def test_which_version_is_older(tag: str, than: str, older: bool) -> None:
    assert is_older(tag, than) is older


def test_an_older_version_leaves_main_at_the_newer(hub: HubServer, store: Store, tmp_path: Path, api: HfApi) -> None:
    first, second = (put(store, "prompts", seed=seed, rows=6 * (seed + 1)) for seed in (0, 1))
    push(store, second, api=api)
    planned = push(store, first, dry_run=True, api=api)
    pushed = push(store, first, api=api)
    assert (planned.main, planned.added) == (pushed.main, pushed.added)
    assert one_line(pushed) == (
        f"pushed alice/prompts@v1 ({len(pushed.added)} files, {pushed.num_bytes / 1000:.3g} kB; `main` stays at the "
        f"newer v2): {hub.url}/datasets/alice/prompts/tree/v1"
    )
    repo = hub.repo("alice/prompts")
    assert (set(repo.branches), set(repo.tags)) == ({"main"}, {"v1", "v2"})
    assert repo.branches["main"] == repo.tags["v2"]
    assert repo.tags["v1"] == pushed.commit
    assert set(repo.by_sha[pushed.commit].files) == {*first.manifest.files, "persyn.json", ".gitattributes"}
    assert (at(hub, "main").digest, at(hub, "v1").digest) == (second.digest, first.digest)
    assert push(store, first, api=api).sent == push(store, second, api=api).sent == "nothing"
    other = Store(tmp_path / "other")
    assert [pull(other, ref, api=api)[0].tag for ref in ("alice/prompts", "alice/prompts@v1")] == ["v2", "v1"]
    assert push(store, third := put(store, "prompts", seed=2), api=api).main == ""
    assert at(hub, "main").digest == third.digest


@pytest.mark.parametrize("gone_wrong", [r"/tag/", r"/branch/", r"/commit/"])
@pytest.mark.parametrize("after", [False, True])
def test_an_older_version_cut_off_is_pushed_once(
    hub: HubServer, store: Store, api: HfApi, gone_wrong: str, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "WAITS_S", (0.05,))
    first, second = (put(store, "prompts", seed=seed) for seed in (0, 1))
    push(store, second, api=api)
    hub.faults.append(Fault("POST", gone_wrong, 500, times=2, after=after))
    with pytest.raises(Exception, match="status 500"):
        push(store, first, api=api)
        raise AssertionError("an attempt found it done: status 500")
    hub.faults.clear()
    push(store, first, api=api)
    repo = hub.repo("alice/prompts")
    assert (set(repo.branches), set(repo.tags)) == ({"main"}, {"v1", "v2"})
    assert repo.branches["main"] == repo.tags["v2"]
    assert [commit.title for commit in repo.by_sha.values()].count(f"Publish v1 {first.digest[:40]}") == 1
    assert at(hub, "v1").digest == first.digest


def test_inputs_are_named_by_the_version_of_what_is_made_of_them(
    hub: HubServer, store: Store, tmp_path: Path, api: HfApi
) -> None:
    theirs = Store(tmp_path / "theirs")
    push(theirs, put(theirs, "prompts", seed=9), api=api)
    again = [store.retag(stored, "v2") for stored in chain(store, until="responses").values()]
    for stored in again:
        push(store, stored, api=api)
    other = Store(tmp_path / "other")
    pulled = pull(other, "alice/responses@v2", lineage=True, api=api)
    assert [item.ref for item in pulled] == ["alice/responses@v2", "alice/prompts@v2"]
    assert [item.digest for item in pulled] == [item.digest for item in reversed(again)]
    assert len(verify(other, "alice/responses@v2")) == 2
    assert at(hub, "v1", "alice/prompts").digest != pulled[1].digest


def test_the_way_out_of_taken_tags(
    hub: HubServer,
    recipe: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.token("alice"))
    mine = ["run", str(recipe), "--set", "until=score", "--push", "--store", str(tmp_path / "mine")]
    assert main([*mine, "--set", "seed=4", "--set", "until=prompts", "--store", str(tmp_path / "first")]) == 0
    capsys.readouterr()
    assert main(mine) == 2
    out, err = capsys.readouterr()
    assert err.startswith(
        "error: the run is finished and stored, but alice/small-prompts@v1 already holds other conte"
    )
    assert err.endswith(
        "; tags never change: set `version: v2` in its recipe, run it again, which makes nothing anew, and push "
        "alice/small-prompts@v2; or push to another namespace (4 could not be pushed)\n"
    )
    assert out.count("warning: not pushed: alice/small-prompts@v1 already holds") == 1, "another try is in vain"
    made_from = "alice/small-assignments-all@v1 was made from alice/small-prompts@v1"
    assert f"warning: not pushed: {made_from}, which could not be pushed under its tag\n" in out
    assert not hub.has_repo("alice/small-responses"), "its inputs there would be another run's"
    assert main([*mine, "--set", "version=v2"]) == 0
    assert "\nall steps are done: 0 run now, 4 reused, in " in capsys.readouterr().out
    store = Store(tmp_path / "mine")
    assert {item.tag for item in store.artifacts()} == {"v1", "v2"}
    for ref in ("alice/small-responses@v2", "alice/small-prompts@v2"):
        assert at(hub, "v2", ref.partition("@")[0]).digest == store.get(ref).digest
    assert main(["artifacts", "verify", "alice/small-responses@v2", "--store", str(tmp_path / "none")]) == 0
    assert main([*mine, "--set", "version=v1"]) == 2, "and back"
    assert "4 reused" in capsys.readouterr().out
