"""The smallest run with every stage: `recipes/tiny/smoke.yaml` with four teachers and three strategies."""

import json
from pathlib import Path


ZOO = Path(__file__).parent.parent / "recipes" / "tiny" / "zoo"
TEACHERS = ("qwen-gen", "mistral-eq", "llama-verbal", "gemma-md")
SMALL = [
    "teachers=" + json.dumps([{"name": name, "model": str(ZOO / name)} for name in TEACHERS]),
    "strategies=[persyn, oracle, car]",
    "prompts.calibration=12",
    "prompts.dev=6",
    "prompts.pool=6",
    "evaluate.limit=8",
]


def command(store: Path) -> list[str]:
    """What is given to `persyn`."""
    sets = [part for override in SMALL for part in ("--set", override)]
    return ["run", str(ZOO.parent / "smoke.yaml"), "--store", str(store), *sets]
