"""The llm router on a Ray cluster of two nodes: trained as in one process, and the same choices."""

from pathlib import Path

import pytest
from corpora import TEACHERS, corpus
from nodes import TWO, nodes, relatives
from test_llm_assign import run
from tiny_llm import tiny

from persyn_hf.backends.routers import fit


pytest.importorskip("ray")


@pytest.mark.ci
@pytest.mark.heavy
def test_a_router_is_trained_and_scores_on_a_cluster(backbone: Path, tmp_path: Path) -> None:
    parts = corpus(90, 1, 0.1), corpus(24, 2)
    told: list[int] = []
    executor = {**TWO, "shared": str(tmp_path)}
    with nodes(2):
        settings = tiny(backbone, epochs=2, micro_batch_size=8, device="auto", executor=executor)
        together = fit(settings, TEACHERS, *parts, tmp_path / "two", seed=0, advance=told.append)
        shared = run(tmp_path / "cluster", tmp_path / "two", executor=executor)
        assert not relatives(tmp_path)
    alone = fit(tiny(backbone, epochs=2, micro_batch_size=4), TEACHERS, *parts, tmp_path / "one", seed=0)
    curves = [[epoch["train_loss"] for epoch in record["history"]] for record in (alone, together)]
    assert curves[0] == pytest.approx(curves[1], abs=1e-3)
    assert sum(told) == 2
    assert "executor" not in (tmp_path / "two" / "router.json").read_text()
    assert shared == run(tmp_path / "here", tmp_path / "two", device="cpu")
    assert (tmp_path / "cluster" / "model" / "router.json").exists()  # the store may be the driver's alone
