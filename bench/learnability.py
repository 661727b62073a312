"""Learnability: `python bench/learnability.py [loop|vllm|memory|bare] [--runs N]`.

loop: answer tokens per second of `score_rows`, tokenising included, against the usual loop over the same tokens: order
of arrival, batches of 8, padded on the right with an attention mask, log_softmax in float32 of all positions.
vllm: the same against vLLM's `prompt_logprobs` on the CPU, all answers given at once.
bare: the time of bare forward passes of SmolLM2-135M-Instruct, LM head included, over the same tokens in the same
batches, against ours with log-probabilities and ranks. Some 490 tokens with the prompt, --dtype bfloat16 or float32.
memory: peak memory above the weights of one answer of 16K tokens and of one of 32K, width 64, vocabulary 152K.

The answers are of mixed length, as when terse teachers stand beside those that reason long: log-normal around 25 and
around 400 tokens, 1,500 at most. Every side must give the same numbers. Sides take turns; the ratio is that of the
medians. Ends with 1 where it falls short.

On a GPU: `loop --device cuda --model-shape qwen2.5-3b --peak 989`, a student of that shape with random weights in
bfloat16; prints its share of the device's peak (`--peak`: TFLOP/s in bfloat16) too.
"""

import argparse
import json
import math
import os
import random
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from persyn_hf.backends.batches import pad, plan_batches
from persyn_hf.backends.chat import Row, Turn
from persyn_hf.backends.scoring import score_rows
from persyn_hf.backends.scoring.likelihood import LikelihoodScorer


ROOT = Path(__file__).parent.parent
ROWS_OF_THE_LOOP = 8
CONTEXT = 2048
NEEDS = {"bare": 1 / 1.3, "loop": 2, "vllm": 1, "memory": 1, "memory-flat": 0.9}
ANSWERS = {"tiny": 240, "qwen2.5-3b": 240}
VLLM_ANSWERS = 60
BARE_ANSWERS = 200
SHAPES: dict[str, dict[str, int]] = {
    "tiny": {
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    },
    "qwen2.5-3b": {
        "vocab_size": 151936,
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
    },
}


def build_student(folder: Path, shape: dict[str, Any], dtype: str = "float32", device: str = "cpu") -> Path:
    """A Qwen2 of random weights with a tokenizer of the tiny world."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(ROOT / "recipes" / "tiny" / "zoo" / "qwen-student")
    config = transformers.Qwen2Config(
        **{"vocab_size": len(tokenizer), "max_position_embeddings": CONTEXT, "tie_word_embeddings": True} | shape,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def rows(count: int, middles: tuple[int, int] = (400, 25)) -> list[Row]:
    """Conversations of 5 to 60 tokens and answers; every third teacher reasons long (the first of `middles`)."""
    draw = random.Random(0)
    lines = (ROOT / "recipes" / "tiny" / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    words = " ".join(json.loads(line)["question"] for line in lines).split()

    def text(length: int) -> str:
        start = draw.randrange(len(words) - 1500)
        return " ".join(words[start : start + length])

    found = []
    for number in range(count):
        middle = middles[0] if number % 3 == 0 else middles[1]
        length = min(1500, max(1, int(draw.lognormvariate(math.log(middle), 0.6))))
        found.append(([{"role": "user", "content": text(draw.randint(3, 40))}], text(length * 2 // 3)))
    return found


def ours(student: LikelihoodScorer, answers: list[Row]) -> list[float]:
    totals = [0.0] * len(answers)
    for numbers, values in score_rows(student, answers):
        for number, (total, *_) in zip(numbers, values, strict=True):
            totals[number] = total
    return totals


def loop(student: LikelihoodScorer, turns: list[Turn]) -> list[float]:
    import torch

    model = student.model
    totals: list[float] = []
    for first in range(0, len(turns), ROWS_OF_THE_LOOP):
        batch = turns[first : first + ROWS_OF_THE_LOOP]
        longest = max(len(turn.ids) for turn in batch)
        ids = torch.zeros((len(batch), longest), dtype=torch.long)
        mask, scored = torch.zeros_like(ids), torch.zeros_like(ids)
        for row, turn in enumerate(batch):
            ids[row, : len(turn.ids)] = torch.from_numpy(turn.ids)
            mask[row, : len(turn.ids)] = 1
            scored[row, turn.start : len(turn.ids)] = 1
        ids, mask, scored = (table.to(model.device) for table in (ids, mask, scored))
        with torch.inference_mode():
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.float()
            table = torch.log_softmax(logits[:, :-1], dim=-1)
            chosen = table.gather(2, ids[:, 1:, None]).squeeze(2)
            totals += (chosen * scored[:, 1:]).sum(1).tolist()
    return totals


def vllm_side(llm: Any, turns: list[Turn]) -> list[float]:
    from vllm import SamplingParams

    prompts: Any = [{"prompt_token_ids": turn.ids.tolist()} for turn in turns]
    found = llm.generate(prompts, SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0), use_tqdm=False)
    return [
        sum(
            place[token].logprob
            for place, token in list(zip(one.prompt_logprobs, turn.ids.tolist(), strict=True))[turn.start :]
        )
        for one, turn in zip(found, turns, strict=True)
    ]


def timed(side: Any, *what: Any) -> tuple[float, list[float]]:
    import torch

    started = time.perf_counter()
    totals = side(*what)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started, totals


def medians(sides: dict[str, Any], runs: int) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Median seconds of each side, which take turns, and what each returned last."""
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    totals: dict[str, list[float]] = {}
    for run in range(runs + 1):  # the first warms up
        for side, function in sides.items():
            took, totals[side] = timed(function)
            seconds[side] += [took] * (run > 0)
    return {side: statistics.median(took) for side, took in seconds.items()}, totals


