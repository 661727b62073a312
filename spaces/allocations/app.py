"""The allocation Space: the artifacts that PERSYN_REFS names, else the example beside this file."""

import os
import sys
from pathlib import Path

from persyn_hf.errors import PersynError
from persyn_hf.space.app import launch
from persyn_hf.space.collection import open_folder, open_shelf
from persyn_hf.store.local import Store


EXAMPLE = Path(__file__).parent / "example"

refs = os.environ.get("PERSYN_REFS", "").split()
host, port = os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), int(os.environ.get("GRADIO_SERVER_PORT", 7860))
try:
    launch(open_shelf(refs, Store()) if refs else open_folder(EXAMPLE), host=host, port=port)
except PersynError as error:
    sys.exit(f"error: {error}")
