"""Completed tokens per second: `python bench/generation.py [vllm|transformers] [--runs N]`.

vllm: the `vllm` engine with its answers journalled, against `LLM.chat` in one process with all prompts given at once.
transformers: the `transformers` engine at its default `batch_tokens`, against `pipeline("text-generation")` with
batches of as many rows as the same budget allows for the longest prompt.

Both sides get the same prompts of 10 to 380 tokens and the same Llama of random parameters (28M; 7M for transformers).
It says each of its 699 tokens about as often as any other, and 11 of them end an answer: answers have 64 tokens on
average, 256 at most, in lengths as mixed as a real teacher's. Loading and the first answers do not count. Sides take
turns, each in a fresh process; the ratio is that of the medians. Ends with 1 where it falls short.
"""

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from persyn_hf.backends.answers import Listed, Request, Sampling
from persyn_hf.backends.engines import Engine
from persyn_hf.backends.engines.settings import VllmSettings
from persyn_hf.backends.engines.supervised import Kept
from persyn_hf.backends.journal import Journal


ROOT = Path(__file__).parent.parent
SAMPLING = Sampling(temperature=1.0, top_p=1.0, top_k=0, max_tokens=256, seed=0)
CONTEXT = 1024
ENDS = 11  # tokens that end an answer
BATCH_TOKENS = 32768  # the default of `generate.batch_tokens`
PROMPTS = {"vllm": 300, "transformers": 150}
LAYERS = {"vllm": 9, "transformers": 2}  # of 3M parameters
NEEDS = {"vllm": 0.9, "transformers": 1.5}
FIRST = 16  # answers that warm a side up
SIDES = ("ours", "plain")


