"""Train the whole zoo from scratch: `python -m persyn_hf.tiny.train [--out DIR] [--models a,b] [--jobs 2]`.

Writes, for each model, a directory that `from_pretrained` loads; `zoo.json` and `README.md` beside them; and the
splits as JSONL in the parent directory.
"""

import argparse
import json
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

from persyn_hf.tiny.accuracy import measure_accuracy
from persyn_hf.tiny.checkpoint import load_checkpoint, save_checkpoint
from persyn_hf.tiny.pretrain import pretrain
from persyn_hf.tiny.questions import make_splits
from persyn_hf.tiny.split_files import write_splits
from persyn_hf.tiny.tokenizer import build_tokenizer
from persyn_hf.tiny.zoo import ZOO, find_spec
from persyn_hf.tiny.zoo_card import render_card


SPLIT_SEED = 0
TOKENIZER_SEED = 0


def train_model(name: str, out: Path) -> dict:
    """Train, save, load again and measure one model; return its record for `zoo.json`."""
    import torch

    # One thread: sums in one order, hence repeatable, and on matrices this small a second thread gains nothing.
    torch.set_num_threads(1)
    spec, splits = find_spec(name), make_splits(SPLIT_SEED)
    banned = {question.question for rows in splits.values() for question in rows}
    started = time.perf_counter()
    tokenizer = build_tokenizer(TOKENIZER_SEED)
    model, losses = pretrain(spec, tokenizer, banned)
    seconds = time.perf_counter() - started
    save_checkpoint(model, tokenizer, out / name)
    model, tokenizer = load_checkpoint(out / name)
    return asdict(spec) | {
        "style": spec.style,
        "parameters": model.num_parameters(),
        "tokenizer_sha256": model.config.tokenizer_sha256,
        "train_seconds": round(seconds, 1),
        "final_loss": round(sum(losses[-100:]) / len(losses[-100:]), 4),
        "accuracy": {
            split: measure_accuracy(model, tokenizer, splits[split])._asdict() for split in ("validation", "test")
        },
    }


def update_records(out: Path, record: dict) -> None:
    """Put a model's record into `zoo.json`, in the order of the zoo, and render the card from it."""
    path = out / "zoo.json"
    records = json.loads(path.read_text())["models"] if path.exists() else []
    by_name = {model["name"]: model for model in records} | {record["name"]: record}
    kept = [by_name[spec.name] for spec in ZOO if spec.name in by_name]
    zoo = {"split_seed": SPLIT_SEED, "tokenizer_seed": TOKENIZER_SEED, "models": kept}
    path.write_text(json.dumps(zoo, indent=1) + "\n")
    (out / "README.md").write_text(render_card(kept))


def main() -> None:
    """Train the models that the command line names, write their records, and print each one as it is done."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=Path("recipes/tiny/zoo"))
    parser.add_argument("--models", default=",".join(spec.name for spec in ZOO), help="names, with commas")
    parser.add_argument("--jobs", type=int, default=2, help="models trained at a time, one thread each")
    arguments = parser.parse_args()
    names = arguments.models.split(",")
    for name in names:
        find_spec(name)
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_splits(make_splits(SPLIT_SEED), arguments.out.parent)
    # spawn: a forked process would inherit torch's thread pool in an unknown state.
    with ProcessPoolExecutor(arguments.jobs, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        for done in as_completed([pool.submit(train_model, name, arguments.out) for name in names]):
            record = done.result()
            update_records(arguments.out, record)
            print(record["name"], f"{record['train_seconds']} s", record["accuracy"]["validation"], flush=True)


if __name__ == "__main__":
    main()
