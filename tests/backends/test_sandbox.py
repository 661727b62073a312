"""Answers that are code, honest and hostile: what their tests say in every kind of sandbox."""

import json
import time
from collections.abc import Iterator

import pytest
from hostile import BOUNDS, CHEATS, GREEDY, graded, reference
from sandboxes import sandbox_of

from persyn_hf.backends.grading.settings import SandboxSettings
from persyn_hf.backends.grading.tested import CodeGrader


# A container takes a second or two to start, and many are.
ENGINES = [
    "bubblewrap",
    pytest.param("piston", marks=pytest.mark.heavy),
    *(pytest.param(engine, marks=pytest.mark.slow) for engine in ("docker", "podman")),
]


@pytest.fixture(scope="module", params=ENGINES)
def settings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxSettings]:
    """The settings of each engine that can be had here."""
    with sandbox_of(request.param, tmp_path_factory.mktemp(request.param)) as own:
        yield SandboxSettings(**BOUNDS, **own)


@pytest.fixture
def grader(settings: SandboxSettings) -> Iterator[CodeGrader]:
    grader = CodeGrader(settings, 3)
    yield grader
    grader.close()


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


def test_an_answer_that_cheats_does_not_pass(grader: CodeGrader) -> None:
    verdicts = dict(zip(CHEATS, graded(grader, [*CHEATS.values()]), strict=True))
    assert verdicts == dict.fromkeys(CHEATS, False)


def test_an_answer_that_takes_too_much_is_wrong_and_ended(grader: CodeGrader) -> None:
    verdicts = dict(zip(GREEDY, graded(grader, [*GREEDY.values()]), strict=True))
    assert verdicts == dict.fromkeys(GREEDY, False)


@pytest.mark.heavy
def test_an_answer_that_hangs_is_wrong_after_its_time(settings: SandboxSettings) -> None:
    grader = CodeGrader(settings, 0.5)
    answers = ["while True: pass", "import time\ntime.sleep(600)", "import os\nwhile True: os.write(1, b'x' * 10**6)"]
    begun = time.monotonic()
    assert graded(grader, answers) == [False] * 3
    assert time.monotonic() - begun < 60
    cases = reference({"inputs": ["1"], "outputs": ["1"]})
    assert graded(grader, ["while True: print('x' * 10**6)", "input(); input()"], cases) == [False, False]
