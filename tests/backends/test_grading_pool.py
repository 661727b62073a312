"""Grading: verdicts on every form of answer met so far, and graders that no answer can hang, starve or mislead."""

import contextlib
import itertools
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from persyn_hf.backends.grading import pool as module
from persyn_hf.backends.grading.journalled import Grader
from persyn_hf.backends.grading.judge import RULES, judge, parse_reference
from persyn_hf.backends.grading.opening import MathGrader
from persyn_hf.backends.grading.pool import MEMORY, Verifier
from persyn_hf.backends.grading.verdicts import Row
from persyn_hf.backends.journal import Journal
from persyn_hf.errors import EngineError


# https://github.com/huggingface/Math-Verify/issues/65: hangs under math-verify's own time-out
ISSUE_65 = "\\boxed{\\dfrac{5^{\\left(5^{\\left(5^{\\left(5^5\\right)}\\right)} - 4\\right)} - 5}{16}}"
ISSUE_65_COMMENT = (
    "{@Neillier 1276915 4951077 ник增高人权 国 {1,1-3-10鼓励不停);5个_GENERAL2全校。 _HEADERS1 Orchestra}"
)
HANGING = "so it is $9999999^{9999999}$"
ENDLESS = [
    ISSUE_65,
    HANGING,
    "$9^{9^{9^{9}}}$",
    "9**9**9**9",
    "$99999999!$",
    "$" + "(" * 5000 + "1" + ")" * 5000 + "$",
    "$" + "\\sqrt{" * 500 + "2" + "}" * 500 + "$",
    "$" + "9" * 1_000_000 + "$",
    "$\\begin{pmatrix}" + "\\\\".join("&".join("1" * 100) for _ in range(100)) + "\\end{pmatrix}$",
    "$\\{" + ",".join(map(str, range(20_000))) + "\\}$",
    "$\\binom{1000000000}{500000000}$",
    "1 " * 200_000,
    "$2^{2^{40}}$",
]
STRANGE = [
    ISSUE_65_COMMENT,
    "",
    "\0 4\x002 \0",
    "\ud800 \udfff",
    "\u202e24\u202c \u2028\r\n",
    "4" + "\u0301" * 10_000,
    "%" * 100_000,
    "\\boxed{" * 2000,
    "\\boxed{1} and " * 1000,
    "answer " * 5000,
    "final answer is " * 1000,
    "1,000," * 5000,
    "$" * 100_000,
    "(" * 5000 + "1+1" + ")" * 5000,
    "$" + "<".join("x" * 300) + "$",
    "1e999999999",
    "\\boxed{1e999999999}",
    "word " * 20_000,
]


@pytest.fixture(scope="module")
def verifier(heavy: None) -> Iterator[Verifier]:
    with Verifier(workers=2, timeout_s=1) as pool:
        yield pool


@pytest.mark.parametrize(
    ("reference", "answer", "verdict"),
    [
        ("72", "The answer is 72.", True),
        ("72", "#### 73", False),
        ("72", "I do not know.", False),
        ("72", "", False),
        ("5", "**Answer:** 5", True),
        ("5", "Answer: 5.", True),
        ("42", "\\boxed{3} is the first part. Long after that we conclude: the sum is \\boxed{42}.", True),
        ("", "5", None),
        ("\\text{}", "5", None),
        # money, thousands, per cent, units
        ("1,234", "\\boxed{1234}", True),
        ("5000", "\\boxed{5\\,000}", True),
        ("5\\,000", "5,000", True),
        ("1 000", "1000", True),
        ("1 2", "12", False),
        ("$40.00", "#### 40", True),
        ("-$5", "-5", True),
        ("+2", "2", True),
        ("50%", "$50\\%$", True),
        ("50\\%", "0.5", True),
        ("5 apples", "She has 5 apples.", True),
        ("7 pencils", "#### 7", True),
        ("5 red marbles", "\\boxed{5}", True),
        ("1,234 dollars", "$1234", True),
        ("3/4 cup", "$\\frac{3}{4}$", True),
        ("3 sin x", "3", False),
        # powers of ten
        ("4.5e33", "$4.5 \\times 10^{33}$", True),
        ("4.5e33", "\\boxed{4.5e+33}", True),
        ("4.5e33", "4.6e33", False),
        ("1e100000000", "1e100000000", None),  # too large to be worked out, and so not wrong
        ("1e100000000", "5", None),
        ("1e-5", "0.00001", True),
        ("1e-5", "$10^{-5}$", True),
        ("1e-5", "2e-5", False),
        ("3.89e-10", "7.25e-11", False),
        ("0.0000017", "0.000002", False),
        ("0.333333", "$\\frac{1}{3}$", True),
        ("0.0", "0", True),
        ("$2e-1$", "\\boxed{2e - 1}", True),
        # expressions, sets, equations
        ("\\frac{1}{2}", "$0.5$", True),
        ("$\\frac{3}{4}$", "\\boxed{3/4}", True),
        ("-1./3", "$-\\frac{1}{3}$", True),
        ("2\\sqrt{3}", "$\\sqrt{12}$", True),
        ("2\\sqrt{3}", "2", False),
        ("x=5", "so $x = 5$", True),
        ("x=5", "5", True),
        ("1,3,5", "\\boxed{1,3,5}", True),
        ("1,3,5", "\\boxed{5, 3, 1}", True),
        ("2,4", "2.4", False),
        ("$2$ or $3$", "$3$ and $2$", True),
        ("\\pm 2", "$2, -2$", True),
        ("\\pm 2", "$2$", False),
        ("$(1,2]$", "$1 < x \\le 2$", False),
        # only a part of these can be parsed
        ("\\frac{1}{3} E_{1}+\\frac{2}{3} E_{2}", "$\\frac{2}{3}$", None),
        ("\\hbar \\omega(v+1 / 2)-\\frac{E_{0}^{2} e^{2}}{2 m \\omega^{2}}", "2", None),
        ("$\\frac{1}{0}$", "5", None),
    ],
)
def test_verdicts(reference: str, answer: str, verdict: bool | None) -> None:
    assert judge(reference, answer) is verdict


