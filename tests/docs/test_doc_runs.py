"""What the documentation says to type is typed: pages and blocks marked `run`, each page in a folder of its own."""

import os
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import pytest
from doc_blocks import OWN_TEST, Block, blocks


PAGES = {
    page: list(found)
    for page, found in groupby(
        (block for block in blocks() if block.why == "" and block.language in ("bash", "python")),
        lambda block: block.page,
    )
    if page not in OWN_TEST
}
PERSYN = "import sys; from persyn_hf.cli.main import script; sys.argv[0] = 'persyn'; script()"


@pytest.fixture
def folder(root: Path, tmp_path: Path) -> Path:
    """An empty folder in which `persyn` is found, and of the repository what pages name by its path."""
    for name in ("recipes", "metrics"):
        (tmp_path / name).symlink_to(root / name)
    command = tmp_path / "bin" / "persyn"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{PERSYN}" "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    return tmp_path


def run(block: Block, folder: Path, root: Path) -> str:
    """Run one block as its reader would, and return what it prints."""
    environment = {name: value for name, value in os.environ.items() if name != "PERSYN_STORE"}
    environment |= {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(root)}
    program = [sys.executable, "-"] if block.language == "python" else ["bash", "-eo", "pipefail"]
    done = subprocess.run(
        program, input=block.text, cwd=folder, env=environment, capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, f"{block.where}: {done.stdout[-1000:]}{done.stderr[-2000:]}"
    return done.stdout


@pytest.mark.ci
@pytest.mark.heavy
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", PAGES)
def test_a_page_can_be_followed(page: str, folder: Path, root: Path) -> None:
    for block in PAGES[page]:
        said = run(block, folder, root)
        if block.language == "python" and block.shown:
            assert said == block.shown, block.where
    made = {path.name for path in folder.iterdir()} - {"bin", "recipes", "metrics"}
    if page == "docs/start.md":
        assert {"artifacts", "report", "data", "routed.jsonl", "my.yaml"} <= made
    assert made or page == "metrics/README.md"


def test_the_pages_for_beginners_are_run() -> None:
    tutorials = ("instructions", "answers", "maths", "api-only")
    assert {"docs/start.md", *(f"docs/tutorials/{name}.md" for name in tutorials)} <= PAGES.keys()
