"""Answers that are code, and hostile: what their tests say, and that nothing but the sandbox is touched."""

import ast
import hashlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from persyn_hf.backends.grading import bubblewrap, sandbox
from persyn_hf.backends.grading.code_tests import of_cells
from persyn_hf.backends.grading.settings import ENVIRONMENT, SandboxSettings
from persyn_hf.backends.grading.syscalls import FAMILIES, MACHINES, REFUSED, SOCKET, seccomp_filter
from persyn_hf.backends.grading.tested import CodeGrader
from persyn_hf.backends.grading.verdicts import Row, Ungraded, Verdict
from persyn_hf.errors import EngineError, InputError


CHECK = "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(5, 5) == 10\n"
PROMPT = 'def add(a, b):\n    """Add two numbers."""\n'
SETTINGS = SandboxSettings(memory_mb=256, disk_mb=8, processes=8)


@pytest.fixture(scope="module", autouse=True)
def bwrap() -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed (apt install bubblewrap)")


@pytest.fixture(scope="module")
def grader() -> Iterator[CodeGrader]:
    grader = CodeGrader(SETTINGS, 3)
    yield grader
    grader.close()


def reference(*cells: Any) -> str:
    tests = of_cells(cells)
    assert tests is not None
    return tests.as_reference()


ADD = reference(CHECK, "add")


def graded(grader: CodeGrader, answers: list[str], tests: str = ADD, prompt: str = PROMPT) -> list[Verdict | Ungraded]:
    return grader.grade([Row(tests, answer, "p", ({"role": "user", "content": prompt},)) for answer in answers])


def test_answers_to_humaneval_mbpp_and_apps(grader: CodeGrader) -> None:
    right, wrong = "Here:\n```python\ndef add(a, b):\n    return a + b\n```\nDone.", "    return a - b\n"
    answers = [right, "    return a + b\n", "```python\nreturn a + b\n```", wrong, "", "It is impossible."]
    assert graded(grader, answers) == [True, True, True, False, False, False]
    mbpp = reference(["import math"], ["assert add(1, 2) == math.floor(3.5)", "assert add(2, 2) == 4"])
    assert graded(grader, [right, wrong], mbpp, "Write a function to add.") == [True, False]
    leetcode = reference("class Node:\n    value = 3", "def check(f):\n    assert f(Node()) == 3", "Solution().get")
    answer = "class Solution:\n    def get(self, node: Optional[Node]) -> int:\n        return node.value"
    assert graded(grader, [answer, answer.replace("value", "name")], leetcode) == [True, False]
    late = reference("root = Node()", ["assert value(root) == 3"])  # MBPP 367: the answer is to define the class
    answer = "class Node:\n    pass\ndef value(node): return 3"
    assert graded(grader, [answer, "def value(node): return 3"], late) == [True, False]
    cases = reference({"inputs": ["1 2\n", "20 1\n"], "outputs": ["3\n", "21\n"]})
    program = "a, b = map(int, input().split())\nif __name__ == '__main__':\n    print(a + b)"
    answers = [program, program + "\nraise SystemExit(1)", "print(3)", "print(open(0).read())"]
    assert graded(grader, answers, cases) == [True, False, False, False]
    calls = reference([{"input": "1\n2", "output": "3"}, {"input": "[1]\n[2]", "output": "[1, 2]"}], "add")
    solution = (
        "class Solution:\n    def add(self, a: List[int], b) -> Any:\n        print('noise')\n        return a + b"
    )
    assert graded(grader, [right, solution, "def add(a, b): return 3"], calls) == [True, True, False]


def test_tests_that_cannot_be_run_are_null_and_not_wrong(grader: CodeGrader) -> None:
    needs = json.dumps({"tests": "import nothing_like_it\nassert add(1, 2) == 3", "entry_point": None})
    setup = json.dumps({"tests": "assert add(1, 2) == 3", "setup": "import nothing_like_it", "entry_point": None})
    broken = json.dumps({"tests": "assert add(1, 2) = 3", "entry_point": None})
    for tests in (needs, setup, broken, "assert add(1, 2) == 3", "{}"):
        assert graded(grader, ["def add(a, b): return a + b"], tests) == [None]


