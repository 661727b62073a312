"""`persyn init` at a terminal: it asks for what it cannot tell, asks again for what is wrong, and can be left."""

import fcntl
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from rows import sums, write_lines

from persyn_hf.recipe.file import load_recipe
from persyn_hf.runner.plan import make_plan


pytestmark = pytest.mark.heavy  # each turn starts a process at a terminal


TEACHERS = "persyn:tiny/zoo/qwen-gen,persyn:tiny/zoo/mistral-eq"
STUDENT = "persyn:tiny/zoo/qwen-student"
FILE, KIND, MODELS, ENGINE = "the file of your prompts", "what is in it", "the teachers, by", "where teachers run"
THE_STUDENT = "the model of the student"
REST = [(MODELS, TEACHERS), (THE_STUDENT, STUDENT), (ENGINE, "")]
PROMPTS, REFERENCES = "which column holds the prompts", "which column holds the answers to check by"
CTRL_C, CTRL_D = "\x03", "\x04"


def talk(folder: Path, *turns: tuple[str, str], options: tuple[str, ...] = ()) -> tuple[int, str]:
    """Sit at a terminal: wait for each question and type its answer; return the exit code and what was shown."""
    above, below = pty.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C is a signal
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # what runs in the background of a script ignores it

    command = [sys.executable, "-m", "persyn_hf.cli", "init", *options]
    started = subprocess.Popen(
        command, cwd=folder, stdin=below, stdout=below, stderr=below, start_new_session=True, preexec_fn=take_terminal
    )
    os.close(below)
    shown, read, until = "", 0, time.monotonic() + 140
    left = list(turns)
    while time.monotonic() < until:
        if left and left[0][0] in shown[read:] and shown.endswith(": "):
            answer = left.pop(0)[1]
            while not is_asleep(started.pid):  # till it reads: Python misses a signal that comes just before
                time.sleep(0.01)
            os.write(above, answer.encode() if answer in (CTRL_C, CTRL_D) else f"{answer}\n".encode())
            read = len(shown)
        if select.select([above], [], [], 0.1)[0]:
            try:
                shown += os.read(above, 1 << 16).decode()
            except OSError:  # the process has ended
                break
    else:
        started.kill()
    os.close(above)
    assert not left, f"never asked: {left}; shown:\n{shown}"
    return started.wait(), shown.replace("\r\n", "\n")


