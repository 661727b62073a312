"""Answers that are code, honest and hostile, and the tests that they are to pass: for every kind of sandbox."""

from typing import Any

from persyn_hf.backends.grading.code_tests import of_cells
from persyn_hf.backends.grading.tested import CodeGrader
from persyn_hf.backends.grading.verdicts import Row, Ungraded, Verdict


CHECK = "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(5, 5) == 10\n"
PROMPT = 'def add(a, b):\n    """Add two numbers."""\n'
BOUNDS = {"memory_mb": 256, "disk_mb": 8, "processes": 8}


def reference(*cells: Any) -> str:
    tests = of_cells(cells)
    assert tests is not None
    return tests.as_reference()


ADD = reference(CHECK, "add")


def graded(grader: CodeGrader, answers: list[str], tests: str = ADD, prompt: str = PROMPT) -> list[Verdict | Ungraded]:
    return grader.grade([Row(tests, answer, "p", ({"role": "user", "content": prompt},)) for answer in answers])


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