# Each of them would pass if the grader believed what the code does.
CHEATS = {
    "exits": "import sys\nsys.exit(0)",
    "exits at once": "import os\nos._exit(0)",
    "exits when called": "import os\ndef add(a, b): os._exit(0)",
    "raises an exit when called": "def add(a, b): raise SystemExit(0)",
    "prints a mark": "print('started'); print('passed')\ndef add(a, b): return 0",
    "prints many marks": "import os\nfor fd in (1, 2):\n    os.write(fd, b'started\\n' + b'0' * 32)\nos._exit(0)",
    "equals all": "class E:\n    def __eq__(self, other): return True\ndef add(a, b): return E()",
    "equals all, as a number": "class E(int):\n    def __eq__(self, other): return True\ndef add(a, b): return E(9)",
    "other errors": "import builtins\nbuiltins.AssertionError = KeyError\ndef add(a, b): return 0",
    "other builtins": "import builtins\nbuiltins.compile = lambda *a, **k: None\nbuiltins.exec = lambda *a: None\n"
    "builtins.abs = builtins.all = lambda *a: 1\ndef add(a, b): return 0",
    "other functions of os": "import os\nos.read = os.write = os._exit = lambda *a: b''\ndef add(a, b): return 0",
    "a profile": "import sys\nsys.setprofile(lambda *a: None)\nsys.settrace(lambda *a: None)\ndef add(a, b): return 0",
    "its own check": "def check(candidate): pass\ndef add(a, b): return 0",
    "a thread that exits": "import os, threading\nthreading.Timer(0, os._exit, [0]).start()\n"
    "def add(a, b):\n    import time; time.sleep(9)",
    "a child that goes on": "import os\nif os.fork(): os._exit(0)\ndef add(a, b): return 0",
    "at exit": "import atexit, os\natexit.register(os._exit, 0)\ndef add(a, b): return 0",
    "a hook": "import sys\nsys.excepthook = lambda *a: None\ndef add(a, b): return 0",
    "a signal": "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)",
    "ends its parent": "import os\nfor pid in (1, os.getppid(), -1):\n    try:\n        os.kill(pid, 9)\n"
    "    except OSError: pass\ndef add(a, b): return 0",
}


def test_an_answer_that_cheats_does_not_pass(grader: CodeGrader) -> None:
    verdicts = dict(zip(CHEATS, graded(grader, [*CHEATS.values()]), strict=True))
    assert verdicts == dict.fromkeys(CHEATS, False)


GREEDY = {
    "forks": "import os\nwhile True: os.fork()",
    "many processes": "import subprocess\nkept = [subprocess.Popen(['sleep', '60']) for _ in range(50)]"
    "\nkept[0].wait()",
    "memory": "kept = bytearray(10**9)\ndef add(a, b): return a + b",
    "memory of all": "import os, time\nfor _ in range(5):\n    if os.fork() == 0:\n"
    "        kept = bytearray(150 * 10**6)\n        time.sleep(60)\ntime.sleep(60)",
    "disk": "for n in range(1000):\n    open(f'/tmp/{n}', 'wb').write(bytes(10**6))",
    "one file": "open('/tmp/a', 'wb').write(bytes(10**7))",
    "shared memory": "for n in range(1000):\n    open(f'/dev/shm/{n}', 'wb').write(bytes(10**6))",
    "open files": "kept = [open('/dev/null') for _ in range(1000)]",
    "nesting": "exec('(' * 10**6)",
    "recursion": "def add(a, b): return add(a, b)",
}


def test_an_answer_that_takes_too_much_is_wrong_and_ended(grader: CodeGrader) -> None:
    verdicts = dict(zip(GREEDY, graded(grader, [*GREEDY.values()]), strict=True))
    assert verdicts == dict.fromkeys(GREEDY, False)


@pytest.mark.heavy
def test_an_answer_that_hangs_is_wrong_after_its_time() -> None:
    grader = CodeGrader(SETTINGS, 0.5)
    answers = ["while True: pass", "import time\ntime.sleep(600)", "import os\nwhile True: os.write(1, b'x' * 10**6)"]
    begun = time.monotonic()
    assert graded(grader, answers) == [False] * 3
    assert time.monotonic() - begun < 60
    cases = reference({"inputs": ["1"], "outputs": ["1"]})
    assert graded(grader, ["while True: print('x' * 10**6)", "input(); input()"], cases) == [False, False]


def seen(code: str) -> str:
    """Run a program in the sandbox, and return what it prints."""
    ran, _ = sandbox.run_inside(SETTINGS, {"kind": "program", "code": code, "input": ""}, 5, threading.Event())
    assert ran.status == 0, ran.words
    return ran.output.decode().removeprefix("started\n")


def digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        total.update(f"{path} {path.lstat().st_mode} {path.lstat().st_mtime_ns}".encode())
        total.update(path.read_bytes() if path.is_file() else b"")
    return total.hexdigest()


