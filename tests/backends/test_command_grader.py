"""Grading by a command of the user's: what it says, what it fails at, and what is kept of it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persyn_hf.backends.grading.command import CommandGrader, read_verdicts, try_command
from persyn_hf.backends.grading.journalled import Grader
from persyn_hf.backends.grading.settings import CommandSettings
from persyn_hf.backends.grading.verdicts import Row, Ungraded
from persyn_hf.backends.grading.watched import Bounds, Ran, run_watched
from persyn_hf.backends.journal import Journal
from persyn_hf.errors import EngineError, InputError, PersynError, RecipeError


HEAD = "import json, os, sys, time\nfor line in sys.stdin:\n    row = json.loads(line)\n    answer = row['answer']\n"
EXACT = HEAD + "    print(json.dumps(answer == row['reference']))\n"
ODD_ONES = (  # an answer says what becomes of its row
    HEAD
    + """
    if answer == "hang": time.sleep(600)
    if answer == "die": sys.exit("no such answer")
    if answer == "crash": os.abort()
    if answer == "eat":
        kept = bytearray(600_000_000)
        time.sleep(600)
    if answer == "prose": print("looks fine to me")
    elif answer == "object": print("{}")
    elif answer == "number": print("0.5")
    elif answer == "twice": print("true\\ntrue")
    elif answer == "talk": print("x" * 10_000_000)
    elif answer == "nothing": pass
    else: print({"yes": "true", "no": "false"}.get(answer, "null"))
