"""LiveBench killed, its server dead, its scripts broken: what is answered is kept, and each fault is told."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from livebench_clone import SAID, TASKS, Watch, make_bench, make_clone, run, student
from openai_server import OpenAIServer, Response, completion

from persyn_hf.errors import EngineError, InputError


pytestmark = pytest.mark.heavy


DRIVER = """
import sys, time
from contextlib import nullcontext
from pathlib import Path
from persyn_hf.backends.harness.livebench_scripts import LiveBench, LiveBenchSettings
from persyn_hf.stage import Silent
path, folder, url = sys.argv[1:]
settings = LiveBenchSettings(path=path, python=sys.executable, max_tokens=40)
bench = LiveBench(settings=settings, folder=Path(folder), progress=Silent())
bench.prepare()
bench.answer(lambda: nullcontext(url), 1, starts=1)
bench.judge()
"""


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    """Killed after four answers: the script goes too, a line that is cut does no harm, no answer is asked again."""

    def slow(text: str, times: int) -> Response:
        return Response(body=completion(SAID.get(text) or "what?"), seconds=0.3)

    bench = make_bench(tmp_path)
    with OpenAIServer(slow) as server:
        command = [sys.executable, "-c", DRIVER, str(bench.scripts), str(bench.folder), server.url]
        process = subprocess.Popen(command, start_new_session=True)
        wait_for(lambda: len(server.bodies) == 5)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(1)
        asked = dict(server.times)
        assert sum(asked.values()) <= 6, "the script went on without its parent"
        (answers,) = [file for file in bench.folder.glob("data/*/*/*/model_answer/*.jsonl") if "AMPS" in str(file)]
        kept = [json.loads(line)["question_id"] for line in answers.read_text().splitlines()]
        with answers.open("a") as file:
            file.write('{"question_id": "8", "choices": [{"ind')
        watch = Watch()
        line = run(make_bench(tmp_path, watch), server, workers=1)
        assert line["unjudged"] == 1, "the one that LiveBench does not judge"
        prompts = {question["question_id"]: question["turns"][0] for question in TASKS["math/AMPS_Hard"]}
        assert kept and all(server.times[prompts[number]] == 1 for number in kept)
        assert watch.begun[0][2] >= len(kept)
        again = sum(server.times.values())
        assert run(make_bench(tmp_path), server) == line
        assert sum(server.times.values()) == again


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_another_server_where_one_has_died(tmp_path: Path) -> None:
    """The first two die at their third question; a fourth would have been too many."""
    servers: list[OpenAIServer] = []

    @contextmanager
    def open_server(deaths: int) -> Iterator[str]:
        with OpenAIServer() as server:
            servers.append(server)
            number = len(servers)
            server.behaviour = lambda text, times: die(server) if number <= deaths else Response()
            yield server.url

    def die(server: OpenAIServer) -> Response:
        if len(server.bodies) < 3:
            return Response()
        server._http.socket.close()  # nobody is let in any more
        return Response(cut=True)

    bench = make_bench(tmp_path)
    bench.prepare()
    with pytest.raises(EngineError) as error:
        bench.answer(lambda: open_server(2), 1, starts=1)
    assert str(error.value) == (
        "the student's server died as it answered LiveBench and `evaluate.vllm.max_restarts` (0) is used up; mend "
        f"what its log in {tmp_path}/work says and run again, what it has answered is kept"
    )
    bench.answer(lambda: open_server(2), 1, starts=2)
    assert [len(server.times) for server in servers] == [3, 3, 5], "9 questions, of which each of two died at one"
    assert all(item.prediction == "ok" for item in bench.items().values())


def refusal(tmp_path: Path, **settings: Any) -> str:
    with (
        OpenAIServer(lambda text, times: Response(status=400, body={})) as server,
        pytest.raises((InputError, EngineError)) as error,
    ):
        run(make_bench(tmp_path, **settings), server)
    return str(error.value)


def test_faults_before_any_question(tmp_path: Path) -> None:
    scripts = make_clone(tmp_path / "clone", TASKS)
    assert refusal(tmp_path, path=str(tmp_path)) == (
        f"`evaluate.livebench.path`: {tmp_path} has no gen_api_answer.py; it must be the folder `livebench` of a "
        "clone of https://github.com/LiveBench/LiveBench"
    )
    assert refusal(tmp_path, python=None) == (
        f"LiveBench has no Python: {tmp_path}/clone/.venv/bin/python does not exist; make one in its clone (python -m "
        "venv .venv; .venv/bin/pip install -e .), or name another by its absolute path: `evaluate.livebench.python`"
    )
    assert refusal(tmp_path, categories=["math", "coding"]) == (
        f"{scripts}/data/live_bench/coding has no questions of the release 2024-11-25; fetch them in the folder "
        "`livebench` of the clone: python download_questions.py"
    )
    assert refusal(tmp_path, release="2024-11-26") == (
        f"`evaluate.livebench.release`: the clone {scripts} knows no release 2024-11-26, did you mean `2024-11-25`? "
        "(known: 2024-06-24, 2024-08-31, 2024-11-25, 2025-04-02)"
    )
    (scripts / "releases.py").write_text("import shortuuid_of_nowhere\n")
    assert refusal(tmp_path) == (
        f"LiveBench's gen_api_answer.py does not start under {sys.executable}; install what it needs (pip install -e "
        ". in the clone), or mend what it says:\n    ModuleNotFoundError: No module named 'shortuuid_of_nowhere'"
    )


@pytest.mark.parametrize("script", ["gen_api_answer.py", "gen_ground_truth_judgment.py"])
def test_a_script_that_fails(tmp_path: Path, script: str) -> None:
    bench = make_bench(tmp_path)
    (bench.scripts / "broken").write_text(script)
    with OpenAIServer(student) as server, pytest.raises(EngineError) as error:
        run(bench, server)
    assert str(error.value) == (
        f"LiveBench's {script} ended with status 1; mend what its log {bench.log} says and run again, what it has "
        "done is kept:\n    Question 17 is at hand\n    RuntimeError: the disk is full"
    )
    (bench.scripts / "broken").unlink()
    with OpenAIServer(student) as server:
        assert run(bench, server)["accuracy"] == pytest.approx(5 / 8)
        assert (server.times["two"] == 0) == (script != "gen_api_answer.py")


def test_a_server_that_answers_nothing(tmp_path: Path) -> None:
    assert refusal(tmp_path) == (
        "the student's server answered none of LiveBench's questions: HTTP Error 400: Bad Request; "
        f"see {tmp_path}/work/livebench/livebench.log"
    )
