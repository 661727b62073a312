"""`persyn run` with a judge: planned, killed, run again, with another alpha and another student, within a limit."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from openai_server import OpenAIServer, Response, completion
from rows import write_lines

from persyn_hf.cli.main import main
from persyn_hf.forecast.judges import Verdicts
from persyn_hf.forecast.outlook import look_ahead
from persyn_hf.recipe.file import load_recipe
from persyn_hf.runner.run import look_up
from persyn_hf.store.local import Store


pytestmark = pytest.mark.heavy

TEACHERS = ("a", "b", "c")
NUMBER = 14  # prompts, each answered by every teacher


def by_length(text: str, times: int) -> Response:
    """A judge that likes long answers."""
    answer = text.split("<answer>\n")[1].split("\n</answer>")[0]
    return Response(body=completion(json.dumps({"reason": "length", "score": min(10, len(answer))})))


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(by_length, models=("gpt",)) as running:
        yield running


@pytest.fixture
def recipe(tmp_path: Path, server: OpenAIServer, zoo: Path) -> Path:
    questions = [f"Say something about {number}." for number in range(NUMBER)]
    write_lines(tmp_path / "q.jsonl", [{"question": question} for question in questions])
    rows = [
        {"prompt": question, "teacher": teacher, "response": f"{'so ' * place}{number}"}
        for number, question in enumerate(questions)
        for place, teacher in enumerate(TEACHERS)
    ]
    write_lines(tmp_path / "r.jsonl", rows)
    values: dict[str, Any] = {
        "name": "judged",
        "until": "score",
        "teachers": [{"name": name, "family": "gpt" if name == "a" else name} for name in TEACHERS],
        "students": [{"name": "s"}],
        "strategies": ["persyn"],
        "prompts": {"path": "./q.jsonl", "columns": {"prompt": "question"}, "calibration": 10, "dev": 4},
        "generate": {"engine": "import", "path": "./r.jsonl", "verify": "none"},
        "score": {
            "quality": "judge",
            "learnability": "none",
            "alpha": 0,
            "judge": {
                "model": "gpt",
                "family": "gpt",
                "price": {"completion": 2},
                "server": {"urls": [server.url], "concurrency": 1, "max_concurrency": 1},
            },
        },
    }
    path = tmp_path / "judged.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def command(recipe: Path, *more: str) -> list[str]:
    return ["run", str(recipe), "--store", str(recipe.parent / "store"), *more]


def journalled(recipe: Path) -> int:
    with closing(sqlite3.connect(recipe.parent / "store/.persyn/journal.sqlite")) as db:
        return int(db.execute("SELECT count(*) FROM answers").fetchone()[0])


def foreseen(recipe: Path, *sets: str) -> Verdicts:
    read, store = load_recipe(recipe, sets), Store(recipe.parent / "store")
    (found,) = look_ahead(read, look_up(read, store), store).verdicts
    return found


def test_a_killed_run_asks_nothing_twice_and_a_plan_knows_what_is_left(
    recipe: Path, server: OpenAIServer, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = NUMBER * len(TEACHERS)
    before = foreseen(recipe)
    assert (before.journalled, before.certain, before.at_most) == (0, 0, whole)
    assert before.money == pytest.approx(whole * 1024 * 2 / 1e6)
    victim: list[subprocess.Popen[bytes]] = []

    def kill(text: str, times: int) -> Response:
        if len(server.bodies) == 20:
            victim[0].send_signal(signal.SIGKILL)
            victim[0].wait()
        return by_length(text, times)

    server.behaviour = kill
    arguments = [sys.executable, "-m", "persyn_hf.cli", *command(recipe)]
    victim.append(subprocess.Popen(arguments, stderr=subprocess.DEVNULL, env=os.environ))
    assert victim[0].wait(timeout=120) == -signal.SIGKILL
    kept = journalled(recipe)
    assert kept == 19, "each reply is written before the next question goes out"
    server.behaviour = by_length
    server.bodies.clear()
    left = foreseen(recipe)
    assert (left.journalled, left.certain, left.at_most) == (kept, whole - kept, whole - kept)
    assert main(["plan", str(recipe), "--store", str(recipe.parent / "store"), "--no-checks"]) == 0
    shown = capsys.readouterr().out
    assert "Verdicts that `persyn run` will pay judges for" in shown
    assert main(command(recipe)) == 0
    assert len(server.bodies) == whole - kept
    server.bodies.clear()
    for more in ("score.normalisation=rank", "students=[{name: s}, {name: other}]"):
        assert main(command(recipe, "--set", more)) == 0
    assert main(["plan", str(recipe), "--store", str(recipe.parent / "store")]) == 0
    assert not server.bodies, "another normalisation and another student ask nothing"
    for file in (recipe.parent / "store").rglob("*"):
        assert not file.is_file() or "journal" in file.name or str(server.port).encode() not in file.read_bytes(), file
    capsys.readouterr()
    assert main(["status", "--store", str(recipe.parent / "store")]) == 0
    assert "judge gpt" in capsys.readouterr().out
    assert main(["report", str(recipe), "--store", str(recipe.parent / "store"), "--out", str(recipe.parent)]) == 0
    report = (recipe.parent / "report.md").read_text()
    assert "| gpt | 42 |" in report
    assert "| judge gpt | 42 |" in report
    (recipe.parent / "store/.persyn/journal.sqlite").unlink()
    assert main(command(recipe, "--set", "score.judge.samples=2", "--set", "score.judge.temperature=1")) == 2
    assert "has paid for 23 answers or more" in capsys.readouterr().err
    assert not server.bodies


def test_errors_are_asked_again_with_those_of_teachers(recipe: Path, server: OpenAIServer) -> None:
    def out_of_luck(text: str, times: int) -> Response:
        return (
            Response(status=400, body={"error": {"message": "out of luck"}}) if "so 7" in text else by_length(text, 1)
        )

    server.behaviour = out_of_luck
    assert main(command(recipe)) == 0
    asked = len(server.bodies)
    server.behaviour = by_length
    assert main(command(recipe, "--rerun", "errors")) == 0
    assert len(server.bodies) == asked + 2


def test_what_cannot_work_is_refused_and_a_relative_is_warned_of(
    recipe: Path, server: OpenAIServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*sets: str) -> str:
        assert main(command(recipe, *(part for text in sets for part in ("--set", text)))) == 2
        return capsys.readouterr().err

    assert "`server: {urls: [http://HOST:PORT/v1]}`" in fails("score.judge.server.urls=[]")
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    assert "`score.judge.server.api_key_env` names the environment variable NO_SUCH_KEY" in fails(
        "score.judge.server.api_key_env=NO_SUCH_KEY"
    )
    assert "`prompts.columns` names no column for them" in fails("score.judge.rubric=correctness")
    (recipe.parent / "my.yaml").write_text("criteria: be good\n")
    assert "does not say its scale" in fails(f"score.judge.rubric={recipe.parent / 'my.yaml'}")
    assert main(command(recipe, "--max-cost", "1", "--set", "score.judge.price=null")) == 2
    assert "--max-cost needs the price of every teacher and judge, judge gpt have none" in capsys.readouterr().err
    assert not server.bodies
    room = 1024 * 2 / 1e6  # the most that one reply can cost; one of 3 tokens costs 6e-6
    assert main(command(recipe, "--max-cost", str(room + 5 * 6e-6))) == 3
    told = capsys.readouterr()
    assert "the judge gpt and the teacher a are of one family" in told.out
    assert "this recipe has spent 3.6e-05, the next batch of `judge gpt` may cost up to 0.002048" in told.err
    assert len(server.bodies) == 6
    assert main(command(recipe, "--max-cost", "1")) == 0
    assert len(server.bodies) == NUMBER * len(TEACHERS)
    card = Path(Store(recipe.parent / "store").get("local/judged-rewards-s@v1").path, "README.md").read_text()
    assert "| judge gpt | 42 |" in card
    assert "| gpt | 42 |" in card
    assert "helpfulness.yaml" in card
