"""Manifests that are damaged or made up: one sentence, and what is not read stays as it is."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from rows import row
from store_samples import dataset_of, fields, link, rows_of

from persyn_hf.cli.artifacts import _add_ancestors
from persyn_hf.cli.main import main
from persyn_hf.core.cost import FIELDS
from persyn_hf.errors import DamagedArtifact
from persyn_hf.schemas import PROMPTS, RESPONSES, SFT
from persyn_hf.store.lineage import DEEPEST, check_above, tree
from persyn_hf.store.local import Store
from persyn_hf.store.manifest import MANIFEST, Manifest
from persyn_hf.store.manifest_parts import Line, judged_on, router_row
from persyn_hf.store.stored import Stored


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (None, "1,200 dev prompts that it never saw"),
        ({"folds": "5"}, "1,200 dev prompts that it never saw"),  # of another program
        (
            {"folds": 5, "prompts": 400},
            "400 calibration prompts by cross-fitting in 5 folds, as there are no dev prompts",
        ),
        ({"folds": None, "prompts": 60}, "60 calibration prompts that chose its epoch, as there are no dev prompts"),
    ],
)
def test_a_router_says_what_judged_it(own: Any, words: str) -> None:
    assert judged_on({} if own is None else {"by_calibration": own}, 1200) == words


def put(store: Store, name: str, schema: Any, *reads: Stored, **more: Any) -> Stored:
    data = dataset_of(schema, rows_of(schema, 3))
    return store.put(repo=f"me/{name}", schema=schema, data=data, fields=fields(**{"inputs": link(*reads), **more}))


def change(stored: Stored, **changes: Any) -> None:
    """Write other fields into a manifest, as an editor would."""
    path = stored.path / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"cost": {"money": "x"}}, "its `money`"),
        ({"cost": {"total": 5}}, "its `total`"),
        ({"cost": {"teachers": {"a": {"flops": True}}}}, "its `teachers.a.flops`"),
        ({"cost": {"total": {"new": None}}}, "its `total.new`"),
        ({"cost": {"counterfactual": {"car": []}}}, "its `counterfactual.car`"),
        ({"teachers": [{"x": 1}]}, "its `name`"),
        ({"student": {"name": "s", "model": 3}}, "its `model`"),
        ({"settings": {"kind": ["a"]}}, "its `kind`"),
        ({"settings": {"alpha": "x"}}, "its `alpha`"),
        ({"counts": {"rows": -1}}, "`counts.rows`"),
        ({"counts": {"rows": "\x1b[2J"}}, "`counts.rows`"),
        ({"metrics": {"a": 10**400}}, "more than 64 bits"),
        ({"kind": "\x1b[2Jx"}, "of the kind `x`, which this version of persyn-hf does not know"),
        ({"inputs": {"a": "b"}}, "`inputs.a`"),
    ],
)
def test_a_manifest_of_other_types_is_one_sentence(
    store: Store, changes: dict[str, Any], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = put(store, "prompts", PROMPTS)
    change(stored, **changes)
    for command in (["show", stored.ref], ["diff", stored.ref, stored.ref], ["ls"], ["verify", stored.ref]):
        assert main(["artifacts", *command, "--store", str(store.root)]) == 2
        said = capsys.readouterr().err
        assert fault in said and "\x1b" not in said and said.count("\n") == 1


def test_names_that_command_are_shown_without_it(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    stored = put(store, "prompts", PROMPTS, licences={"a\x1b[2J": "m\u202eit"})
    change(stored, created_at="\x1b[2J[red]now")
    for command in (["show", stored.ref], ["ls"]):
        assert main(["artifacts", *command, "--store", str(store.root)]) == 0
        shown = capsys.readouterr().out
        assert "\x1b" not in shown and "\u202e" not in shown
        assert "[red]now" in shown or "licences: a mit" in shown


def test_a_line_of_a_ledger_has_every_field_of_a_cost() -> None:
    assert set(Line.model_fields) == {*FIELDS, "new"}


def test_what_is_not_read_stays_as_it_is() -> None:
    odd = {"candidates": {"a": [1, "x"]}, "seconds": 1, "teachers": {"a": {"requests": 3, "note": {"b": None}}}}
    manifest = Manifest(
        stage="s",
        kind="sft",
        schema_version=1,
        repo="me/x",
        cost=odd,
        metrics={"router": 5},
        settings={"kind": "x", "y": [1]},
    )
    assert (manifest.cost, manifest.metrics, manifest.settings) == (odd, {"router": 5}, {"kind": "x", "y": [1]})
    with pytest.raises(ValidationError, match="`teachers.a.requests`"):
        Manifest(stage="s", kind="sft", schema_version=1, repo="me/x", cost={"teachers": {"a": {"requests": None}}})


def test_a_row_of_a_routers_table_of_another_shape_is_none() -> None:
    cell = {"value": 0.5, "low": None, "high": None}
    for part in (cell, {"value": 0.5}):  # what is not said of it is not known
        assert router_row({"router": {"regret": part}}, "router") == {"regret": cell}
    for odd in (None, 3, "x", [cell], {"regret": 0.5}, {"regret": {"value": "x"}}):
        assert router_row({"router": odd}, "router") == {}
    assert router_row({}, "router") == {}


def test_a_chain_that_leads_back_to_itself_is_named(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    prompts = put(store, "prompts", PROMPTS)
    responses = put(store, "responses", RESPONSES, prompts)
    change(prompts, inputs={"again": {"ref": responses.ref, "digest": responses.digest}})
    with pytest.raises(DamagedArtifact, match=f"{responses.ref} <- {prompts.ref} <- {responses.ref}"):
        tree(store, responses.ref)
    with pytest.raises(DamagedArtifact, match="leads back to it"):
        _add_ancestors(store, store.get(responses.ref), {})
    assert main(["artifacts", "show", responses.ref, "--store", str(store.root)]) == 2
    assert "leads back to it, which no run makes" in capsys.readouterr().err


NOT_THERE = [{}, {"default": {}}, {"default": {"**": 3}}, {"x" * 300: {"pool": 3}}, {"../..": {"a": 3}}]


@pytest.mark.parametrize("rows", NOT_THERE)
def test_rows_that_are_not_there_are_one_sentence(store: Store, rows: Any, capsys: pytest.CaptureFixture[str]) -> None:
    stored = put(store, "sft", SFT)
    change(stored, rows=rows)
    assert main(["artifacts", "export", stored.ref, "--out", str(store.root / "out"), "--store", str(store.root)]) == 2
    said = capsys.readouterr().err
    assert ("verify" in said or "no config or split may be called" in said) and said.count("\n") == 1


def test_an_order_that_is_damaged_is_one_sentence(store: Store) -> None:
    """Rows of several splits stand in files by split, and in `order.parquet` as they were written."""
    rows = [row(PROMPTS, prompt_id=str(number), split=split) for number, split in enumerate(("pool", "dev", "pool"))]
    stored = store.put(repo="me/prompts", schema=PROMPTS, data=PROMPTS.dataset(rows), fields=fields())
    order = (stored.path / "order.parquet").resolve()
    assert store.read_dataset(stored)["prompt_id"][:] == ["0", "1", "2"]
    for damage in (b"x", order.read_bytes()[:-20]):
        order.write_bytes(damage)
        with pytest.raises(DamagedArtifact, match="order.parquet cannot be read"):
            store.read_dataset(stored)


def test_a_chain_has_an_end() -> None:
    above = tuple(f"me/a@v{number}" for number in range(DEEPEST + 1))
    check_above("me/b@v1", above[:-1])
    with pytest.raises(DamagedArtifact, match=f"has more than {DEEPEST} steps"):
        check_above("me/b@v1", above)


def test_a_folder_among_the_tags_is_no_tag(store: Store, tmp_path: Path) -> None:
    """The Hub's own cache keeps pull requests there: refs/pr/1."""
    stored = put(store, "prompts", PROMPTS)
    (stored.path.parents[1] / "refs" / "pr").mkdir()
    assert [item.ref for item in store.artifacts()] == [stored.ref]
