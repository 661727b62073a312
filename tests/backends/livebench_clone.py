"""A folder that stands for a clone of LiveBench, with its command lines and files, and what is asked of it.

Answers are right where they are the ground truth, half right where they hold it; a ground truth of "?" gets no
judgment. A file `livebench/broken` breaks the script that it names.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openai_server import OpenAIServer, Response, completion

from persyn_hf.backends.harness.livebench import summarise
from persyn_hf.backends.harness.livebench_scripts import LiveBench, LiveBenchSettings
from persyn_hf.recipe.strict import read_section
from persyn_hf.stage import Silent


COMMON = """
import argparse, glob, json, os, pathlib, sys, time, urllib.request, uuid
from concurrent.futures import ThreadPoolExecutor

import livebench.releases

parser = argparse.ArgumentParser()
for name in ("--api-base", "--model", "--question-source"):
    parser.add_argument(name)
for name in ("--max-tokens", "--question-begin", "--question-end", "--parallel"):
    parser.add_argument(name, type=int)
parser.add_argument("--force-temperature", type=float)
parser.add_argument("--bench-name", nargs="+")
parser.add_argument("--livebench-release-option", choices=sorted(livebench.releases.RELEASES))
for name in ("--resume", "--retry-failures", "--ignore-missing-answers"):
    parser.add_argument(name, action="store_true")
args = parser.parse_args()
broken = pathlib.Path(__file__).with_name("broken")
if broken.exists() and broken.read_text() == pathlib.Path(__file__).name:
    print("Question 17 is at hand")
    raise RuntimeError("the disk is full")
pathlib.Path("environment.json").write_text(json.dumps(dict(os.environ)))
(bench,) = args.bench_name
release = args.livebench_release_option
assert args.question_source == "jsonl" and args.resume


def rows(path):
    return [json.loads(line) for line in open(path)] if os.path.exists(path) else []


def questions():
    for path in glob.glob(f"data/{bench}/**/question.jsonl", recursive=True):
        found = [row for row in rows(path) if row["livebench_release_date"] <= release]
        found = [row for row in found if not row["livebench_removal_date"] or row["livebench_removal_date"] > release]
        for row in found[args.question_begin : args.question_end]:
            yield os.path.dirname(path), row


def write(path, row):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "a") as file:
        file.write(json.dumps(row) + "\\n")
"""

ASK = (
    COMMON
    + """

def ask(prompt):
    body = {
        "model": args.model, "temperature": args.force_temperature, "max_tokens": args.max_tokens,
        "messages": [{"role": "user", "content": prompt}],
    }
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"{args.api_base}/chat/completions", json.dumps(body).encode(), headers)
    try:
        found = json.load(urllib.request.urlopen(request))
    except OSError as error:
        return "$ERROR$", 0, str(error)
    text = found["choices"][0]["message"]["content"]
    return (text, found["usage"]["completion_tokens"], None) if text else ("$ERROR$", 0, "No message returned from")


def answer(both):
    folder, question = both
    text, tokens, error = ask(question["turns"][0])
    row = {
        "question_id": question["question_id"], "answer_id": uuid.uuid4().hex, "model_id": args.model,
        "choices": [{"index": 0, "turns": [text]}], "total_output_tokens": tokens,
    }
    if error:
        row |= {"error": "HTTPError", "error_msg": error, "eval_status": "api_error"}
    write(f"{folder}/model_answer/{args.model}.jsonl", row)


wanted = []
for folder, question in questions():
    known = {row["question_id"]: row for row in rows(f"{folder}/model_answer/{args.model}.jsonl")}
    row = known.get(question["question_id"])
    if row is None or (args.retry_failures and row["choices"][0]["turns"][0] == "$ERROR$"):
        wanted.append((folder, question))
with ThreadPoolExecutor(args.parallel) as pool:
    list(pool.map(answer, wanted))
"""
)

JUDGE = (
    COMMON
    + """
