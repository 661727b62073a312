"""Router training: `python bench/router.py [--device cuda --backbone-shape qwen2.5-1.5b]`.

Grouped (one forward pass per prompt, all its pairs in the loss) against a forward pass per pair, one pass over all of
them (the layout of lmarena/p2l and of the paper's 500K pairs): the same Trainer, backbone (a Qwen2 of random weights),
prompts, rewards, learning rates and, but for rounding, number of optimiser steps, for 6 and for 19 teachers. A teacher
is good at some kinds of maths question, so a router has to learn to tell them apart.

router_N: seconds of training per pair / grouped, where dev Hit@3 of grouped is at least as good. router_N_reach: the
same for the first time that a side reaches 95 % of the lower of the two final Hit@3; looking at dev does not count.
Gradients of both losses are compared first. Ends with 1 where a ratio falls short or gradients differ by over 1e-6.

With a backbone shape: seconds per step and tokens per second of both sides on that device, and no training to the end.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from persyn_hf.backends.loading import suitable_threads
from persyn_hf.backends.routers import Labelled, RouterSettings
from persyn_hf.backends.routers.llm_data import Prompts, prompt_losses, targets
from persyn_hf.backends.routers.llm_model import Llm, new
from persyn_hf.backends.routers.llm_training import RouterTrainer, _arguments
from persyn_hf.core.metrics import hit_at_k


ROOT = Path(__file__).parent.parent
TRAIN, DEV = 200, 300  # prompts
EPOCHS, BATCH = 4, 16  # grouped
NEEDS = {"router_6": 1.0, "router_6_reach": 1.0, "router_19": 20.0, "router_19_reach": 8.0}
LOOKS = 24  # at dev, while a side trains
SHAPES = {
    "tiny": {
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
    },
    "qwen2.5-1.5b": {
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
    },
}
STEPS, WARM = 12, 4  # of a shape: timed, and before the clock


def build_backbone(folder: Path, shape: str) -> Path:
    tokenizer = transformers.AutoTokenizer.from_pretrained(ROOT / "recipes" / "tiny" / "zoo" / "llama-long")
    vocabulary = len(tokenizer) if shape == "tiny" else 151_936
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=vocabulary, max_position_embeddings=2048, pad_token_id=tokenizer.pad_token_id, **SHAPES[shape]
    )
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def corpus(num_teachers: int) -> tuple[Labelled, Labelled]:
    """Questions of the tiny world; reward: how good the teacher is at this kind of question, and noise."""
    lines = (ROOT / "recipes" / "tiny" / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    questions = [json.loads(line) for line in lines]
    random.Random(0).shuffle(questions)
    questions = questions[: TRAIN + DEV]
    skills = sorted({question["skill"] for question in questions})
    rng = np.random.default_rng(0)
    able = rng.random((len(skills), num_teachers))
    rewards = able[[skills.index(question["skill"]) for question in questions]]
    rewards = np.clip(rewards + rng.normal(size=rewards.shape) * 0.05, 0, 1)
    found = Labelled([[{"role": "user", "content": question["question"]}] for question in questions], rewards)
    return found.take(range(TRAIN)), found.take(range(TRAIN, TRAIN + DEV))


def per_pair(tokens: list[list[int]], preferred: torch.Tensor) -> tuple[list[list[int]], torch.Tensor]:
    """A row for each pair of each prompt, which prefers in that pair alone."""
    n = preferred.shape[-1]
    first, second = np.triu_indices(n, k=1)
    pairs = len(first)
    rows = torch.full((len(tokens) * pairs, 1, n, n), torch.nan)
    for number in range(len(tokens)):
        places = torch.arange(number * pairs, (number + 1) * pairs)
        rows[places, 0, first, second] = preferred[number, 0, first, second].float()
    return [row for row in tokens for _ in range(pairs)], rows


class Clock(transformers.TrainerCallback):
    """Seconds of training, without those that `look` takes."""

    def __init__(self, every: int, look: Callable[[], float] | None) -> None:
        self.every, self.look, self.seen = every, look, []  # type: ignore[var-annotated]
        self.steps: list[float] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.steps.append(time.perf_counter() - self.started)
        if self.look is not None and (state.global_step % self.every == 0 or state.global_step == state.max_steps):
            looked = time.perf_counter()
            self.seen.append((looked - self.started, self.look()))
            self.started += time.perf_counter() - looked


def trainer_of(router: Llm, settings: RouterSettings, data: Prompts, folder: Path) -> RouterTrainer:
    args = _arguments(settings, router, folder / "scratch", 0, False)
    data.fill(1, settings.micro_batch_size)
    args.per_device_train_batch_size, args.gradient_accumulation_steps = data.micro, data.accumulation
    args.warmup_steps = int(settings.warmup * settings.epochs * data.steps)
    nothing = Labelled([], np.zeros((0, len(router.teachers))))
    return RouterTrainer(router, settings, data, nothing, args, None)


def side(
    backbone: Path, num_teachers: int, paired: bool, device: str, micro: int, folder: Path, timed: bool = False
) -> tuple[list[tuple[float, float]], list[float], float]:
    """Seconds and Hit@3 at each look, seconds at each step, tokens per step; the last look is the end."""
    train, dev = corpus(num_teachers)
    values = {"learning_rate": 1e-3, "head_learning_rate": 1e-2, "device": device, "micro_batch_size": micro}
    settings = RouterSettings(backbone=str(backbone), epochs=1 if paired else EPOCHS, batch_size=BATCH, **values)
    torch.manual_seed(0)
    router = new(settings, tuple(f"t{number}" for number in range(num_teachers)), None)
    tokens, preferred = router.encode(train.conversations), targets(train, None, settings).float()
    batch = BATCH
    if paired:
        steps = EPOCHS * -(-len(tokens) // BATCH)
        tokens, preferred = per_pair(tokens, preferred)
        batch = -(-len(tokens) // steps)
    data = Prompts(tokens, preferred, batch, seed=0)
    dev_tokens = router.encode(dev.conversations)
    every = max(1, settings.epochs * data.steps // LOOKS)

    def look() -> float:
        return float(np.nanmean(hit_at_k(router.outputs(dev_tokens), dev.rewards, 3)))

    clock = Clock(every, None if timed else look)
    trainer = trainer_of(router, settings, data, folder)
    if timed:
        trainer.args.max_steps = WARM + STEPS
    trainer.add_callback(clock)
    with suitable_threads(router.model):
        trainer.train()
    mean_tokens = float(np.mean([len(row) for row in tokens])) * batch
    return clock.seen, clock.steps, mean_tokens


def gradient_gap(backbone: Path, num_teachers: int) -> float:
    """Largest difference of any gradient between the two losses over eight prompts."""
    train, _ = corpus(num_teachers)
    settings = RouterSettings(backbone=str(backbone), device="cpu")
    torch.manual_seed(0)
    router = new(settings, tuple(f"t{number}" for number in range(num_teachers)), None)
    tokens, preferred = router.encode(train.conversations[:8]), targets(train.take(range(8)), None, settings)
    found = []
    for rows, wanted in ((tokens, preferred), per_pair(tokens, preferred)):
        router.model.zero_grad()
        for start in range(0, len(rows), 128):
            part = slice(start, start + 128)
            losses = prompt_losses(router.forward(router.pad(rows[part])), wanted[part])
            (losses.sum() / len(rows)).backward()
        found.append([parameter.grad.clone() for parameter in router.model.parameters()])
    return max(float((one - other).abs().max()) for one, other in zip(*found, strict=True))


def compare(backbone: Path, num_teachers: int) -> dict[str, float]:
    seen = {}
    for name, paired in (("grouped", False), ("per pair", True)):
        with tempfile.TemporaryDirectory() as folder:
            seen[name] = side(backbone, num_teachers, paired, "cpu", 256, Path(folder))[0]
        seconds, hit = seen[name][-1]
        print(f"{num_teachers} teachers, {name}: {seconds:.1f} s, dev Hit@3 {hit:.3f}", flush=True)
    target = 0.95 * min(looks[-1][1] for looks in seen.values())
    first = {name: next(s for s, hit in looks if hit >= target) for name, looks in seen.items()}
    print(f"{num_teachers} teachers, Hit@3 {target:.3f} is first reached after " + str(first))
    (ours, our_hit), (theirs, their_hit) = seen["grouped"][-1], seen["per pair"][-1]
    return {
        f"router_{num_teachers}": theirs / ours if our_hit >= their_hit else 0.0,
        f"router_{num_teachers}_reach": first["per pair"] / first["grouped"],
    }


def speeds(shape: str, device: str) -> None:
    """The batches are those of `side`: a step has more pairs than prompts, for there are as many steps."""
    for name, paired in (("grouped", False), ("per pair", True)):
        with tempfile.TemporaryDirectory() as folder:
            backbone = build_backbone(Path(folder) / "backbone", shape)
            _, steps, tokens = side(backbone, 19, paired, device, 32, Path(folder), timed=True)
        step = (steps[-1] - steps[WARM - 1]) / STEPS
        print(f"{shape} on {device}, {name}: {step:.3f} s per step, {tokens / step:,.0f} tokens/s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--backbone-shape", choices=tuple(SHAPES))
    args = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if args.backbone_shape:
        speeds(args.backbone_shape, args.device)
        return 0
    ratios: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        backbone = build_backbone(Path(folder), "tiny")
        gap = max(gradient_gap(backbone, number) for number in (6, 19))
        print(f"gradients differ by {gap:.1e} at most")
        for number in (6, 19):
            ratios |= compare(backbone, number)
    for name, ratio in ratios.items():
        print(f"{name} ratio={ratio:.1f} need={NEEDS[name]:g}")
    return 0 if gap <= 1e-6 and all(ratio >= NEEDS[name] for name, ratio in ratios.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