def build_model(folder: Path, layers: int) -> Path:
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(ROOT / "recipes" / "tiny" / "zoo" / "llama-long")
    eos = tokenizer.eos_token_id
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        eos_token_id=eos,
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.generation_config.eos_token_id = [eos, *range(len(tokenizer) - ENDS + 1, len(tokenizer))]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def conversations(count: int) -> list[list[dict[str, str]]]:
    draw = random.Random(0)
    lines = (ROOT / "recipes" / "tiny" / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    questions = [json.loads(line)["question"] for line in lines]
    return [
        [{"role": "user", "content": " ".join(draw.choices(questions, k=draw.randint(1, 18)))}] for _ in range(count)
    ]


def ours(kind: str, model: str, folder: Path) -> tuple[int, float]:
    """Tokens and seconds of an engine, journal included."""
    with open_engine(kind, model, folder) as engine, Journal(folder / "journal", recipe="local/bench") as journal:
        for batch in engine.generate(engine.plan(Listed(requests(engine, FIRST)))):
            journal.write(batch, teacher="bench")
        todo = requests(engine, FIRST + PROMPTS[kind])[FIRST:]
        started = time.perf_counter()
        tokens = 0
        for batch in engine.generate(engine.plan(Listed(todo))):
            journal.write(batch, teacher="bench")
            tokens += sum(answer.num_tokens for answer in batch if answer.error is None)
        return tokens, time.perf_counter() - started


def open_engine(kind: str, model: str, folder: Path) -> Any:
    if kind == "vllm":
        from persyn_hf.backends.engines.vllm import VllmEngine

        settings = VllmSettings(args=("--enforce-eager", "--no-enable-chunked-prefill"), max_restarts=0)
        return VllmEngine(model, settings=settings, dtype="float32", log_dir=folder)
    from persyn_hf.backends.engines.transformers import TransformersEngine

    return TransformersEngine(model, batch_tokens=BATCH_TOKENS, dtype="float32")


def requests(engine: Engine, count: int) -> list[Request]:
    return [
        Request(
            prompt_id=str(number),
            model=engine.model,
            engine=engine.kind,
            sample_index=0,
            prompt=engine.prepare(messages),
            sampling=replace(SAMPLING, seed=number),
        )
        for number, messages in enumerate(conversations(count))
    ]


def plain_vllm(model: str) -> tuple[int, float]:
    from vllm import LLM, SamplingParams

    same = {"enforce_eager": True, "enable_chunked_prefill": False, "max_model_len": CONTEXT}  # as in `open_engine`
    llm = LLM(model, dtype="float32", generation_config="vllm", seed=0, **same)
    sampling = SamplingParams(temperature=1.0, top_p=1.0, top_k=0, max_tokens=SAMPLING.max_tokens)
    chats: Any = conversations(FIRST + PROMPTS["vllm"])
    llm.chat(chats[:FIRST], sampling, use_tqdm=False)
    started = time.perf_counter()
    found = llm.chat(chats[FIRST:], sampling, use_tqdm=False)
    return sum(len(one.outputs[0].token_ids) for one in found), time.perf_counter() - started


def plain_transformers(model: str) -> tuple[int, float]:
    from transformers import pipeline

    generator = pipeline("text-generation", model=model, dtype="float32")
    generator.tokenizer.padding_side = "left"
    ends = set(generator.model.generation_config.eos_token_id)
    chats = conversations(FIRST + PROMPTS["transformers"])
    encode = generator.tokenizer.apply_chat_template
    lengths = [len(encode(chat, add_generation_prompt=True)["input_ids"]) for chat in chats[FIRST:]]
    sampling = {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0}  # the pipeline's own is 0.7
    options = {**sampling, "max_new_tokens": SAMPLING.max_tokens, "return_tensors": True}
    rows = BATCH_TOKENS // (max(lengths) + SAMPLING.max_tokens)
    generator(chats[:FIRST], batch_size=FIRST, **options)
    started = time.perf_counter()
    found = generator(chats[FIRST:], batch_size=rows, **options)
    seconds = time.perf_counter() - started
    tokens = 0
    for row, (said,) in enumerate(found):
        first = row - row % rows
        new = list(said["generated_token_ids"])[max(lengths[first : first + rows]) :]  # padded to its batch's longest
        tokens += next((at + 1 for at, token in enumerate(new) if token in ends), len(new))
    return tokens, seconds


def measure(kind: str, side: str, model: str) -> float:
    """Tokens per second of one side, in processes of its own. They are ended: `LLM` may hang as it leaves."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, __file__, kind, "--side", side, "--model", model, "--folder", name]
        environment = {
            "VLLM_CPU_KVCACHE_SPACE": "2",
            "VLLM_LOGGING_LEVEL": "ERROR",
            "HF_HUB_OFFLINE": "1",
        } | os.environ
        kept = Kept(command, environment=environment, log=folder / "log")
        try:
            while not (folder / "result").exists():
                if kept.poll() is not None:
                    raise RuntimeError((folder / "log").read_text()[-5000:])
                time.sleep(0.5)
            tokens, seconds = json.loads((folder / "result").read_text())
        finally:
            kept.stop()
    print(f"{kind} {side}: {tokens} tokens in {seconds:.1f} s, {tokens / seconds:.0f} tokens/s", flush=True)
    return float(tokens / seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", choices=[*NEEDS, []])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        plain = {"vllm": plain_vllm, "transformers": plain_transformers}
        kind = args.kinds[0]
        result = ours(kind, args.model, args.folder) if args.side == "ours" else plain[kind](args.model)
        (args.folder / "part").write_text(json.dumps(result))
        (args.folder / "part").rename(args.folder / "result")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        short = False
        for kind in args.kinds or list(NEEDS):
            model = str(build_model(Path(folder) / kind, LAYERS[kind]))
            speeds: dict[str, list[float]] = {side: [] for side in SIDES}
            for _ in range(args.runs):
                for side in SIDES:
                    speeds[side].append(measure(kind, side, model))
            ratio = statistics.median(speeds["ours"]) / statistics.median(speeds["plain"])
            print(f"{kind} ratio={ratio:.2f} need={NEEDS[kind]}")
            short = short or ratio < NEEDS[kind]
        return int(short)


if __name__ == "__main__":
    sys.exit(main())