for folder, question in questions():
    output = f"{folder}/model_judgment/ground_truth_judgment.jsonl"
    judged = {row["answer_id"] for row in rows(output)}
    for row in rows(f"{folder}/model_answer/{args.model}.jsonl"):
        if row["question_id"] != question["question_id"] or row["answer_id"] in judged:
            continue
        text, truth = row["choices"][0]["turns"][-1], question["ground_truth"]
        score = 1 if text == truth else 0.5 if truth in text else 0
        if truth != "?":
            row = {"question_id": row["question_id"], "answer_id": row["answer_id"], "model": args.model}
            row |= {"score": score}
            write(output, row | {"task": question["task"], "category": question["category"], "tstamp": time.time()})
"""
)


def make_clone(folder: Path, tasks: Mapping[str, Sequence[Mapping[str, Any]]]) -> Path:
    """The folder `livebench` of the clone. `tasks`: category/task -> questions."""
    scripts = folder / "livebench"
    scripts.mkdir(parents=True)
    for name, text in (("gen_api_answer.py", ASK), ("gen_ground_truth_judgment.py", JUDGE), ("__init__.py", "")):
        (scripts / name).write_text(text)
    (scripts / "releases.py").write_text('RELEASES = {"2024-06-24", "2024-08-31", "2024-11-25", "2025-04-02"}\n')
    for name, questions in tasks.items():
        category, task = name.split("/")
        file = scripts / "data" / "live_bench" / name / "question.jsonl"
        file.parent.mkdir(parents=True)
        more = {"category": category, "task": task}
        file.write_text("".join(json.dumps(dict(question) | more) + "\n" for question in questions))
    return scripts


def make_question(number: str, prompt: str, truth: str, out: str = "2024-06-24", back: str = "") -> dict[str, Any]:
    """A question as LiveBench's download_questions.py writes it."""
    dates = {"livebench_release_date": out, "livebench_removal_date": back}
    return {"question_id": number, "turns": [prompt], "ground_truth": truth, **dates}


TASKS = {
    "math/AMPS_Hard": [
        make_question("1", "two", "2"),
        make_question("2", "three", "3"),
        make_question("3", "four", "4"),
        make_question("4", "refused", "5"),
        make_question("5", "empty", "6"),
        make_question("6", "later", "7", out="2025-04-02"),
        make_question("7", "taken back", "8", back="2024-11-25"),
        make_question("8", "taken back later", "9", back="2025-04-02"),
    ],
    "math/olympiad": [make_question("1", "ten", "10")],
    "language/typos": [make_question("1", "unjudged", "?"), make_question("2", "eleven", "11")],
}
SAID = {"two": "2", "three": "is it 3?", "four": "5", "taken back later": "9", "eleven": "11", "empty": ""}


class Watch(Silent):
    """Progress that remembers."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, int, int]] = []
        self.done = 0

    def start(self, what: str, total: int, done: int = 0) -> None:
        self.begun.append((what, total, done))

    def advance(self, count: int = 1) -> None:
        self.done += count


def student(text: str, times: int) -> Response:
    if text == "refused":
        return Response(status=400, body={"error": {"message": "too long"}})
    return Response(body=completion(SAID.get(text, "what?")))


def make_bench(tmp_path: Path, watch: Watch | None = None, limit: int | None = None, **settings: Any) -> LiveBench:
    path = tmp_path / "clone" / "livebench"
    if not path.exists():
        make_clone(tmp_path / "clone", TASKS)
    values = {"path": str(path), "python": sys.executable, "max_tokens": 40} | settings
    folder = tmp_path / "work" / "livebench"
    read = read_section(LiveBenchSettings, values, "evaluate.livebench")
    return LiveBench(settings=read, folder=folder, limit=limit, progress=watch or Watch())


def run(bench: LiveBench, server: OpenAIServer, workers: int = 4) -> dict[str, Any]:
    @contextmanager
    def open_server() -> Iterator[str]:
        yield server.url

    bench.prepare()
    bench.answer(open_server, workers, starts=2)
    bench.judge()
    return summarise(bench, bench.items())
