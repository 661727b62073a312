"""A recipe on a Ray cluster of two nodes, from prompts to students, beside the same on one machine."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nodes import TWO, nodes
from smoke_run import command

from persyn_hf.cli.main import main
from persyn_hf.store.local import Store


pytest.importorskip("ray")


STAGES = ("score", "assign", "train_router", "train_student", "evaluate")


@pytest.fixture(scope="module")
def cluster(heavy: None) -> Iterator[Any]:
    with nodes(2) as started:
        yield started


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_stage_on_the_cluster(cluster: Any, finished: tuple[Path, float], tmp_path: Path) -> None:
    """The rewards have the digest of one machine, and so has what is chosen by them; students learn the same."""
    (tmp_path / "shared").mkdir()
    executor = json.dumps({**TWO, "address": cluster.address, "shared": str(tmp_path / "shared")})
    sets = [f"{stage}.executor={executor}" for stage in STAGES]
    sets += ["strategies=[persyn, oracle, {kind: persyn, name: persyn-llm, router: llm}]"]
    sets += ["train_student.per_device_batch_size=8"]
    store = tmp_path / "store"
    assert main([*command(store), *[part for one in sets for part in ("--set", one)]]) == 0
    alone, together = ({item.repo: item for item in Store(root).artifacts()} for root in (finished[0], store))
    both = alone.keys() & together.keys()
    trained = {name for name in both if "smoke-student-" in name}
    same = both - trained
    same -= {name for name in same if "-evaluation-" in name and not name.endswith("-base")}
    assert any("-rewards-" in name for name in same)
    assert any("-evaluation-" in name for name in same), "of the student before training"
    assert {name: together[name].digest for name in same} == {name: alone[name].digest for name in same}
    assert len(trained) == 2
    for name in trained:
        curves = [items[name].manifest.metrics["loss"] for items in (alone, together)]
        assert [step for step, _ in curves[0]] == [step for step, _ in curves[1]]
        assert [loss for _, loss in curves[0]] == pytest.approx([loss for _, loss in curves[1]], abs=1e-3)
    assert any("persyn-llm" in name for name in together)
    assert not list((tmp_path / "shared").iterdir())  # of no further use once the artifacts are stored
