"""Every Python example of docs/python.md runs, in order and in one program, and prints what the page shows."""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

import persyn_hf


BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<shown>.*?)^```)?", flags=re.DOTALL | re.MULTILINE
)


def page(root: Path) -> str:
    return (root / "docs" / "python.md").read_text(encoding="utf-8")


@pytest.mark.heavy
def test_the_examples_run_and_print_what_is_shown(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PERSYN_STORE", raising=False)
    names: dict[str, Any] = {}
    blocks = list(BLOCK.finditer(page(root)))
    assert len(blocks) >= 12
    for block in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block["code"], "docs/python.md", "exec"), names)
        assert printed.getvalue() == (block["shown"] or ""), block["code"]


def test_the_page_has_a_section_for_every_function(root: Path) -> None:
    functions = {name for name in persyn_hf.__all__ if name.islower() and not name.startswith("_")}
    headings = re.findall(r"^### (\w+)$", page(root), flags=re.MULTILINE)
    assert sorted(headings) == sorted(functions)
    linked = re.findall(r"\[`(\w+)`\]\(#(\w+)\)", page(root))
    assert {name for name, anchor in linked if name == anchor} == functions