def test_gold_and_answer_are_not_exchanged(verifier: Verifier) -> None:
    assert verifier.grade([("$1<x<2$", "$(1,2)$"), ("$(1,2)$", "$1<x<2$")]) == [True, False]


@pytest.mark.heavy
def test_real_answers_in_order(root: Path) -> None:
    """By the flags of the file, a string match, but for the dollars and cents that it does not see."""
    rows = pq.read_table(root / "recipes" / "real" / "gsm8k_two_models_sample.parquet").to_pylist()
    with Verifier(workers=2, timeout_s=5) as pool:
        verdicts = pool.grade([(row["reference"], row["response"]) for row in rows])
    differ = [row for row, verdict in zip(rows, verdicts, strict=True) if verdict is not row["is_correct"]]
    assert None not in verdicts
    assert Counter(row["is_correct"] for row in differ) == {False: 2}
    assert all(int(row["reference"]) == parse_reference(row["reference"])[0][0] for row in rows)


@pytest.mark.parametrize("answer", ENDLESS, ids=range(len(ENDLESS)))
def test_an_endless_row_costs_its_time_and_nothing_else(verifier: Verifier, answer: str) -> None:
    pairs = [("42", "It is 42."), ("42", answer), ("42", "It is 42."), ("43", "It is 42.")]
    started = time.monotonic()
    first, hard, *others = verifier.grade(pairs)
    assert [first, *others] == [True, True, False]
    assert hard in (None, False)  # false where a fast machine gets to the end of it
    assert time.monotonic() - started < 4 + 15  # at worst four times the second; a new worker on a busy machine


def test_strange_answers_are_wrong_and_no_more(verifier: Verifier) -> None:
    assert verifier.grade([("42", answer) for answer in STRANGE]) == [False] * len(STRANGE)
    assert verifier.grade([("41", "４１")]) == [None]  # math-verify finds the digits and fails on them
    assert verifier.grade([("7", "é 😀 \u2028 \ud800\n\r\n 7")]) == [True]


def test_nothing_in_an_answer_is_run(verifier: Verifier, tmp_path: Path) -> None:
    call = f"__import__('os').system('touch {tmp_path}/owned')"
    assert verifier.grade([("42", call), (call, "42"), ("42", f"${call}$")])[0] is False
    assert not list(tmp_path.iterdir())


def test_hanging_rows_are_null_in_their_places(verifier: Verifier) -> None:
    pairs = [(str(number), HANGING if number in (7, 60, 61) else f"It is {number}.") for number in range(200)]
    assert verifier.grade(pairs) == [None if number in (7, 60, 61) else True for number in range(200)]


def test_a_hanging_reference_is_given_up_once(verifier: Verifier) -> None:
    reference = HANGING[len("so it is ") :]
    started = time.monotonic()
    assert verifier.grade([(reference, f"It is {number}.") for number in range(30)]) == [None] * 30
    assert verifier.parses([reference, "72", reference]) == [None, True, None]
    assert verifier.grade([(reference, "5"), ("5", "5")]) == [None, True]
    # Its rows come together: were each of them tried, 16 would take 16 s of processor time on any machine.
    assert time.monotonic() - started < 15


