import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from persyn_hf.backends.verifier import Verifier, judge


HANGING = "so it is $9999999^{9999999}$"


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(workers=2, timeout_s=2) as pool:
        yield pool


@pytest.mark.parametrize(
    ("reference", "answer", "verdict"),
    [
        ("72", "The answer is 72.", True),
        ("72", "#### 73", False),
        ("1,234", "\\boxed{1234}", True),
        ("$40.00", "#### 40", True),
        ("\\frac{1}{2}", "$0.5$", True),
        ("x=5", "so $x = 5$", True),
        ("x=5", "5", True),
        ("2\\sqrt{3}", "$\\sqrt{12}$", True),
        ("2\\sqrt{3}", "2", False),
        ("1,3,5", "\\boxed{1,3,5}", True),
        ("2,4", "2.4", False),
        ("50%", "$50\\%$", True),
        ("$\\frac{3}{4}$", "\\boxed{3/4}", True),
        ("5 apples", "She has 5 apples.", True),
        ("72", "I do not know.", False),
        ("72", "", False),
        ("", "5", None),
        ("\\text{}", "5", None),
    ],
)
def test_verdicts(reference: str, answer: str, verdict: bool | None) -> None:
    assert judge(reference, answer) is verdict


def test_gold_and_answer_are_not_exchanged(verifier: Verifier) -> None:
    assert verifier.grade([("$1<x<2$", "$(1,2)$"), ("$(1,2)$", "$1<x<2$")]) == [True, False]


def test_a_hanging_row_costs_its_time_and_nothing_else(verifier: Verifier) -> None:
    pairs = [(str(number), f"It is {number}.") for number in range(100)]
    pairs[7] = ("72", HANGING)
    verifier.grade(pairs[:1])
    started = time.monotonic()
    verdicts = verifier.grade(pairs)
    assert verdicts == [True] * 7 + [None] + [True] * 92
    assert time.monotonic() - started < 25  # 2 s of hanging, a new worker on a busy machine


def test_a_worker_that_dies_costs_one_row(verifier: Verifier) -> None:
    assert verifier.grade([("1", "1")]) == [True]
    victims = [worker for worker in verifier._workers if worker.process is not None]
    for worker in victims:
        assert worker.process is not None
        os.kill(worker.process.pid, signal.SIGKILL)
        worker.process.wait()
    verdicts = verifier.grade([(str(number), str(number)) for number in range(10)])
    assert verdicts.count(None) <= len(victims)
    assert verdicts.count(False) == 0


def test_references_that_cannot_be_used(verifier: Verifier) -> None:
    assert verifier.parses(["72", "", "2\\sqrt{3}", "\\text{}"]) == [True, False, True, False]
    assert verifier.parses([]) == []
    assert verifier.grade([]) == []


def test_odd_characters_pass_through(verifier: Verifier) -> None:
    assert verifier.grade([("7", "é 😀 \u2028 \ud800\n\r\n 7")]) == [True]


def test_a_worker_ends_with_a_parent_that_was_killed() -> None:
    code = (
        "from persyn_hf.backends.verifier import Verifier\n"
        "v = Verifier(1, 0.5)\n"
        "v.grade([('1', '1')])\n"
        "print(v._workers[0].process.pid, flush=True)\n"
        "v._timeout_s = 60\n"
        f"v.grade([('72', {HANGING!r})])\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    time.sleep(0.5)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{worker}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        time.sleep(0.1)
    pytest.fail("the worker outlived its parent")