def compare(name: str, sides: dict[str, Any], turns: list[Turn], runs: int, tolerance: float) -> dict[str, float]:
    """Median seconds of each side; their totals must agree within `tolerance` nats per token."""
    median, totals = medians(sides, runs)
    first, second = totals.values()
    sizes = np.array([len(turn.ids) - turn.start for turn in turns])
    apart = float((np.abs(np.subtract(first, second)) / sizes).max())
    for side, took in median.items():
        print(f"{name} {side}: {sizes.sum()} answer tokens in {took:.2f} s, {sizes.sum() / took:.0f} tokens/s")
    print(f"{name} sides differ by {apart:.1e} nats per token at most", flush=True)
    assert apart < tolerance, "the two sides do not measure the same"
    return median


def run_loop(args: argparse.Namespace, folder: Path) -> float:
    dtype = "bfloat16" if args.device == "cuda" else "float32"
    student = open_student(build_student(folder, SHAPES[args.model_shape], dtype, args.device), dtype, args.device)
    answers = rows(args.answers or ANSWERS[args.model_shape])
    turns = student.encode(answers)
    sides = {"ours": lambda: ours(student, answers), "loop": lambda: loop(student, turns)}
    seconds = compare("loop", sides, turns, args.runs, 1e-4 if dtype == "float32" else 0.05)
    tokens = sum(len(turn.ids) for turn in turns)
    for side, took in seconds.items():
        flops = 2 * student.model.num_parameters() * tokens / took
        share = f", {flops / args.peak / 1e12:.1%} of the peak" if args.peak else ""
        print(f"loop {side}: {tokens / took:.0f} tokens/s with prompts, {flops / 1e12:.3f} TFLOP/s{share}", flush=True)
    return seconds["loop"] / seconds["ours"]


def bare(student: LikelihoodScorer, batches: list[list[Turn]]) -> list[float]:
    import torch

    for batch in batches:
        ids, _ = pad([turn.ids for turn in batch])
        with torch.inference_mode():
            student.model(input_ids=ids, use_cache=False)
    return []


