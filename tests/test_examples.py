"""The example runs, as a notebook and as a script, and both are the same."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


MADE = ("rewards.png", "routed.png", "training/quickstart-sft-student-persyn-v1.jsonl")


def cells_of_notebook(path: Path) -> list[tuple[str, str]]:
    """The cells as (kind, text)."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [(cell["cell_type"], "".join(cell["source"])) for cell in cells]


def cells_of_script(path: Path) -> list[tuple[str, str]]:
    """The cells of a script in the percent format: each begins with `# %%`, and those of text are comments."""
    cells = []
    for part in re.split(r"^# %%", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        head, _, body = part.partition("\n")
        is_text = head.strip() == "[markdown]"
        text = re.sub(r"^# ?", "", body, flags=re.MULTILINE) if is_text else body
        cells.append(("markdown" if is_text else "code", text.strip("\n")))
    return cells


def test_the_notebook_is_the_script_without_outputs(root: Path) -> None:
    script, notebook = root / "examples" / "quickstart.py", root / "examples" / "quickstart.ipynb"
    assert cells_of_notebook(notebook) == cells_of_script(script), "make it anew, see CONTRIBUTING.md"
    code = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    assert len(code) >= 8 and not any(cell["outputs"] for cell in code)


@pytest.mark.ci
@pytest.mark.heavy
def test_the_script_runs(root: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "MPLBACKEND": "agg"}
    arguments = [sys.executable, str(root / "examples" / "quickstart.py")]
    done = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "me/quickstart-sft-student-persyn@v1" in done.stdout
    assert all((tmp_path / "quickstart" / name).stat().st_size > 1000 for name in MADE)


@pytest.mark.ci
@pytest.mark.heavy
def test_the_notebook_runs_and_shows_its_pictures(root: Path, tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(root / "examples" / "quickstart.ipynb", as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    said = [output["text"] for output in outputs if output.get("name") == "stderr"]
    assert not [text for text in said if "IProgress not found" not in text], "tqdm says this without ipywidgets"
    assert all((tmp_path / "quickstart" / name).exists() for name in MADE)