def test_the_host_is_neither_read_nor_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    (tmp_path / "kept").write_text("secret")
    before = digest(tmp_path), digest(root / "persyn_hf" / "backends" / "grading")
    places = [
        str(tmp_path),
        str(root),
        str(Path.home()),
        "/etc",
        "/usr",
        "/usr/bin",
        "/var/tmp",
        "/dev",
        "/",
        "/proc/sys/kernel",
    ]
    files = [str(tmp_path / "kept"), "/etc/passwd", "/etc/shadow", str(Path.home() / ".bashrc")]
    code = f"""
import glob, os, sys
def tried(what, *arguments):
    try:
        return what(*arguments)
    except OSError as error:
        return type(error).__name__
def write(place):
    with open(place + "/persyn_was_here", "w") as file: file.write("x")
    return "written"
print([tried(write, place) for place in {places!r}])
print([tried(open, path) for path in {files!r}])
print(sorted(os.environ))
print(sorted(os.listdir("/home") if os.path.exists("/home") else []), os.path.exists({str(tmp_path)!r}))
print([tried(os.kill, pid, 0) for pid in ({os.getpid()}, {os.getppid()})], len(glob.glob("/proc/[0-9]*")) < 5)
print([tried(open, f"/proc/{{name}}", "a") for name in ("sys/kernel/core_pattern", "sys/vm/swappiness")])
print([tried(open, f"/proc/{{name}}", "a") for name in ("sysrq-trigger", "self/oom_score_adj", "1/mem")])
print([tried(os.mkdir, "/tmp/a"), tried(os.chroot, "/tmp"), tried(os.setuid, 0), tried(os.nice, -5)])
print(os.getuid(), [line.split()[1] for line in open("/proc/self/status") if line.startswith("CapEff")])
"""
    said = seen(code).splitlines()
    tried = dict(zip(places, ast.literal_eval(said[0]), strict=True))
    assert not [place for place in places if (Path(place) / "persyn_was_here").exists()], "the host has none of it"
    # A repository below /tmp lies where the sandbox has a /tmp of its own.
    assert not [place for place, found in tried.items() if found == "written" and not place.startswith("/tmp/")]
    assert said[1] == str(["FileNotFoundError"] * 4)
    assert said[2] == str(sorted([*ENVIRONMENT, "PWD"]))
    assert said[3].endswith("False") and "hf_secret" not in "".join(said)
    assert said[4] == "['ProcessLookupError', 'ProcessLookupError'] True"
    assert said[5] == str(["OSError"] * 2)  # EROFS
    assert set(ast.literal_eval(said.pop(6))) <= {"OSError", "FileNotFoundError", "PermissionError"}
    assert said[6] == "[None, 'PermissionError', 'OSError', 'PermissionError']"  # there is no user 0
    assert said[7] == "65534 ['0000000000000000']"
    assert (digest(tmp_path), digest(root / "persyn_hf" / "backends" / "grading")) == before


