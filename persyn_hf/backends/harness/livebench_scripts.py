"""Run the scripts of LiveBench, which ask the student's server and score its answers.

Scripts, questions and the Python that runs them belong to a clone of the user's, which is left as it is. The scripts
work in a folder of the step, so that what they have written is still there when a killed run goes on.
"""

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import cached_property
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from pydantic import Field

from persyn_hf.backends.engines.supervised import Kept
from persyn_hf.backends.engines.vllm_server import HEALTH_S, telling_lines
from persyn_hf.backends.harness import Answered
from persyn_hf.backends.harness.served import SERVED
from persyn_hf.errors import EngineError, InputError
from persyn_hf.recipe.strict import Strict, nearest
from persyn_hf.stage import Progress


DATA = Path("data", "live_bench")
ANSWERS, JUDGMENTS = f"model_answer/{SERVED}.jsonl", "model_judgment/ground_truth_judgment.jsonl"
ASK, JUDGE = "gen_api_answer.py", "gen_ground_truth_judgment.py"
NO_ANSWER = "$ERROR$"  # what LiveBench writes where it got none
EMPTY = "No message returned"  # its error where that was an empty text, which is an answer
RANGE = ["--model", SERVED, "--bench-name", DATA.name, "--question-source", "jsonl", "--resume"]
POLL_S = 0.2
QUOTED = 5  # lines of the log
FRAME = re.compile(r"^[╭│╰].*\n", re.MULTILINE)  # of the tracebacks that it draws
REFUSED = re.compile(r"--livebench-release-option: invalid choice: .* \(choose from (.*)\)")
SECRET = re.compile(r"TOKEN|KEY|SECRET|PASSW", re.IGNORECASE)


class LiveBenchSettings(Strict):
    """The settings of LiveBench: which questions, and where its scripts are."""

    path: str = Field(
        description="The folder `livebench` of a clone, into whose `data` download_questions.py has put the questions."
    )
    python: str | None = Field(
        default=None,
        description="The absolute path of a Python with LiveBench's requirements. Null: that of the clone's .venv.",
    )
    release: str = Field(default="2024-11-25", pattern=r"^\d{4}-\d\d-\d\d$", description="The date of the release.")
    categories: tuple[str, ...] = Field(
        default=(), strict=False, description="The categories to ask: math, reasoning, ... An empty list asks all."
    )
    max_tokens: int = Field(
        default=4096, ge=1, le=100_000_000, description="The tokens of an answer at most. 4,096 is LiveBench's own."
    )


class Question(NamedTuple):
    """One question of the release; its name is category/task/id."""

    name: str
    prompt: str
    reference: str | None


