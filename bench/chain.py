"""What a chain of any length takes: `python bench/chain.py [--prompts 20000 100000] [--folder DIR] [--engine import]`.

The stages prompts, assign, generate, mix and the export to JSON lines, each in a process of its own that reads its
inputs from a store and stores what it emits. The source is a JSONL of prompts of about 330 characters, and the answers
two columns of about 300, of which a random strategy takes one; `--engine server` asks an instant local server instead.

For each stage: seconds, and those of the processor, of which a busy machine has few for us; `own`, the most memory
that the process itself held (RssAnon, looked at 50 times a second); and `all`, its peak with the pages of mapped files
(VmHWM), which the system takes back when it needs them. Ends with 1 where `own` passes 2 GB. 10M prompts take 60 GB of
disk below `--folder`.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from server import IN_FLIGHT, MAX_TOKENS, memory, question, server


STAGES = ("prompts", "assign", "generate", "mix", "export")
TEACHERS = ("small", "big")
NEED = 2e9  # bytes
WORDS = [
    a + b
    for a in ("ba", "do", "fi", "gu", "ke", "lo", "mi")
    for b in ("ran", "tel", "sin", "vok", "mun", "pag", "rid")
]
FILLER = "Show the steps in order, name what is known and what is asked for, and end with the number alone. "


def write_sources(folder: Path, prompts: int) -> None:
    """Write the prompts, and the answers of both teachers in another order."""
    with (folder / "prompts.jsonl").open("w") as file, (folder / "answers.jsonl").open("w") as answers:
        for number in range(prompts):
            file.write(json.dumps({"prompt": prompt(number)}) + "\n")
            other = (number + prompts // 3) % prompts
            said = {name: f"{name} says of {other}: {FILLER * 3}" for name in TEACHERS}
            answers.write(json.dumps({"prompt": prompt(other)} | said) + "\n")


def prompt(number: int) -> str:
    """A question of about 330 characters, whose wording differs from that of all others."""
    words = random.Random(number).choices(WORDS, k=40)
    return f"{question(number)} Number {number}. {' '.join(words)}"


def run_stage(stage: str, folder: Path, prompts: int, url: str) -> None:
    """Run one stage over what the store holds, and print its seconds, its own peak and that with mapped files."""
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], memory("RssAnon"))

    watcher = threading.Thread(target=watch, daemon=True)
    started = time.perf_counter()
    watcher.start()
    if stage == "export":
        from persyn_hf.store.export import export
        from persyn_hf.store.local import Store

        export(Store(folder / "store"), "bench/mix@v1", "messages", folder / "out")
    else:
        emit(stage, folder, prompts, url)
    done.set()
    watcher.join()
    print(time.perf_counter() - started, time.process_time(), peak[0], memory("VmHWM"))


def emit(stage: str, folder: Path, prompts: int, url: str) -> None:
    import importlib

    from persyn_hf.recipe.roles import Teacher
    from persyn_hf.recipe.strict import read_section
    from persyn_hf.stage import Context
    from persyn_hf.store.local import Store

    module: Any = importlib.import_module(f"persyn_hf.stages.{stage}")
    store = Store(folder / "store")
    columns = {"responses": dict.fromkeys(TEACHERS)}
    asked: dict[str, Any] = {"engine": "import", "path": str(folder / "answers.jsonl"), "columns": columns}
    if url:
        lanes = {"urls": [url], "concurrency": IN_FLIGHT, "max_concurrency": IN_FLIGHT}
        asked = {"engine": "server", "server": lanes, "max_tokens": MAX_TOKENS}
    values: dict[str, dict[str, Any]] = {
        "prompts": {"path": str(folder / "prompts.jsonl"), "calibration": 100, "dev": 0, "near_duplicates": "count"},
        "assign": {"kind": "mix", "splits": ["calibration", "pool"]},
        "generate": asked | {"samples": 1},
        "mix": {},
    }
    inputs = {"prompts": [], "assign": ["prompts"], "generate": ["prompts", "assign"], "mix": ["prompts", "assign"]}
    inputs["mix"].append("generate")
    keys = {"assign": "assignments", "generate": "responses"}
    given = {keys.get(name, name): store.read_dataset(store.get(f"bench/{name}@v1")) for name in inputs[stage]}
    work_dir = folder / "work" / stage
    work_dir.mkdir(parents=True)
    teachers = tuple(Teacher(name=name, model="m") for name in TEACHERS)
    context = Context(seed=0, work_dir=work_dir, recipe="local/bench", teachers=teachers)
    result = module.run(read_section(module.Settings, values[stage], stage), context, **given)
    rows = len(result.data)
    if rows != prompts:
        raise RuntimeError(f"{stage} should give {prompts} rows, found {rows}: {result.counts}")
    module.OUTPUT.check(result.data, stage)
    fields = {"stage": stage, "settings": {}, "seed": 0, "fingerprint": f"{STAGES.index(stage):064x}"}
    store.put(repo=f"bench/{stage}", schema=module.OUTPUT, data=result.data, fields=fields)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, nargs="+", default=[20_000, 100_000])
    parser.add_argument("--folder", type=Path, help="where sources and store go; default: the system's temporary one")
    parser.add_argument("--engine", choices=("import", "server"), default="import")
    parser.add_argument("--stage", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stage:
        stage, folder, prompts, url = args.stage
        run_stage(stage, Path(folder), int(prompts), url)
        return 0
    worst = 0.0
    with server() if args.engine == "server" else nullcontext("") as url:
        for prompts in args.prompts:
            with tempfile.TemporaryDirectory(dir=args.folder) as folder:
                write_sources(Path(folder), prompts)
                for stage in STAGES:
                    command = [sys.executable, __file__, "--stage", stage, folder, str(prompts), url]
                    offline = {"HF_HUB_OFFLINE": "1"} | os.environ
                    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=offline)
                    seconds, busy, own, everything = map(float, done.stdout.split()[-4:])
                    worst = max(worst, own)
                    print(
                        f"{prompts} prompts, {stage}: {seconds:.1f} s, processor {busy:.1f} s, "
                        f"own {own / 1e6:.0f} MB, all {everything / 1e6:.0f} MB",
                        flush=True,
                    )
    print(f"peak own={worst / 1e6:.0f} MB need={NEED / 1e6:.0f}")
    return int(worst > NEED)


if __name__ == "__main__":
    sys.exit(main())