def run_bare(args: argparse.Namespace, folder: Path) -> float:
    script = ROOT / "recipes" / "real" / "smollm2" / "prepare.py"
    runpy.run_path(str(script))["make_student"](folder)
    student = open_student(folder, args.dtype, "cpu")
    answers = rows(args.answers or BARE_ANSWERS, (330, 330))
    turns = student.encode(answers)
    tokens = sum(len(turn.ids) for turn in turns)
    plan = plan_batches([len(turn.ids) for turn in turns], student.batch_tokens)
    batches = [[turns[place] for place in batch] for batch in plan]
    sides = {"ours": lambda: ours(student, answers), "bare": lambda: bare(student, batches)}
    seconds, _ = medians(sides, args.runs)
    for side, second in seconds.items():
        print(
            f"bare {side} ({args.dtype}): {tokens} tokens in {second:.1f} s, {tokens / second:.0f} tokens/s",
            flush=True,
        )
    return seconds["bare"] / seconds["ours"]


def run_vllm(args: argparse.Namespace, folder: Path) -> float:
    os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_LOGGING_LEVEL": "ERROR"}
    from vllm import LLM

    answers = rows(args.answers or VLLM_ANSWERS)
    student = open_student(build_student(folder, SHAPES["tiny"]), "float32", "cpu")
    turns = student.encode(answers)
    llm = LLM(str(folder), dtype="float32", max_model_len=CONTEXT, enforce_eager=True, seed=0)
    sides = {"ours": lambda: ours(student, answers), "vllm": lambda: vllm_side(llm, turns)}
    try:
        seconds = compare("vllm", sides, turns, args.runs, 1e-4)
    finally:
        llm.llm_engine.engine_core.shutdown()  # its processes would outlive this one
    return seconds["vllm"] / seconds["ours"]


def open_student(folder: Path, dtype: Any, device: str) -> LikelihoodScorer:
    return LikelihoodScorer(str(folder), max_length=1 << 20, dtype=dtype, device=device)


def peak_bytes(folder: Path, length: int) -> int:
    """Resident memory of this process at its peak, above what it is after a short answer."""
    student = open_student(folder, "float32", "cpu")
    ids = np.random.default_rng(0).integers(0, 151936, length + 50).astype(np.int32)
    student.measure([Turn(ids=ids[:60], start=50, truncated=False)])
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = resident("VmRSS")
    student.measure([Turn(ids=ids, start=50, truncated=False)])
    return resident("VmHWM") - before


def resident(what: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))


def run_memory(folder: Path) -> tuple[float, float]:
    """1 GB against the peak at 16K tokens, and that against the peak at 32K; each in a process of its own."""
    shape = {"vocab_size": 151936, "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 1 << 16}
    build_student(folder, shape | heads)
    peaks = []
    for length in (1 << 14, 1 << 15):
        command = [sys.executable, __file__, "--length", str(length), "--folder", str(folder)]
        peaks.append(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]))
        print(f"memory: {peaks[-1] / 1e6:.0f} MB above the weights for an answer of {length} tokens", flush=True)
    return 1e9 / peaks[0], peaks[0] / peaks[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", choices=["memory", "loop", "vllm", "bare", []])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--answers", type=int)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--model-shape", choices=SHAPES, default="tiny")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16", help="of `bare`")
    parser.add_argument("--peak", type=float, help="TFLOP/s of the device in bfloat16")
    parser.add_argument("--length", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if args.length:
        print(peak_bytes(args.folder, args.length))
        return 0
    kinds = args.kinds or ["memory", "loop", "vllm", "bare"]
    ratios: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "memory" in kinds:
            ratios["memory"], ratios["memory-flat"] = run_memory(folder / "memory")
        if "loop" in kinds:
            ratios["loop"] = run_loop(args, folder / "loop")
        if "bare" in kinds:
            ratios["bare"] = run_bare(args, folder / "bare")
        if "vllm" in kinds:
            ratios["vllm"] = run_vllm(args, folder / "vllm")
    for kind, ratio in ratios.items():
        print(f"{kind} ratio={ratio:.2f} need={NEEDS[kind]:.3g}")
    sys.stdout.flush()
    return int(any(ratio < NEEDS[kind] for kind, ratio in ratios.items()))


if __name__ == "__main__":
    sys.exit(main())