def test_references_that_cannot_be_used(verifier: Verifier) -> None:
    assert verifier.parses(["72", "", "2\\sqrt{3}", "\\text{}"]) == [True, False, True, False]
    assert verifier.parses([]) == []
    assert verifier.grade([]) == []


@pytest.mark.heavy
def test_a_reference_is_parsed_by_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """As teachers answer the same prompts one after the other; but for rows that an idle worker takes over."""
    homes: list[list[set[str]]] = []  # of each call: the references whose rows wait for each worker
    sent: list[tuple[int, int, str]] = []  # call, worker, reference
    loop, send = Verifier._loop, module._Worker.send

    def watch(pool: Verifier, workers: list[module._Worker], verdicts: list[bool | None]) -> None:
        homes.append([{reference for _, reference, _ in worker.waiting} for worker in workers])
        loop(pool, workers, verdicts)

    def spy(worker: module._Worker, tasks: list[module.Task], timeout_s: float) -> None:
        index = pool._workers.index(worker)
        sent.extend((len(homes) - 1, index, reference) for _, reference, answer in tasks if answer is not None)
        send(worker, tasks, timeout_s)

    monkeypatch.setattr(Verifier, "_loop", watch)
    monkeypatch.setattr(module._Worker, "send", spy)
    with Verifier(workers=2, timeout_s=5) as pool:
        for teacher in range(6):
            pool.grade([(str(number), f"It is {number + teacher}.") for number in range(300)])
    first, second = homes[0]
    assert first | second == {str(number) for number in range(300)}
    assert first and second and not first & second
    assert homes == [[first, second]] * 6  # each teacher's answers wait for the worker that knows the reference
    assert len(sent) == 6 * 300
    for teacher, index in itertools.product(range(6), range(2)):
        judged = [reference for call, worker, reference in sent if (call, worker) == (teacher, index)]
        of_others = [reference not in homes[0][index] for reference in judged]
        assert of_others == sorted(of_others)  # it takes over rows when none of its own are left, not before


@pytest.mark.heavy
def test_answers_cannot_take_the_memory() -> None:
    """Parsing this answer asks for 200 times its size; who judges it gives up, ends, and leaves room for the next."""
    hungry = "$1$. " * 1_500_000
    with Verifier(workers=1, timeout_s=20) as pool:
        assert pool.grade([("42", "42")]) == [True]
        first = pool._workers[0].process
        assert first is not None
        assert resource.prlimit(first.pid, resource.RLIMIT_AS) == (MEMORY, MEMORY)
        assert pool.grade([("1", "1"), ("42", hungry), ("2", "2"), ("3", "3")]) == [True, None, True, True]
        assert pool._workers[0].process is first  # only the process that judged is new
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with Verifier(workers=100_000) as pool:
        assert MEMORY <= len(pool._workers) * MEMORY <= total / 2


def test_workers_that_die_between_calls_cost_nothing(verifier: Verifier) -> None:
    pairs = [(str(number), str(number)) for number in range(200)]
    assert verifier.grade(pairs) == [True] * 200
    for worker in verifier._workers:
        assert worker.process is not None
        os.kill(worker.process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, worker.process.pid, os.WEXITED | os.WNOWAIT)
    assert verifier.grade(pairs) == [True] * 200


@pytest.mark.heavy
def test_a_judge_that_is_killed_costs_one_row_and_shifts_no_other() -> None:
    pairs = [(str(number % 50), f"It is {number % 50 + number % 3 % 2}.") for number in range(3000)]
    right = [number % 3 != 1 for number in range(3000)]
    with Verifier(workers=1, timeout_s=20) as pool:
        assert (
            pool.grade(pairs[:150]) == right[:150]
        )  # every reference is known: one that kills takes its answers along
        worker = pool._workers[0].process
        assert worker is not None
        ended = threading.Event()
        kills = []

        def kill() -> None:
            # eight times at most: on a machine that is slow enough no row would ever be graded between two kills
            while not ended.wait(0.1) and len(set(kills)) < 8:
                for child in Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split():
                    with contextlib.suppress(ProcessLookupError):  # it has just been replaced
                        os.kill(int(child), signal.SIGKILL)
                        kills.append(child)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            verdicts = pool.grade(pairs)
        finally:
            ended.set()
            killer.join()
    assert len(set(kills)) > 3
    assert verdicts.count(None) <= len(kills)
    assert [found for found in zip(verdicts, right, strict=True) if found[0] not in (None, found[1])] == []


