"""What the driver adds to asking: `python bench/driver.py [--prompts 2000 20000] [--samples N] [--runs N]`.

off, on: the stage `generate` against an instant local server: every answer journalled, selected and written out,
without and with math-verify. plain: a bare loop that sends the same bodies with as many in flight through `httpx`, and
keeps the texts in a list. All count from their first request to their end, imports left out (whole processes are in
server.py), and answers to one prompt differ from those to the others, so that every one is graded.

Sides take turns, each in a fresh process. The ratio is the median over the turns of a side's rate to that of the bare
loop in the same turn. Ends with 1 where one falls short. Memory is the peak of the whole process above what it held
before the first request; what a prompt takes is the difference between the largest and the smallest number of prompts,
divided by that of the prompts.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from server import IN_FLIGHT, MAX_TOKENS, memory, question, server


NEED = {"off": 0.8, "on": 0.6}
SIDES = ("plain", "off", "on")

PLAIN = """
import asyncio, httpx, json, sys, time
async def main(url, path, in_flight):
    bodies = iter([json.loads(line) for line in open(path)])
    texts = []
    limits = httpx.Limits(max_connections=in_flight, max_keepalive_connections=in_flight)
    async with httpx.AsyncClient(limits=limits, timeout=None) as client:
        started = time.perf_counter()
        async def work():
            for body in bodies:
                reply = await client.post(url + "/chat/completions", json=body)
                texts.append(reply.json()["choices"][0]["message"]["content"])
        await asyncio.gather(*(work() for _ in range(in_flight)))
    print(len(texts), time.perf_counter() - started, 0)
asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def generate(url: str, prompts: int, samples: int, verify: str) -> None:
    """Run the stage, and print its answers, its seconds, and the bytes by which the peak has risen."""
    from datasets import Dataset

    from persyn_hf.backends.engines import client  # noqa: F401  # imported before the clock starts
    from persyn_hf.recipe.roles import Teacher
    from persyn_hf.recipe.strict import read_section
    from persyn_hf.schemas import PROMPTS, prompt_id
    from persyn_hf.stage import Context
    from persyn_hf.stages import generate as stage

    rows = []
    for number in range(prompts):
        messages = [{"role": "user", "content": question(number)}]
        about = {"reference": str(number + number % 97), "source": "bench", "topic": None, "split": "pool"}
        rows.append({"prompt_id": prompt_id(messages), "messages": messages, **about})
    table = PROMPTS.dataset(rows)
    cells = Dataset.from_dict({"prompt_id": [row["prompt_id"] for row in rows], "teacher": ["m"] * prompts})
    del rows
    values = {
        "engine": "server",
        "samples": samples,
        "max_tokens": MAX_TOKENS,
        "verify": verify,
        "server": {"urls": [url], "concurrency": IN_FLIGHT, "max_concurrency": IN_FLIGHT},
    }
    settings = read_section(stage.Settings, values, "generate")
    with tempfile.TemporaryDirectory() as folder:
        teachers = (Teacher(name="m", model="m"),)
        context = Context(seed=0, work_dir=Path(folder), recipe="local/bench", teachers=teachers)
        before, started = memory("VmHWM"), time.perf_counter()
        result = stage.run(settings, context, prompts=table, assignments=cells)
        seconds = time.perf_counter() - started
    right = sum(samples for number in range(prompts) if number % 3) if verify == "math" else 0
    if (result.counts["answered"], result.counts["correct"]) != (prompts * samples, right):
        raise RuntimeError(f"{prompts * samples} answers, {right} right ones should be there: {result.counts}")
    print(prompts * samples, seconds, memory("VmHWM") - before)


def run(side: str, url: str, prompts: int, samples: int) -> tuple[float, float]:
    """Return the answers per second of a side, and the bytes by which its peak rose."""
    with tempfile.TemporaryDirectory() as folder:
        if side == "plain":
            path = Path(folder) / "bodies.jsonl"
            fixed: dict[str, Any] = {"model": "m", "temperature": 0.6, "max_tokens": MAX_TOKENS}
            with path.open("w") as file:
                for number in range(prompts * samples):
                    messages = [{"role": "user", "content": question(number // samples)}]
                    file.write(json.dumps({**fixed, "seed": number, "messages": messages}) + "\n")
            command = [sys.executable, "-c", PLAIN, url, str(path), str(IN_FLIGHT)]
        else:
            verify = "math" if side == "on" else "none"
            command = [sys.executable, __file__, "--generate", url, str(prompts), str(samples), verify]
        done = subprocess.run(command, capture_output=True, text=True, env={"HF_HUB_OFFLINE": "1"} | os.environ)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    answers, seconds, risen = map(float, done.stdout.split()[-3:])
    if answers != prompts * samples:
        raise RuntimeError(f"{prompts * samples} answers should be there, found {answers:.0f}")
    return answers / seconds, risen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, nargs="+", default=[2000, 20000])
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--generate", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.generate:
        url, prompts, samples, verify = args.generate
        generate(url, int(prompts), int(samples), verify)
        return 0
    short = False
    risen: dict[str, list[float]] = {side: [] for side in NEED}
    with server() as url:
        for prompts in args.prompts:
            turns = [{side: run(side, url, prompts, args.samples) for side in SIDES} for _ in range(args.runs)]
            for side in SIDES:
                rates = ", ".join(f"{turn[side][0]:.0f}" for turn in turns)
                print(f"{prompts} prompts, {side}: {rates} answers/s", flush=True)
            for side, need in NEED.items():
                ratio = statistics.median(turn[side][0] / turn["plain"][0] for turn in turns)
                short |= ratio < need
                risen[side].append(statistics.median(turn[side][1] for turn in turns))
                print(f"driver {prompts} prompts, grading {side}: ratio={ratio:.2f} need={need}", flush=True)
    for side, peaks in risen.items():
        more = args.prompts[-1] - args.prompts[0]
        each = f", {(peaks[-1] - peaks[0]) / more / 1024:.2f} KB per prompt" if more else ""
        print(f"grading {side}: peak above the start {', '.join(f'{one / 2**20:.0f} MB' for one in peaks)}{each}")
    return int(short)


if __name__ == "__main__":
    sys.exit(main())