"""
)


def script(tmp_path: Path, text: str, name: str = "grader.py") -> list[str]:
    (tmp_path / name).write_text(text)
    return ["python", str(tmp_path / name)]


def grader(run: list[str], *, numbers: bool = False, **settings: Any) -> CommandGrader:
    return CommandGrader(CommandSettings(run=run, **settings), numbers=numbers)


def rows(*answers: str, reference: str | None = "4") -> list[Row]:
    return [
        Row(reference, answer, f"p{number}", ({"role": "user", "content": "2+2?"},))
        for number, answer in enumerate(answers)
    ]


def test_each_row_gets_its_own_verdict_whatever_process_graded_it(tmp_path: Path) -> None:
    answers = [str(number % 7) for number in range(100)]
    graded = grader(script(tmp_path, EXACT), workers=3).grade(rows(*answers))
    assert graded == [answer == "4" for answer in answers]


def test_a_command_is_told_prompt_reference_and_answer(tmp_path: Path) -> None:
    keep = HEAD + f"    open({str(tmp_path / 'seen')!r}, 'a').write(line)\n    print('null')\n"
    assert grader(script(tmp_path, keep)).grade([Row(None, "ja\n{}", "p1", [{"role": "user", "content": "é?"}])]) == [
        None
    ]
    assert json.loads((tmp_path / "seen").read_text()) == {
        "prompt_id": "p1",
        "prompt": [{"role": "user", "content": "é?"}],
        "reference": None,
        "answer": "ja\n{}",
    }


@pytest.mark.heavy
def test_a_row_that_it_fails_on_is_null_and_no_other(tmp_path: Path) -> None:
    odd = {
        "hang": "hung",
        "die": "died",
        "crash": "died",
        "eat": "out_of_memory",
        "prose": "no_verdict",
        "object": "no_verdict",
        "number": "no_verdict",
        "twice": "no_verdict",
        "talk": "talked",
        "nothing": "no_verdict",
    }
    answers = ["yes", "no", "perhaps", "yes"]
    for answer in odd:
        answers += [answer, "yes", "no"]
    command = grader(script(tmp_path, ODD_ONES), timeout_s=3, memory_gb=0.25, workers=2)
    expected = {"yes": True, "no": False, "perhaps": None} | {answer: Ungraded(why) for answer, why in odd.items()}
    assert command.grade(rows(*answers)) == [expected[answer] for answer in answers]


def test_a_command_that_keeps_its_lines_back_is_asked_in_parts(tmp_path: Path) -> None:
    """What `awk`, `jq` and others do: all lines come at the end, or none where it dies."""
    held = (
        "import json, sys\nsaid = []\nfor line in sys.stdin:\n    answer = json.loads(line)['answer']\n"
        "    if answer == 'die': sys.exit(3)\n    said.append('true' if answer == 'yes' else 'false')\n"
        "print('\\n'.join(said), end='')\n"
    )
    answers = ["yes"] * 9 + ["die"] + ["no"] * 6 + ["die", "yes"]
    expected = {"yes": True, "no": False, "die": Ungraded("died")}
    assert grader(script(tmp_path, held), workers=1).grade(rows(*answers)) == [expected[answer] for answer in answers]


def test_a_skipped_line_moves_no_verdict_to_another_answer(tmp_path: Path) -> None:
    skips = HEAD + "    if answer == '': continue\n    print(json.dumps(answer == '4'))\n"
    answers = ["4", "", "5", "4", "", "6"]
    expected = [True, Ungraded("no_verdict"), False, True, Ungraded("no_verdict"), False]
    assert grader(script(tmp_path, skips), workers=1).grade(rows(*answers)) == expected


def test_numbers_are_for_quality_only(tmp_path: Path) -> None:
    says = HEAD + "    print(answer)\n"
    answers = ["0.5", "-3", "1e400", "NaN", "Infinity", "true", "false", "null", "9" * 400, '"1"', "[1]"]
    failed = Ungraded("no_verdict")
    expected = [0.5, -3.0, failed, failed, failed, 1.0, 0.0, None, failed, failed, failed]
    assert grader(script(tmp_path, says), numbers=True).grade(rows(*answers)) == expected


NEVER = {
    "dies": (
        "import nothing_like_it",
        "ended with status 1 and said: ModuleNotFoundError: No module named 'nothing_like",
    ),
    "says nothing": (
        "import sys; sys.stdin.read()",
        "printed nothing; it must print true, false or null for each line",
    ),
    "greets": ("print('Loading...')\n" + EXACT, "printed `Loading...`"),
    "hangs": ("import time; time.sleep(600)", "did not end in time (`command.timeout_s`)"),
    "eats": ("x = bytearray(900_000_000)\nimport time; time.sleep(600)", "took more memory than `command.memory_gb`"),
}


@pytest.mark.heavy
@pytest.mark.parametrize("what", NEVER)
def test_a_command_that_never_works_is_one_sentence(what: str, tmp_path: Path) -> None:
    text, said = NEVER[what]
    command = grader(script(tmp_path, text), timeout_s=0.5 if what == "hangs" else 30, memory_gb=0.25)
    with pytest.raises(EngineError) as error:
        command.grade(rows(*"123456789"))
    assert said in str(error.value) and str(error.value).startswith(
        "the command `python grader.py` graded none of the"
    )
    assert "\n" not in str(error.value) and str(tmp_path) not in str(error.value)


def test_what_cannot_work_is_refused_before_anything_is_paid_for(tmp_path: Path) -> None:
    plain = tmp_path / "grader"
    plain.write_text("#!/bin/sh\ncat >/dev/null\n")
    refused: list[tuple[list[str], type[PersynError], str]] = [
        (["no-such-program"], InputError, "the program `no-such-program` of `command.run` is not found"),
        ([str(plain)], InputError, "may not be run (chmod +x)"),
        (["python", "grader.py"], RecipeError, "write `./grader.py` if it lies beside the recipe"),
        ([], RecipeError, "names no program"),
        (
            script(tmp_path, "import nothing_like_it", "imports.py"),
            InputError,
            "ModuleNotFoundError: No module named 'nothing_like_it'",
        ),
        (
            script(tmp_path, "print('hello')", "greets.py"),
            InputError,
            "printed `hello`; it must then end without a word",
        ),
        (script(tmp_path, "while True: pass", "hangs.py"), InputError, "did not end in time"),
    ]
    for run, kind, said in refused:
        with pytest.raises(kind) as error:
            try_command(CommandSettings(run=run, timeout_s=1 if run[-1:] == [str(tmp_path / "hangs.py")] else 60))
        assert said in str(error.value), run
    plain.chmod(0o755)
    for run in ([str(plain)], script(tmp_path, EXACT), ["grep", "x"]):
        try_command(CommandSettings(run=run))


def test_verdicts_are_kept_until_the_script_changes_and_failures_are_not(tmp_path: Path) -> None:
    counted = f"open({str(tmp_path / 'starts')!r}, 'a').write('.')\n"
    asked = rows("4", "5", "die")

    def judge(text: str, new: int = 0) -> tuple[list[Any], dict[str, int], int]:
        run = script(tmp_path, counted + text)
        (tmp_path / "starts").write_text("")
        with Journal(tmp_path / "journal") as journal, Grader(journal, grader(run, workers=1)) as book:
            book.submit(asked[:new])
            verdicts = [book.judge(asked), book.judge(asked)]
            assert verdicts[0] == verdicts[1]
            return verdicts[0], book.failures, len((tmp_path / "starts").read_text())

    fails = EXACT.replace("    print", "    if answer == 'die': sys.exit(1)\n    print")
    first = judge(fails, new=2)
    assert first[:2] == ([True, False, None], {"grader_died": 1}) and first[2] >= 2
    assert judge(fails) == ([True, False, None], {"grader_died": 1}, 1)  # only the one that it failed on
    assert judge(fails + "#")[2] > 1  # another script
    assert judge(EXACT)[:2] == ([True, False, False], {})


def test_an_interrupted_run_leaves_no_process(tmp_path: Path) -> None:
    waits = HEAD + f"    open({str(tmp_path)!r} + f'/{{os.getpid()}}.pid', 'w').close()\n    time.sleep(600)\n"
    command = grader(script(tmp_path, waits), workers=2)
    with Journal(tmp_path / "journal") as journal, pytest.raises(KeyboardInterrupt):
        with Grader(journal, command) as book:
            book.submit(rows("1", "2"))
            wait_for(lambda: bool([*tmp_path.glob("*.pid")]))
            raise KeyboardInterrupt
    assert_gone(tmp_path)


def test_a_command_ends_with_the_program_that_started_it(tmp_path: Path) -> None:
    waits = HEAD + f"    open({str(tmp_path)!r} + f'/{{os.getpid()}}.pid', 'w').close()\n    time.sleep(600)\n"
    program = (
        "from persyn_hf.backends.grading.command import CommandGrader\n"
        "from persyn_hf.backends.grading.settings import CommandSettings\n"
        "from persyn_hf.backends.grading.verdicts import Row\n"
        f"CommandGrader(CommandSettings(run={script(tmp_path, waits)!r})).grade([Row('1', '1')])\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program])
    try:
        wait_for(lambda: bool([*tmp_path.glob("*.pid")]))
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert_gone(tmp_path)


def test_a_child_that_outlives_its_command_is_ended(tmp_path: Path) -> None:
    text = (
        "import subprocess, sys\nchild = subprocess.Popen(['sleep', '600'])\n"
        + HEAD
        + (f"    open({str(tmp_path)!r} + f'/{{child.pid}}.pid', 'w').close()\n    print('true')\n")
    )
    assert grader(script(tmp_path, text)).grade(rows("1")) == [True]
    assert_gone(tmp_path)


def wait_for(happened: Any) -> None:
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


def assert_gone(folder: Path) -> None:
    pids = [int(file.stem) for file in folder.glob("*.pid")]
    assert pids
    for pid in pids:
        wait_for(lambda pid=pid: not is_running(pid))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@given(
    output=st.binary(max_size=200)
    | st.lists(st.sampled_from(["true", "false", "null", "1", "x", ""])).map(lambda lines: "\n".join(lines).encode()),
    number=st.integers(1, 5),
    numbers=st.booleans(),
)
def test_any_output_is_a_verdict_for_each_row_or_none_at_all(output: bytes, number: int, numbers: bool) -> None:
    verdicts, at = read_verdicts(Ran(output=output, words="", status=0, passed=None), number, numbers)
    assert verdicts is None or len(verdicts) == number
    assert 0 <= at <= output.count(b"\n") + 1
    assert read_verdicts(Ran(output=output, words="", status=1, passed=None), number, numbers) == (None, at)


@pytest.mark.heavy
@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this kernel does not say who waited")
def test_time_in_which_a_program_waits_for_a_processor_is_not_its_own() -> None:
    """Three others on its only processor: a part of what the clock says is theirs."""
    one = min(os.sched_getaffinity(0))
    pinned = f"import os, time\nos.sched_setaffinity(0, {{{one}}})\n"
    busy = f"{pinned}print(flush=True)\nwhile True: pass"
    others = [subprocess.Popen([sys.executable, "-c", busy], stdout=subprocess.PIPE) for _ in range(3)]
    try:
        for other in others:
            assert other.stdout is not None and other.stdout.readline()
        work = f"{pinned}while time.process_time() < 1.5: pass\nprint('done')"
        ran = run_watched([sys.executable, "-c", work], b"", Bounds(seconds=2), environment=os.environ)
        assert (ran.output, ran.passed) == (b"done\n", None)
        sleeps = [sys.executable, "-c", "import time; time.sleep(600)"]
        assert run_watched(sleeps, b"", Bounds(seconds=0.5), environment=os.environ).passed == "time"
    finally:
        for other in others:
            other.kill()
            other.communicate()


def test_a_program_that_reads_nothing_or_closes_its_output_is_no_deadlock() -> None:
    bounds = Bounds(seconds=30, output=1000)
    for text in ("pass", "import os; os.close(1); os.close(2)", "import sys; sys.stderr.write('x' * 10**6)"):
        ran = run_watched([sys.executable, "-c", text], b"x" * 10**6, bounds, environment=os.environ)
        assert (ran.status, ran.passed, ran.output) == (0, None, b"")
    stop = threading.Event()
    stop.set()
    ran = run_watched([sys.executable, "-c", "import time; time.sleep(60)"], b"", bounds, environment={}, stop=stop)
    assert (ran.status, ran.passed) == (-9, "stopped")
