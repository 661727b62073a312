"""Chains as they are drawn: each artifact once, with what its step cost, and the sums."""

import re
from typing import Any

import pytest
from store_samples import dataset_of, fields, link, rows_of

from persyn_hf.cli.main import main
from persyn_hf.report.show import describe, drawing, summary
from persyn_hf.schemas import PROMPTS, RESPONSES, SFT
from persyn_hf.store.lineage import tree, verify
from persyn_hf.store.local import Store
from persyn_hf.store.stored import Stored


def line(requests: int, new: int, **known: Any) -> dict[str, Any]:
    unknown = dict.fromkeys(("prompt_tokens", "completion_tokens", "seconds", "gpu_seconds", "flops", "money"))
    return {"requests": requests, "new": new, "reused": requests - new, **unknown, **known}


def put(store: Store, name: str, schema: Any, reads: tuple[Stored, ...] = (), **more: Any) -> Stored:
    data = dataset_of(schema, rows_of(schema, more.pop("rows", 3), seed=more.pop("draw", 0)))
    return store.put(repo=f"me/{name}", schema=schema, data=data, fields=fields(**{"inputs": link(*reads), **more}))


@pytest.fixture
def costed(store: Store) -> Store:
    """prompts <- responses, again <- sft; `again` reuses some answers."""
    free = {"cost": {}, "licences": {"prompts": "mit"}}
    prompts = put(store, "prompts", PROMPTS, **free)
    first = line(1200, 1200, completion_tokens=15_000, seconds=90.0, money=1.5)
    second = line(400, 100, completion_tokens=5_000, seconds=30.0)
    counts, licences = {"rows": 1200}, {"prompts": "mit", "big": None}
    responses = put(store, "responses", RESPONSES, (prompts,), cost={"total": first}, counts=counts, licences=licences)
    again = put(store, "again", RESPONSES, (prompts, responses), cost={"total": second}, draw=1, counts={})
    inputs = {
        word: {"ref": item.ref, "digest": item.digest} for word, item in (("base", responses), ("responses", again))
    }
    put(store, "sft", SFT, inputs=inputs, cost={"seconds": 5.0}, counts={"rows": 3}, licences=licences)
    return store


def test_what_is_known_of_each_step(costed: Store) -> None:
    root = drawing(tree(costed, "me/sft"))
    base, responses = (branch.node for branch in root.inputs)
    digest = root.node.digest[:12]
    assert describe(root.node) == f"me/sft@v1  sft {digest}  3 rows  time 5.00 s"
    assert describe(base) == (
        f"me/responses@v1  responses {base.digest[:12]}  1,200 rows  "
        "answers 1,200, tokens out 15.0K, time 90.0 s, money 1.50  read as `base`"
    )
    assert describe(responses) == (
        f"me/again@v1  responses {responses.digest[:12]}  answers 400 (100 new), tokens out 5.00K, time 30.0 s"
    )
    assert summary(root) == [
        "4 artifacts; answers 1,600 (1,300 new), tokens out 20.0K, time 2.08 min, money 1.50",
        "answers that are not new were in the journal; they count at every step that uses them",
        "licences: prompts mit, big unknown",
    ]


def test_each_artifact_is_drawn_once(costed: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["artifacts", "show", "me/sft@v1", "--store", str(costed.root)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert len(out[1]) > 120 and out[1].endswith(", money 1.50  read as `base`"), "nothing is cut off"
    lines = [re.split(r"(?<=@v1)  ", text)[0] for text in out]
    assert lines[:6] == [
        "me/sft@v1",
        "├── me/responses@v1",
        "│   └── me/prompts@v1",
        "└── me/again@v1",
        "    └── above: me/prompts@v1, me/responses@v1",
        "4 artifacts; answers 1,600 (1,300 new), tokens out 20.0K, time 2.08 min, money 1.50",
    ]


def test_a_chain_of_many_steps_stays_short(store: Store) -> None:
    """Each step reads the three before it: drawn as it is walked, the tree would have millions of lines."""
    made: list[Stored] = []
    for number in range(35):
        inputs = {f"input_{item.repo[3:]}": {"ref": item.ref, "digest": item.digest} for item in made[-3:]}
        made.append(put(store, f"s{number}", PROMPTS, rows=1, draw=number, inputs=inputs, counts={}, cost={}))
    root = drawing(tree(store, made[-1].ref))

    def count(branch: Any) -> int:
        return 1 + bool(branch.above) + sum(map(count, branch.inputs))

    assert 35 <= count(root) <= 70
    assert summary(root)[0] == "35 artifacts; no step says what it cost"
    assert [item.ref for item in verify(store, made[-1].ref)][0] == made[-1].ref
    assert len(verify(store, made[-1].ref)) == 35
