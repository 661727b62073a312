"""Answers per second of `engine: server`: `python bench/server.py [--answers N] [--runs N] [--peer NAME=PYTHON ...]`.

ours: the stage `generate` in a process of its own: every answer is asked for, written to the journal, graded by
math-verify, selected and written out. The whole process counts, its imports too.
plain: a program of a few lines that sends the same bodies with as many in flight through `httpx`, and keeps the texts
in a list. The whole process, too.

The server answers at once, in a process of its own that all sides share, so what is measured is the client. Sides take
turns, each in a fresh process; the ratio is that of the medians. Ends with 1 where it falls short. For information:
`persyn run` of a recipe until `generate`, which makes seven artifacts with cards and pictures of it, among them the
answers twice; and with `--peer curator=/tmp/c/bin/python` bespokelabs-curator or distilabel, installed elsewhere.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


ROOT = Path(__file__).parent.parent
IN_FLIGHT = 64
TEACHERS = ("m", "n")  # one after the other, each answers every prompt
SAMPLES = 4  # of a teacher per prompt
NEED = 0.8
MAX_TOKENS = 256
MEANT = "Work it out step by step, and put the result into a box."

PLAIN = """
import asyncio, httpx, json, sys
async def main(url, path, in_flight):
    bodies = iter([json.loads(line) for line in open(path)])
    texts = []
    limits = httpx.Limits(max_connections=in_flight, max_keepalive_connections=in_flight)
    async with httpx.AsyncClient(limits=limits, timeout=None) as client:
        async def work():
            for body in bodies:
                reply = await client.post(url + "/chat/completions", json=body)
                texts.append(reply.json()["choices"][0]["message"]["content"])
        await asyncio.gather(*(work() for _ in range(in_flight)))
    print(len(texts))
asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""

CURATOR = """
import json, os, sys
os.environ |= {"TELEMETRY_ENABLED": "false", "CURATOR_DISABLE_CACHE": "1", "CURATOR_DISABLE_RICH_DISPLAY": "1"}
import tiktoken, types
# its vocabulary is on a network that this machine may not have; counting words is cheaper
words = types.SimpleNamespace(encode=lambda text, **options: text.split())
tiktoken.get_encoding = tiktoken.encoding_for_model = lambda name: words
from bespokelabs import curator
prompts = [json.loads(line)["messages"][0]["content"] for line in open(sys.argv[2])]
llm = curator.LLM(
    model_name="m", backend="openai",
    backend_params={"base_url": sys.argv[1], "api_key": "none", "max_requests_per_minute": 10**7,
        "max_tokens_per_minute": 10**9, "max_concurrent_requests": int(sys.argv[3])},
    generation_params={"temperature": 0.6, "max_tokens": 256},
)
found = llm([f"{prompt} ({number})" for number, prompt in enumerate(prompts)])
print(len(getattr(found, "dataset", found)))
"""

DISTILABEL = """
import json, sys
from distilabel.models import OpenAILLM
prompts = [json.loads(line)["messages"][0]["content"] for line in open(sys.argv[2])]
llm = OpenAILLM(model="m", base_url=sys.argv[1], api_key="none", generation_kwargs={"max_new_tokens": 256})
llm.load()
done, size = 0, int(sys.argv[3])
for start in range(0, len(prompts), size):
    inputs = [[{"role": "user", "content": prompt}] for prompt in prompts[start : start + size]]
    done += len(llm.generate_outputs(inputs=inputs, max_new_tokens=256, temperature=0.6))
print(done)
"""
PEERS = {"curator": CURATOR, "distilabel": DISTILABEL}


