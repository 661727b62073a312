"""Learnability of real answers against an independent loop: `python bench/independent_loop.py [FILE ...]`.

The loop is plain transformers: one answer at a time, no padding, tokens as `apply_chat_template` makes them of the
conversation with its answer, the mean log-probability of the answer's tokens and its end of turn. The student is
SmolLM2-135M-Instruct, or `--model FOLDER`, in float32 on the CPU. Files are parquet with the columns `prompt` and
`response`; without one, the answers of two models to GSM8K in `recipes/real`. Ends with 1 where the two differ by more
than 1e-4 nats per token, or count other tokens.
"""

import argparse
import os
import random
import sys
from pathlib import Path
from typing import Any


ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "recipes" / "real" / "gsm8k_two_models_sample.parquet"
TOLERANCE = 1e-4  # nats per token

Row = tuple[list[dict[str, str]], str]


def read(files: list[Path], count: int) -> list[Row]:
    """Draw `count` rows of the files, the same at every call: short and long answers as they come."""
    import pyarrow.parquet as pq

    rows = [row for path in files for row in pq.read_table(path, columns=["prompt", "response"]).to_pylist()]
    drawn = random.Random(0).sample(rows, min(count, len(rows)))
    return [([{"role": "user", "content": row["prompt"]}], row["response"]) for row in drawn]


def loop(model: Any, tokenizer: Any, row: Row, max_length: int) -> tuple[float, int]:
    """Return the mean log-probability of one answer, and the number of its tokens."""
    import torch

    messages, answer = row
    before = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    ids = tokenizer.apply_chat_template([*messages, {"role": "assistant", "content": answer}], return_dict=False)
    assert ids[: len(before)] == before
    while ids[-1] != tokenizer.eos_token_id:  # what the template writes after the end of turn
        ids.pop()
    ids = torch.tensor([ids[:max_length]])
    with torch.inference_mode():
        table = model(input_ids=ids).logits[0, :-1].double().log_softmax(-1)
    found = table.gather(1, ids[0, 1:, None])[len(before) - 1 :, 0]
    return float(found.mean()), len(found)


def main() -> int:
    """Compare and print the largest difference."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, default=[SAMPLE])
    parser.add_argument("--model", help="folder of a student whose eos token is its end of turn")
    parser.add_argument("--answers", type=int, default=40)
    parser.add_argument("--max-length", type=int, default=512)
    args = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.path.insert(0, str(ROOT / "tests"))
    from smollm2 import smollm2_folder
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from persyn_hf.backends.scoring import score_rows
    from persyn_hf.backends.scoring.likelihood import LikelihoodScorer

    folder = args.model or str(smollm2_folder())
    rows = read(args.files, args.answers)
    scorer = LikelihoodScorer(folder, max_length=args.max_length, dtype="float32", device="cpu")
    ours: dict[int, tuple[float, int]] = {}
    for numbers, values in score_rows(scorer, rows):
        ours |= {number: (total / tokens, tokens) for number, (total, tokens, *_) in zip(numbers, values, strict=True)}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    theirs = [loop(model, tokenizer, row, args.max_length) for row in rows]
    apart = [abs(ours[number][0] - mean) for number, (mean, _) in enumerate(theirs)]
    same = all(ours[number][1] == tokens for number, (_, tokens) in enumerate(theirs))
    lengths = sorted(tokens for _, tokens in theirs)
    print(
        f"{len(rows)} answers of {lengths[0]} to {lengths[-1]} tokens, {sum(lengths)} in all, median "
        f"{lengths[len(lengths) // 2]}: differ by {max(apart):.1e} nats per token at most; "
        f"{'the same' if same else 'OTHER'} tokens"
    )
    return int(max(apart) > TOLERANCE or not same)


if __name__ == "__main__":
    sys.exit(main())
