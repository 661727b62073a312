"""Importing the package and asking for help loads nothing heavy."""

import subprocess
import sys

import pytest


HEAVY = ("torch", "transformers", "vllm", "gradio", "trl", "ray", "lm_eval", "datasets")


@pytest.mark.parametrize(
    "statement",
    [
        "import persyn_hf",
        "import persyn_hf.cli.main; persyn_hf.cli.main._parser().format_help()",
        "import persyn_hf.recipe.recipe, persyn_hf.schemas, persyn_hf.runner.plan, persyn_hf.store.local",
    ],
)
def test_nothing_heavy_is_imported(statement: str) -> None:
    code = f"{statement}; import sys; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