def test_there_is_no_network(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        socket.create_connection(("127.0.0.1", port)).close()
        code = f"""
import socket
for place in (("127.0.0.1", {port}), ("1.1.1.1", 53), ("8.8.8.8", 443)):
    try:
        socket.create_connection(place, timeout=2)
        print("connected")
    except OSError as error:
        print(type(error).__name__)
print([name for _, name in socket.if_nameindex()])
"""
        assert seen(code).split("\n")[:4] == ["ConnectionRefusedError", "OSError", "OSError", "['lo']"]


def test_what_namespaces_leave_open_is_refused_by_the_filter() -> None:
    code = (
        f"REFUSED = {[*REFUSED.values()]}"
        + """
import ctypes, os, socket
call = ctypes.CDLL(None, use_errno=True).syscall
def errno_of(*numbers):
    ctypes.set_errno(0)
    return ctypes.get_errno() if call(*numbers) == -1 else 0
machine = os.uname().machine == "aarch64"
print([errno_of(numbers[machine], 0, 0, 0, 0, 0) for numbers in REFUSED])
for family in (40, socket.AF_INET, socket.AF_UNIX):
    try:
        socket.socket(family, socket.SOCK_STREAM).close()
        print("open")
    except OSError as error:
        print(error.errno)
"""
    )
    assert seen(code).splitlines() == [str([1] * len(REFUSED)), "97", "open", "open"]


def decide(program: bytes, machine: int, number: int, argument: int = 0) -> int:
    """What the kernel does with a filter, after its documentation."""
    shown, value, at = {0: number, 4: machine, 16: argument}, 0, 0
    while True:
        kind, yes, no, operand = struct.unpack_from("HBBI", program, 8 * at)
        at += 1
        match kind:
            case 0x20:
                value = shown[operand]
            case 0x15:
                at += yes if value == operand else no
            case 0x35:
                at += yes if value >= operand else no
            case 0x06:
                return operand


@pytest.mark.parametrize("machine", MACHINES)
def test_the_filter_allows_all_else(machine: str) -> None:
    program, column, name = seccomp_filter(machine), [*MACHINES].index(machine), MACHINES[machine]
    assert program is not None
    allow, permission, family = 0x7FFF0000, 0x50001, 0x50061
    refused = {numbers[column] for numbers in REFUSED.values()}
    for number in range(500):
        if number != SOCKET[column]:
            assert decide(program, name, number) == (permission if number in refused else allow), number
    for number in range(50):
        assert decide(program, name, SOCKET[column], number) == (allow if number in FAMILIES else family)
    assert decide(program, name, 0x40000000) == decide(program, name + 1, 0) == permission
    assert seccomp_filter("riscv64") is None


def test_nothing_outlives_its_run() -> None:
    name = f"persyn-{os.getpid()}"
    code = (
        "import os, sys, time\n"
        f"if os.fork() == 0:\n    os.setsid()\n    os.execv('/usr/bin/sleep', ['{name}', '600'])\ntime.sleep(0.2)"
    )
    seen(code)
    end = time.monotonic() + 30
    while is_running(name):
        assert time.monotonic() < end
        time.sleep(0.05)


def is_running(name: str) -> bool:
    """Say whether a process goes by the name; one that ends meanwhile does not."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(name.encode()):
                return True
        except OSError:
            continue
    return False


def test_a_program_that_is_killed_leaves_no_sandbox(tmp_path: Path) -> None:
    name = f"persyn-orphan-{os.getpid()}"
    answer = f"import os\\nos.execv('/usr/bin/sleep', ['{name}', '600'])"
    program = (
        "from persyn_hf.backends.grading.settings import SandboxSettings\n"
        "from persyn_hf.backends.grading.tested import CodeGrader\n"
        "from persyn_hf.backends.grading.verdicts import Row\n"
        f'CodeGrader(SandboxSettings(), 600).grade([Row({ADD!r}, "{answer}")])\n'
    )
    parent = subprocess.Popen([sys.executable, "-c", program])

    try:
        wait_until(lambda: is_running(name))
    finally:
        parent.kill()
        parent.wait()
    wait_until(lambda: not is_running(name))


def wait_until(happened: Any) -> None:
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_without_a_sandbox_nothing_is_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    answer = f"open({str(mark)!r}, 'w')"
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match=r"`bwrap` is not installed; install it .* without it nothing is run"):
        graded(CodeGrader(SETTINGS, 1), [answer])
    refusing = tmp_path / "bwrap"
    refusing.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    refusing.chmod(0o755)
    with pytest.raises(EngineError, match=r"makes none here \(bwrap: No permissions to create new namespace\); take"):
        graded(CodeGrader(SETTINGS, 1), [answer])
    assert not mark.exists()


def test_a_home_is_no_part_of_the_sandbox_whatever_python_lies_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.symlink_to(sys.executable)
    shown = bubblewrap._prefixes(SandboxSettings(python=str(python)))
    assert str(tmp_path) not in shown and str(tmp_path / "bin") in shown
    python.unlink()
    python.touch()  # a Python that is no link, in a folder of the home
    assert bubblewrap._prefixes(SandboxSettings(python=str(python))) == []


def test_another_python_runs_answers_and_one_that_does_not_is_named(tmp_path: Path) -> None:
    other = next((path for path in ("/usr/bin/python3", "/usr/local/bin/python3") if Path(path).exists()), None)
    if other is not None and Path(other).resolve().name >= "python3.11":
        assert graded(CodeGrader(SandboxSettings(python=other), 5), ["    return a + b"]) == [True]
    (tmp_path / "base").symlink_to(sys.base_prefix)  # as uv has it: a link to a link to a folder
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "pyvenv.cfg").touch()
    linked = tmp_path / "venv" / "bin" / "python"
    linked.symlink_to(f"../../base/bin/{Path(sys.executable).resolve().name}")
    assert graded(CodeGrader(SandboxSettings(python=str(linked)), 5), ["    return a + b"]) == [True]
    with pytest.raises(
        InputError, match=r"the Python /usr/bin/true does not run in the sandbox .* by `sandbox.python`"
    ):
        sandbox.try_sandbox(SandboxSettings(python="/usr/bin/true"), 1)
    with pytest.raises(InputError, match=r"`sandbox.python` must be the whole path of a Python, got python3"):
        sandbox.try_sandbox(SandboxSettings(python="python3"), 1)
