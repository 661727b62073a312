"""Memory and time of publishing: `python bench/publish.py [dataset|model] [--gb N]`.

2 GB of responses that do not compress, in several files, and a model of one file of 2 GB are pushed from a store to a
Hub on the same machine, each in a process of its own: the check of every digest, the card, one commit and the tag. The
peak of the resident memory is held against 1 GB, the time against `HfApi.upload_folder` of the same files, which also
reads each of them twice. Sides take turns; best of the runs. Takes 6 GB of disk for each 2.
"""

import argparse
import base64
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from persyn_hf.schemas import RESPONSES, SCHEMAS
from persyn_hf.store.local import Store
from persyn_hf.store.stored import Stored, repo_type


sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "hub"))

from hub_server import HubServer  # noqa: E402


KINDS = {"dataset": "responses", "model": "student"}
MEMORY = 1e9  # bytes
SPEED = 0.8
TEXT = 4096  # bytes of one response
CHUNK = 4096  # responses
SIDES = ("ours", "plain")


def responses(count: int) -> Iterator[Any]:
    """Tables of random text."""
    import pyarrow as pa

    schema = RESPONSES.features.arrow_schema
    for start in range(0, count, CHUNK):
        number = min(CHUNK, count - start)
        text = base64.b64encode(random.Random(start).randbytes(number * TEXT * 3 // 4)).decode()
        fixed = {
            "teacher": "a",
            "sample_index": 0,
            "reasoning": None,
            "finish_reason": "stop",
            "num_prompt_tokens": 60,
        }
        fixed |= {"num_tokens": TEXT // 4, "is_correct": True, "quality": None, "selected": True, "round": 0}
        fixed |= {"status": "ok", "error": None, "split": "pool"}
        columns = {name: [value] * number for name, value in fixed.items()}
        columns["prompt_id"] = [f"{start + row:016x}" for row in range(number)]
        columns["response"] = [text[row * TEXT : (row + 1) * TEXT] for row in range(number)]
        yield pa.table({name: columns[name] for name in schema.names}, schema=schema)


def write_weights(folder: Path, size: int) -> None:
    """One file as safetensors writes it; a tensor of this size need not be in memory."""
    folder.mkdir()
    size -= size % (1 << 20)
    tensor = {"weight": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}
    header = json.dumps(tensor).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for megabyte in range(size >> 20):
            file.write(random.Random(megabyte).randbytes(1 << 20))
    (folder / "config.json").write_text('{"model_type": "bench"}')


def make(kind: str, store: Store, size: int) -> Stored:
    from datasets import Dataset

    fields: dict[str, Any] = {"stage": "bench", "settings": {}, "seed": 0, "fingerprint": "0" * 64}
    if kind == "student":
        fields["student"] = {"name": "bench", "model": "bench/student"}
    else:
        fields["teachers"] = [{"name": "a", "model": "bench/teacher"}]
    with tempfile.TemporaryDirectory(dir=store.root.parent) as folder:
        data: Any = Path(folder) / "model"
        if kind == "student":
            write_weights(data, size)
        else:
            with RESPONSES.writer(path := Path(folder) / "rows.arrow") as writer:
                for table in responses(size * 4 // 3 // TEXT):  # six bits of each character are random
                    writer.write_table(table)
            data = Dataset.from_file(str(path))
        return store.put(repo=f"bench/{kind}", schema=SCHEMAS[kind], data=data, fields=fields)


def upload(side: str, root: str, ref: str, namespace: str) -> dict[str, float]:
    """Publish in this process."""
    from huggingface_hub import HfApi

    from persyn_hf.store.hub.push import push

    store, api = Store(root), HfApi()
    stored = store.get(ref)
    started = time.perf_counter()
    if side == "ours":
        push(store, stored, namespace=namespace, api=api)
    else:
        repo, kind = f"{namespace}/{stored.kind}", repo_type(stored.kind)
        api.create_repo(repo, repo_type=kind)
        made = api.upload_folder(repo_id=repo, repo_type=kind, folder_path=stored.path)
        api.create_tag(repo, tag=stored.tag, revision=made.oid, repo_type=kind)
    seconds = time.perf_counter() - started
    # not `ru_maxrss`: that begins with what the parent had
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return {"seconds": seconds, "peak": int(line.split()[1]) * 1024}


def measure(hub: HubServer, side: str, stored: Stored, root: Path, number: int) -> dict[str, float]:
    namespace = f"{side}-{number}"
    hub.add_user(namespace)
    environment = hub.env(hub.token(namespace), home=root / namespace) | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    command = [sys.executable, __file__, "--side", side, str(root / "store"), stored.ref, namespace]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
    found: dict[str, float] = json.loads(done.stdout)
    files = hub.repo(f"{namespace}/{stored.kind}", repo_type(stored.kind)).at(stored.tag).files
    if any(files[name].sha256 != digest for name, digest in stored.manifest.files.items() if name != "README.md"):
        raise SystemExit(f"{side}: what is on the Hub is not what is in the store")
    print(f"{stored.kind} {side}: {found['seconds']:.1f} s, peak {found['peak'] / 1e9:.2f} GB", flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", nargs="?", choices=list(KINDS), help="default: both")
    parser.add_argument("--gb", type=float, default=2.0, help="size of each artifact")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--dir", help="where the artifacts are written (default: the system's)")
    parser.add_argument("--side", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(upload(*args.side)))
        return 0
    short = False
    for kind in [args.kind] if args.kind else KINDS:
        with tempfile.TemporaryDirectory(prefix="publish-", dir=args.dir) as name:
            root = Path(name)
            stored = make(KINDS[kind], Store(root / "store"), int(args.gb * 1e9))
            sizes = [(stored.path / file).stat().st_size for file in stored.manifest.files]
            print(f"{stored.kind}: {sum(sizes) / 1e9:.2f} GB in {len(sizes)} files", flush=True)
            found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
            with HubServer(root / "hub") as hub:
                for number in range(args.runs):
                    for side in SIDES:
                        found[side].append(measure(hub, side, stored, root, number))
        peak = max(run["peak"] for run in found["ours"])
        seconds = {side: min(run["seconds"] for run in runs) for side, runs in found.items()}
        for word, ratio, need in (
            (f"publish_{kind}_speed", seconds["plain"] / seconds["ours"], SPEED),
            (f"publish_{kind}_memory", MEMORY / peak, 1),
        ):
            print(f"{word} ratio={ratio:.2f} need={need}", flush=True)
            short = short or ratio < need
    return int(short)


if __name__ == "__main__":
    sys.exit(main())