def is_asleep(pid: int) -> bool:
    """Tell whether a process waits, as for the next line."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def written(folder: Path) -> dict[str, Any]:
    make_plan(load_recipe(folder / "my.yaml"))
    values: dict[str, Any] = yaml.safe_load((folder / "my.yaml").read_text())
    return values


def test_columns_of_a_german_table_are_shown_and_asked_for(tmp_path: Path) -> None:
    lines = [f'{number};"Wie viel ist {number}; plus 1?";{number + 1};' for number in range(40)]
    (tmp_path / "fragen.csv").write_text("Nr;Die Frage;Lösung;leer\n" + "\n".join(lines), encoding="utf-8-sig")
    code, shown = talk(
        tmp_path,
        (FILE, "frage.csv"),
        (FILE, "."),
        (FILE, "fragen.csv"),
        (PROMPTS, "Frage"),
        (PROMPTS, "leer"),
        (PROMPTS, "2"),
        (KIND, "math"),
        (REFERENCES, "Lösung"),
        *REST,
    )
    assert code == 0, shown
    assert "frage.csv does not exist, did you mean `fragen.csv`?" in shown
    assert ". is a folder; name a file in it: fragen.csv" in shown
    assert "has the columns Nr, Die Frage, Lösung, leer, and none of them is known to hold prompts" in shown
    assert "   1  Nr         0\n   2  Die Frage  Wie viel ist 0; plus 1?\n" in shown and "leer       (empty)" in shown
    assert "there is no column `Frage`, did you mean `Die Frage`?" in shown
    assert "`leer` holds nothing that can be read as the prompts" in shown
    values = written(tmp_path)
    assert values["prompts"]["path"] == "./fragen.csv"
    assert values["prompts"]["columns"] == {"prompt": "Die Frage", "reference": "Lösung"}


def test_answers_that_exist_need_a_column_of_teachers_and_one_of_answers(tmp_path: Path) -> None:
    rows = [
        {"meta": {"id": number}, "dialog": [{"from": "human", "value": f"Say {number}"}], "wer": model, "was": "so"}
        for number in range(20)
        for model in ("a", "b")
    ]
    write_lines(tmp_path / "a.jsonl", [{"id": 7}, *rows])
    code, shown = talk(
        tmp_path,
        (PROMPTS, "meta"),
        (PROMPTS, "dialog"),
        (KIND, ""),
        (MODELS, "one"),
        (MODELS, "x/y,x/z"),
        (THE_STUDENT, CTRL_C),
        options=("--prompts", "a.jsonl"),
    )
    assert code == 130 and "user: Say 0" in shown and '{"id": 0}' in shown
    assert "`meta` holds nothing that can be read as the prompts" in shown
    assert "`teachers` must name at least two" in shown
    assert not (tmp_path / "my.yaml").exists()
    code, shown = talk(
        tmp_path,
        (PROMPTS, "dialog"),
        ("which column holds the names of the teachers", "wer"),
        ("which column holds the answers of the teachers", "was"),
        (THE_STUDENT, "none"),
        ("what judges the answers", ""),
        options=("--prompts", "a.jsonl", "--kind", "answers"),
    )
    assert code == 0, shown
    values = written(tmp_path)
    assert values["generate"]["columns"] == {"prompt": "dialog", "teacher": "wer", "response": "was"}
    assert values["teachers"] == [{"name": "a"}, {"name": "b"}]


def test_none_of_the_columns_leads_to_another_kind_or_another_file(tmp_path: Path) -> None:
    write_lines(tmp_path / "other.jsonl", [{"text": f"Say {number}"} for number in range(20)])
    others = [{"input": {"a": 1}, "id": number} for number in range(120)]
    write_lines(tmp_path / "q.jsonl", [*others, *({"input": 1.5, "task": f"Say {number}"} for number in range(20))])
    (tmp_path / "empty.csv").touch()
    (tmp_path / "header.csv").write_text("question,answer\n")
    (tmp_path / "kopf.csv").write_text("frage;antwort\n")
    (tmp_path / "old.csv").write_bytes("Straße\nWie heißt das?\n".encode("latin-1"))
    code, shown = talk(
        tmp_path,
        (FILE, "empty.csv"),
        (FILE, "header.csv"),
        (FILE, "kopf.csv"),
        (FILE, "old.csv"),
        (FILE, "other.jsonl"),
        (PROMPTS, ""),
        (FILE, "'q.jsonl'"),
        (PROMPTS, "task"),
        (KIND, "maths"),
        (KIND, "math"),
        (REFERENCES, ""),
        (KIND, "instruct"),
        *REST,
        ("what judges the answers", "model"),
        ("what judges the answers", "judge"),
        ("the judge, as its server names it", "big"),
        ("the url of the judge's server", "localhost"),
        ("the url of the judge's server", "http://localhost:8000/v1"),
    )
    assert code == 0, shown
    assert (
        "empty.csv is empty" in shown
        and shown.count("holds no rows; a recipe needs prompts") == 2
        and "save it as UTF-8" in shown
    )
    assert "its column `input` holds no prompts" in shown and "did you mean `math`?" in shown
    assert "`model` is not known (known: reward-model, judge)" in shown
    recipe = written(tmp_path)
    assert recipe["prompts"]["columns"] == {"prompt": "task"}
    assert recipe["score"]["judge"]["model"] == "big"
    assert recipe["score"]["judge"]["server"] == {"urls": ["http://localhost:8000/v1"]}


def test_wrong_options_are_asked_for(tmp_path: Path) -> None:
    write_lines(tmp_path / "q.jsonl", sums(range(10, 70)))
    options = ("--prompts", "gone.jsonl", "--columns", "prompt=qestion", "--teachers", "a,a", "--engine", "server")
    code, shown = talk(
        tmp_path,
        (FILE, "q.jsonl"),
        (PROMPTS, "question"),
        (KIND, ""),
        (MODELS, "a,b"),
        (THE_STUDENT, "none"),
        ("the url of the server", "localhost"),
        ("the url of the server", "http://localhost:8000/v1"),
        options=options,
    )
    assert code == 0, shown
    assert "gone.jsonl does not exist" in shown and "no column `qestion`, did you mean `question`?" in shown
    assert written(tmp_path)["generate"]["server"] == {"urls": ["http://localhost:8000/v1"]}


@pytest.mark.parametrize(("key", "code"), [(CTRL_C, 130), (CTRL_D, 1)])
@pytest.mark.parametrize("turns", [[(FILE, "q.csv")], [(FILE, "q.csv"), (PROMPTS, "a")]])
def test_it_can_be_left(key: str, code: int, turns: list[tuple[str, str]], tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text("a;b\n1;2\n")
    at = (turns[-1][0], key)
    ended, shown = talk(tmp_path, *turns[:-1], at)
    assert ended == code and shown.endswith("\nnothing was written\n") and "Traceback" not in shown
    assert [path.name for path in tmp_path.iterdir()] == ["q.csv"]