def memory(field: str) -> int:
    """A figure of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def question(number: int) -> str:
    return f"What is {number} plus {number % 97}? {MEANT}"


def reply(body: bytes) -> bytes:
    """The JSON of an answer of some 100 tokens, right for two of three questions."""
    messages = json.loads(body)["messages"]  # none where a client asks for rate limits first
    number = int(messages[-1]["content"].split()[2]) if messages else 0
    result = number + number % 97 + (number % 3 == 0)
    text = f"We add {number} and {number % 97}. " + "First the ones, then the tens, with what is carried over. " * 6
    message = {"role": "assistant", "content": f"{text}So it is \\boxed{{{result}}}."}
    usage = {"prompt_tokens": 30, "completion_tokens": 100, "total_tokens": 130}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    return json.dumps(
        {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    ).encode()


class Instant(asyncio.Protocol):
    """HTTP/1.1 as far as clients need it: a body with its length in, an answer out, the connection stays open."""

    def connection_made(self, transport: Any) -> None:
        self.transport, self.data = transport, b""

    def data_received(self, data: bytes) -> None:
        self.data += data
        while (end := self.data.find(b"\r\n\r\n")) >= 0:
            head = self.data[:end].lower()
            length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")), 0)
            if len(self.data) < end + 4 + length:
                return
            body, self.data = self.data[end + 4 : end + 4 + length], self.data[end + 4 + length :]
            said = reply(body) if length else b'{"data": [{"id": "m"}]}'
            answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(said)
            self.transport.write(answer + said)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Instant, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def server() -> Iterator[str]:
    process = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.kill()
        process.wait()


def recipe(folder: Path, url: str, answers: int) -> Path:
    questions(folder, answers)
    values = {
        "name": "bench",
        "namespace": "local",
        "until": "generate",
        "score": {"learnability": "none", "alpha": 0.0},
        "teachers": [{"name": name, "model": name} for name in TEACHERS],
        "students": [{"name": "s"}],
        "strategies": [{"kind": "strong", "teacher": "m"}],
        "prompts": {
            "path": "./questions.jsonl",
            "columns": {"prompt": "question", "reference": "answer"},
            "calibration": answers // SAMPLES // len(TEACHERS),
            "dev": 0,
        },
        "generate": settings(url),
    }
    (folder / "bench.yaml").write_text(json.dumps(values))
    return folder / "bench.yaml"


def generate(url: str, path: str) -> None:
    """Run the stage on a file of questions, and print how many answers there are, right ones and unjudged ones."""
    from persyn_hf.recipe.roles import Teacher
    from persyn_hf.recipe.strict import read_section
    from persyn_hf.schemas import PROMPTS, prompt_id
    from persyn_hf.stage import Context
    from persyn_hf.stages import generate as stage

    rows: list[dict[str, Any]] = []
    for line in Path(path).read_text().splitlines():
        row = json.loads(line)
        messages = [{"role": "user", "content": row["question"]}]
        about = {"reference": row["answer"], "source": "bench", "topic": None, "split": "pool"}
        rows.append({"prompt_id": prompt_id(messages), "messages": messages, **about})
    prompts = PROMPTS.dataset(rows)
    cells = [{"prompt_id": row["prompt_id"], "teacher": name} for row in rows for name in TEACHERS]
    context = Context(
        seed=0,
        work_dir=Path(path).parent,
        recipe="local/bench",
        teachers=tuple(Teacher(name=name, model=name) for name in TEACHERS),
    )
    assignments = type(prompts).from_list(cells)
    how = read_section(stage.Settings, settings(url), "generate")
    result = stage.run(how, context, prompts=prompts, assignments=assignments)
    print(*(result.counts[name] for name in ("answered", "correct", "unjudged")))


def settings(url: str) -> dict[str, Any]:
    return {
        "engine": "server",
        "samples": SAMPLES,
        "max_tokens": MAX_TOKENS,
        "server": {"urls": [url], "concurrency": IN_FLIGHT, "max_concurrency": IN_FLIGHT},
    }


def questions(folder: Path, answers: int) -> Path:
    numbers = range(answers // SAMPLES // len(TEACHERS))
    rows = [{"question": question(number), "answer": str(number + number % 97)} for number in numbers]
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def check(found: tuple[int, ...], answers: int) -> None:
    right = sum(SAMPLES * len(TEACHERS) for number in range(answers // SAMPLES // len(TEACHERS)) if number % 3)
    if found != (answers, right, 0):
        raise RuntimeError(f"{answers} answers, {right} right ones and 0 unjudged should be there, found {found}")


def run_ours(url: str, answers: int) -> float:
    """Seconds of the stage; checks that all is answered and graded."""
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, __file__, "--generate", url, str(questions(Path(name), answers))]
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, env={"HF_HUB_OFFLINE": "1"} | os.environ)
        seconds = time.perf_counter() - started
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        check(tuple(map(int, done.stdout.split()[-3:])), answers)
        return seconds


def run_recipe(url: str, answers: int) -> float:
    """Seconds of `persyn run`; checks that all is answered and graded."""
    from persyn_hf.store.local import Store

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = str(recipe(folder, url, answers))
        command = [sys.executable, "-m", "persyn_hf.cli", "run", path, "--store", str(folder / "store")]
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, env={"HF_HUB_OFFLINE": "1"} | os.environ)
        seconds = time.perf_counter() - started
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        counts = Store(folder / "store").get("local/bench-responses@v1").manifest.counts
        check((counts["answered"], counts["correct"], counts["unjudged"]), answers)
        return seconds


def run_program(python: str, program: str, url: str, answers: int) -> float:
    """Seconds of another program; it gets url, a file of bodies and the number in flight, and prints its answers."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "bodies.jsonl"
        fixed = {"model": "m", "temperature": 0.6, "max_tokens": MAX_TOKENS}
        asked = [question(number // SAMPLES // len(TEACHERS)) for number in range(answers)]
        bodies = [
            {**fixed, "seed": number, "messages": [{"role": "user", "content": text}]}
            for number, text in enumerate(asked)
        ]
        path.write_text("".join(json.dumps(body) + "\n" for body in bodies))
        command = [python, "-c", program, url, str(path), str(IN_FLIGHT)]
        started = time.perf_counter()
        done = subprocess.run(command, check=True, capture_output=True, text=True, env={"HOME": name} | os.environ)
        seconds = time.perf_counter() - started
        if int(done.stdout.split()[-1]) != answers:
            raise RuntimeError(f"{answers} answers should be there: {done.stdout[-1000:]}")
        return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--answers", type=int, default=6000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--generate", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.generate:
        generate(*args.generate)
        return 0
    if args.serve:
        asyncio.run(serve())
        return 0
    peers = dict(peer.split("=", 1) for peer in args.peer)
    rates: dict[str, list[float]] = {}
    with server() as url:
        for _ in range(args.runs):
            sides = {
                "ours": run_ours(url, args.answers),
                "plain": run_program(sys.executable, PLAIN, url, args.answers),
                "persyn run": run_recipe(url, args.answers),
            }
            sides |= {name: run_program(python, PEERS[name], url, args.answers) for name, python in peers.items()}
            for side, seconds in sides.items():
                rates.setdefault(side, []).append(args.answers / seconds)
                print(f"{side}: {args.answers} answers in {seconds:.1f} s, {args.answers / seconds:.0f}/s", flush=True)
    medians = {side: statistics.median(found) for side, found in rates.items()}
    print(", ".join(f"{side} {rate:.0f}/s" for side, rate in medians.items()))
    ratio = medians["ours"] / medians["plain"]
    print(f"server ratio={ratio:.2f} need={NEED}")
    return int(ratio < NEED)


if __name__ == "__main__":
    sys.exit(main())