@dataclass(frozen=True, kw_only=True)
class LiveBench:
    """The scripts of a clone, at work in `folder`, on the first `limit` questions of each task (None: all)."""

    settings: LiveBenchSettings
    folder: Path
    limit: int | None = None
    progress: Progress

    @property
    def scripts(self) -> Path:
        """The folder of the scripts in the clone."""
        return Path(self.settings.path)

    @property
    def python(self) -> Path:
        """The Python that runs the scripts."""
        return Path(self.settings.python or self.scripts.parent / ".venv" / "bin" / "python")

    @property
    def log(self) -> Path:
        """The log that the scripts' output is appended to."""
        return self.folder / "livebench.log"

    def prepare(self) -> None:
        """Lay the questions out in the folder and try to start the scripts, to find faults before any work."""
        if not (self.scripts / ASK).is_file():
            raise InputError(
                f"`evaluate.livebench.path`: {self.scripts} has no {ASK}; it must be the folder `livebench` of a "
                "clone of https://github.com/LiveBench/LiveBench"
            )
        if not self.python.is_file():
            raise InputError(
                f"LiveBench has no Python: {self.python} does not exist; make one in its clone (python -m venv .venv; "
                ".venv/bin/pip install -e .), or name another by its absolute path: `evaluate.livebench.python`"
            )
        for source in sorted((self.scripts / DATA).glob("*/*/*.jsonl")):  # questions, and test cases of code
            category, task = source.parts[-3:-1]
            link = self.folder / DATA / category / task / source.name
            if category in (self.settings.categories or [category]) and not link.is_symlink():
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(source.resolve())
        present = {question.name.partition("/")[0] for question in self.questions}
        missing = [category for category in self.settings.categories if category not in present]
        if missing or not present:
            raise InputError(
                f"{self.scripts / DATA.joinpath(*missing[:1])} has no questions of the release "
                f"{self.settings.release}; fetch them in the folder `livebench` of the clone: "
                "python download_questions.py"
            )
        for script in (ASK, JUDGE):
            self._start(script)

    @cached_property
    def questions(self) -> list[Question]:
        """The questions of the release by LiveBench's rule: published by then, and not removed."""
        questions, release = [], self.settings.release
        for file in sorted((self.folder / DATA).glob("*/*/question.jsonl")):
            rows = [row for _, row in _lines(file) if str(row.get("livebench_release_date"))[:10] <= release]
            rows = [row for row in rows if not "" < str(row.get("livebench_removal_date") or "")[:10] <= release]
            for row in rows[: self.limit]:
                name = "/".join([*file.parts[-3:-1], str(row["question_id"])])
                reference = row.get("ground_truth")
                questions.append(
                    Question(name, "\n\n".join(row["turns"]), None if reference is None else str(reference))
                )
        return questions

    def answer(self, open_server: Callable[[], AbstractContextManager[str]], workers: int, starts: int) -> None:
        """Have the remaining questions answered; `open_server` gives the url of a server of the student.

        The scripts note a question at which the server failed and go on. A server that has died is started again, up
        to `starts` times in all. A question that a running server has refused stays without an answer.
        """
        options = ["--parallel", str(workers), "--max-tokens", str(self.settings.max_tokens)]
        options += ["--force-temperature", "0", "--retry-failures"]
        for _ in range(starts):
            if len(self._answers()) == len(self.questions):
                return
            with open_server() as url:
                self._work(ASK, ANSWERS, ["--api-base", url, *options], "answering")
                if _is_up(url):
                    break
        else:
            if len(self._answers()) < len(self.questions):
                raise EngineError(
                    "the student's server died as it answered LiveBench and `evaluate.vllm.max_restarts` "
                    f"({starts - 1}) is used up; mend what its log in {self.folder.parent} says and run again, what "
                    "it has answered is kept"
                )
        if not self._answers():
            reasons = [row["error_msg"] for row in self._read(ANSWERS).values() if row.get("error_msg")]
            raise EngineError(
                f"the student's server answered none of LiveBench's questions: "
                f"{(reasons or ['no reason is told'])[0]}; see {self.log}"
            )

    def judge(self) -> None:
        """Have the remaining answers scored."""
        self._work(JUDGE, JUDGMENTS, ["--ignore-missing-answers"], "scoring")

    def items(self) -> dict[str, Answered]:
        """Return every question by its name; one without an answer, or without a score of it, is not judged."""
        answers, judgments = self._answers(), self._read(JUDGMENTS)
        scores = {name: judgments[name]["score"] for name in answers if name in judgments}
        return {
            question.name: Answered(
                prompt=question.prompt,
                reference=question.reference,
                prediction=_text(answers[question.name]) if question.name in answers else "",
                score=float(scores[question.name]) if scores.get(question.name, -1) != -1 else None,
            )
            for question in self.questions
        }

    def lengths(self) -> list[int]:
        """Return the tokens of each answer, as the server has counted them."""
        return [row.get("total_output_tokens") or 0 for row in self._answers().values()]

    def _read(self, name: str) -> dict[str, dict[str, Any]]:
        """Read what a script has written about the questions, by name; of several lines, the last counts."""
        rows = {}
        for file in sorted((self.folder / DATA).glob(f"*/*/{name}")):
            for _, row in _lines(file):
                rows["/".join([*file.relative_to(self.folder / DATA).parts[:2], str(row["question_id"])])] = row
        return {question.name: rows[question.name] for question in self.questions if question.name in rows}

    def _answers(self) -> dict[str, dict[str, Any]]:
        return {name: row for name, row in self._read(ANSWERS).items() if _is_answer(row)}

    def _work(self, script: str, output: str, options: Sequence[str], doing: str) -> None:
        """Run a script over the questions until it ends; what it has written before is kept."""
        files = [file.parent / output for file in (self.folder / DATA).glob("*/*/question.jsonl")]
        for file in files:
            if file.is_file():  # a line that a kill has cut would stop the script
                file.write_text("".join(line for line, _ in _lines(file)), encoding="utf-8")
        done = len(self._read(output))
        self.progress.start(f"{doing} livebench", total=len(self.questions), done=done)

        def tick() -> None:
            nonlocal done
            now = min(len(self.questions), sum(file.read_bytes().count(b"\n") for file in files if file.is_file()))
            if now > done:
                self.progress.advance(now - done)
                done = now

        limited = [] if self.limit is None else ["--question-begin", "0", "--question-end", str(self.limit)]
        options = [*RANGE, *limited, "--livebench-release-option", self.settings.release, *options]
        status, said = self._run(script, options, tick)
        if status:
            raise EngineError(
                f"LiveBench's {script} ended with status {status}; mend what its log {self.log} says and run again, "
                f"what it has done is kept:{said}"
            )

    def _start(self, script: str) -> None:
        status, said = self._run(script, ["--livebench-release-option", self.settings.release, "--help"])
        refused = REFUSED.search(said)
        if refused:
            releases = sorted(re.findall(r"[\d-]{10}", refused[1]))
            raise InputError(
                f"`evaluate.livebench.release`: the clone {self.scripts} knows no release "
                f"{self.settings.release}{nearest(self.settings.release, releases)}"
            )
        if status:
            raise InputError(
                f"LiveBench's {script} does not start under {self.python}; install what it needs (pip install -e . in "
                f"the clone), or mend what it says:{said}"
            )

    def _run(self, script: str, options: Sequence[str], tick: Callable[[], None] | None = None) -> tuple[int, str]:
        """Run a script and return its exit status and its last words; `tick` is called now and then while it runs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        begin = self.log.stat().st_size if self.log.exists() else 0
        place = ["sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", str(self.folder)]  # where it reads and writes data
        command = [*place, str(self.python), str(self.scripts / script), *options]
        kept = Kept(command, environment=self._environment(), log=self.log)
        try:
            while (status := kept.poll()) is None:
                time.sleep(POLL_S)
                if tick:
                    tick()
        finally:
            kept.stop()
        with self.log.open("rb") as file:
            file.seek(begin)
            said = FRAME.sub("", file.read().decode(errors="replace"))
        return status, "".join(f"\n    {line}" for line in telling_lines(said)[-QUOTED:])

    def _environment(self) -> dict[str, str]:
        """Make the scripts' environment: no secrets, as coding tasks run the student's code, and no proxy to us."""
        ours = {name: value for name, value in os.environ.items() if not SECRET.search(name)}
        direct = ",".join([*filter(None, [ours.get("no_proxy") or ours.get("NO_PROXY")]), "127.0.0.1"])
        paths = os.pathsep.join([str(self.python.parent), ours.get("PATH", os.defpath)])
        ours |= {"PATH": paths, "PYTHONPATH": str(self.scripts.parent), "no_proxy": direct, "NO_PROXY": direct}
        return {name: value for name, value in ours.items() if name != "PYTHONSAFEPATH"} | {
            "COLUMNS": "200",  # of the messages that it draws
            "PYTHONDONTWRITEBYTECODE": "1",  # the clone stays as it is: its content is in the fingerprint
        }


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the whole lines of a JSONL file, and what they hold."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            with suppress(ValueError):
                yield line.rstrip("\n") + "\n", json.loads(line)


def _text(answer: Mapping[str, Any]) -> str:
    text = str(answer["choices"][0]["turns"][-1])
    return "" if text == NO_ANSWER else text


def _is_up(url: str) -> bool:
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=HEALTH_S)
    try:
        connection.request("GET", f"{parts.path}/models")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _is_answer(row: Mapping[str, Any]) -> bool:
    turns = row["choices"][0]["turns"]
    return NO_ANSWER not in (turns, turns[-1]) or EMPTY in row.get("error_msg", "")