@pytest.mark.heavy
def test_a_worker_that_stands_still_is_given_up() -> None:
    """Its processor time stands still as well."""
    with Verifier(workers=1, timeout_s=0.5) as pool:
        assert pool.grade([("1", "1")]) == [True]
        worker = pool._workers[0].process
        assert worker is not None
        os.kill(worker.pid, signal.SIGSTOP)
        assert pool.grade([("1", "1"), ("2", "2")]) == [None, True]


@pytest.mark.heavy
def test_workers_that_cannot_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "_spares", [])  # else one of another test does it
    (tmp_path / "math_verify.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Verifier(workers=2) as pool, pytest.raises(EngineError) as error:
        pool.grade([("1", "1")])
    assert str(error.value) == (
        f"a grader process ended or hung before it was ready; see what `{sys.executable} -c 'import math_verify'` says"
    )


@pytest.mark.heavy
def test_the_next_pool_takes_over_workers_without_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    spares: list[module._Worker] = []
    monkeypatch.setattr(module, "_spares", spares)
    pairs = [(str(number), str(number)) for number in range(400)]
    hanging = HANGING[len("so it is ") :]
    with Verifier(workers=3, timeout_s=0.5) as pool:
        assert pool.grade([*pairs, (hanging, "1")]) == [True] * 400 + [None]
        first = [worker.process for worker in pool._workers]
    assert len(spares) == module.SPARES < len(first)
    for spare in spares:
        assert spare.process in first and spare.process is not None
        children = Path(f"/proc/{spare.process.pid}/task/{spare.process.pid}/children")
        deadline = time.monotonic() + 30
        while children.read_text():
            assert time.monotonic() < deadline, "the process that has judged, and its memory, are still there"
            time.sleep(0.02)
    with Verifier(workers=1, timeout_s=1) as pool:
        assert pool.parses([hanging]) == [None]  # tried anew, with the new limit
        assert pool.grade(pairs) == [True] * 400
        assert pool._workers[0].process in first and len(spares) == 1
    for spare in spares:
        assert spare.process is not None
        spare.process.kill()
        os.waitid(os.P_PID, spare.process.pid, os.WEXITED | os.WNOWAIT)
    with Verifier(workers=1) as pool:
        assert pool.grade(pairs) == [True] * 400
        assert pool._workers[0].process not in first
    module._stop_spares()


@pytest.mark.heavy
def test_a_program_that_has_forked_shares_no_worker() -> None:
    code = (
        "import os\n"
        "from persyn_hf.backends.grading import pool as module\n"
        "with module.Verifier(1, 2) as pool:\n"
        "    pool.grade([('1', '1')])\n"
        "if not os.fork():\n"
        "    os._exit(len(module._spares))\n"
        "status = os.waitstatus_to_exitcode(os.wait()[1])\n"
        "print(status, len(module._spares), module._spares[0].process.pid)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    in_child, in_parent, pid = map(int, said.stdout.split())
    assert (in_child, in_parent, said.stderr) == (0, 1, "")
    assert not Path(f"/proc/{pid}").exists()  # it ends with the program


@pytest.mark.heavy
def test_a_worker_ends_with_a_parent_that_was_killed() -> None:
    code = (
        "from persyn_hf.backends.grading.pool import Verifier\n"
        "v = Verifier(1, 2)\n"
        "v.grade([('1', '1')])\n"
        "print(v._workers[0].process.pid, flush=True)\n"
        f"v.grade([('72', {HANGING!r})])\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    time.sleep(0.2)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{worker}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        time.sleep(0.1)
    pytest.fail("the worker outlived its parent")


@pytest.mark.heavy
def test_verdicts_are_kept(tmp_path: Path) -> None:
    """A second run asks no worker; a hanging row is not tried again."""
    rows = [Row("1", "1"), Row("72", HANGING), Row("2", "3"), Row("", "1")]
    for _ in range(2):
        with Journal(tmp_path / "journal", recipe="local/test") as journal, Grader(journal, MathGrader(0.5)) as grader:
            grader.submit(rows[:2])
            assert grader.judge(rows) == [True, None, False, None]
    maths = MathGrader(0.5)
    with Journal(tmp_path / "journal", recipe="local/test") as journal, Grader(journal, maths) as grader:
        assert grader.judge(rows) == [True, None, False, None]
        assert maths._verifier._workers[0].process is None


def test_verdicts_of_earlier_versions_are_found() -> None:
    """The journal's key of a verdict, and so its stored verdicts, outlive the other graders that came later."""
    maths = MathGrader(5.0)
    assert maths.name == f"math-verify 0.9.0, rules {RULES}, 5.0 s"
    assert maths.covered(Row("4", "It is 4.", "p", [{"role": "user", "content": "?"}])) == ["4", "It is 4."]
