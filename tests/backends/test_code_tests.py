"""Tests of code as references: the forms in which data sets have them, and the code of an answer."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persyn_hf.backends.grading.code_tests import (
    CodeTests,
    code_of,
    of_cells,
    of_reference,
    prompt_code,
    same_output,
    same_result,
)
from persyn_hf.backends.grading.inside import compile_tests, equal, program_of


CHECK = "def check(candidate):\n    assert candidate(1, 2) == 3\n"
APPS = {"inputs": ["1 2\n", ["3 4", "5"]], "outputs": ["3\n", ["12"]]}
USABLE: dict[str, tuple[list[Any], CodeTests]] = {
    "HumanEval": ([CHECK, "add"], CodeTests(tests=CHECK, entry_point="add")),
    "HumanEval, the other way round": (["add", CHECK], CodeTests(tests=CHECK, entry_point="add")),
    "MBPP": (
        [["import math"], ["assert f(1) == 1", "assert f(2) == 2"]],
        CodeTests(tests="assert f(1) == 1\nassert f(2) == 2", setup="import math"),
    ),
    "MBPP without imports": ([[], ["assert f(1) == 1"]], CodeTests(tests="assert f(1) == 1")),
    "pytest": (
        ["from solution import f\n\ndef test_f():\n    assert f(1) == 1"],
        CodeTests(tests="from solution import f\n\ndef test_f():\n    assert f(1) == 1"),
    ),
    "LeetCode": (
        ["class Node:\n    pass", "def check(f):\n    assert f(Node())", "Solution().add"],
        CodeTests(
            tests="def check(f):\n    assert f(Node())", setup="class Node:\n    pass", entry_point="Solution().add"
        ),
    ),
    "tests in two cells": (["assert f(1)", ["assert f(2)"]], CodeTests(tests="assert f(1)\nassert f(2)")),
    "APPS": ([json.dumps(APPS)], CodeTests(cases=(("1 2\n", "3\n"), ("3 4\n5", "12")))),
    "TACO's function": (
        [json.dumps({"fn_name": "add", "inputs": [[1, 2]], "outputs": [[3]]})],
        CodeTests(cases=(("[1, 2]", "[3]"),), function="add"),
    ),
    "CodeContests": ([{"input": ["1"], "output": ["2"]}], CodeTests(cases=(("1", "2"),))),
    "Codeforces": ([[{"input": "1", "output": "2"}]], CodeTests(cases=(("1", "2"),))),
    "LiveCodeBench": (
        [
            json.dumps([{"input": '[1, 2]\n"a"', "output": "true", "testtype": "functional"}]),
            json.dumps({"func_name": "has"}),
        ],
        CodeTests(cases=(('[[1, 2], "a"]', "true"),), function="has"),
    ),
}
NOT_USABLE: dict[str, list[Any]] = {
    "no code": ["It should add two numbers."],
    "a misprint": ["assert f(1) = 1"],
    "nothing is tested": ["import math\ndef helper():\n    return 1\nx = 2"],
    "check, and no entry point": [CHECK],
    "nothing": [""],
    "a number": [3],
    "no cases": ['{"inputs": [], "outputs": []}'],
    "cases of another length": ['{"inputs": ["1"], "outputs": []}'],
    "a case without its output": [[{"input": "1"}]],
    "arguments that are no JSON": [[{"input": "a b", "output": "1"}], "f"],
    "nesting": ["(" * 10_000],
    "a zero": ["assert f(1) == 1\0"],
}


@pytest.mark.parametrize("name", USABLE)
def test_tests_of_data_sets_are_read_and_stored_in_one_form(name: str) -> None:
    cells, tests = USABLE[name]
    assert of_cells(cells) == tests
    assert of_reference(tests.as_reference()) == tests


@pytest.mark.parametrize("name", NOT_USABLE)
def test_tests_that_cannot_be_used(name: str) -> None:
    assert of_cells(NOT_USABLE[name]) is None


@given(
    st.lists(
        st.text()
        | st.none()
        | st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["inputs", "outputs", "input", "output", "fn_name", "x"]), inner)
            ),
            max_leaves=8,
        ),
        max_size=3,
    )
)
def test_any_cells_are_tests_or_none(cells: list[Any]) -> None:
    tests = of_cells(cells)
    assert tests is None or of_reference(tests.as_reference()) == tests


@given(st.text())
def test_any_text_has_code_and_is_a_reference_or_none(text: str) -> None:
    assert code_of(text) in text
    assert of_reference(text) is None or isinstance(of_reference(text), CodeTests)


def test_the_code_of_an_answer_is_its_last_python_block() -> None:
    answers = {
        "x = 1": "x = 1",
        "First:\n```python\na\n```\nBetter:\n```py\nb\n```\nRun it:\n```bash\npip install c\n```": "b\n",
        "```\na\n```": "a\n",
        "```python\nis cut": "is cut",
        "~~~python\n```\n~~~": "```\n",
        "````python\n```\ninner\n```\n````": "```\ninner\n```\n",
        "```json\n{}\n```": "```json\n{}\n```",
        "  ```Python title=x\n  a\n  ```": "  a\n",
    }
    assert {answer: code_of(answer) for answer in answers} == answers
    shown = "```python\nclass Solution:\n    def f(self): pass\n```\nUse it:\n```python\nSolution().f()\n```"
    assert code_of(shown) == "Solution().f()\n" and code_of(shown, "g") == "Solution().f()\n"
    assert code_of(shown, "Solution().f") == "class Solution:\n    def f(self): pass\n"


PROMPT = 'from typing import List\n\n\ndef helper(x):\n    return x\n\n\ndef add(a, b):\n    """Add."""\n'


def run_add(prompt: str, code: str) -> Any:
    names: dict[str, Any] = {}
    exec(program_of(prompt, code, "add"), names)
    return names["add"](1, 2)


def test_a_completion_may_repeat_the_signature_or_go_on_from_it() -> None:
    said = {
        "whole": "def add(a, b):\n    return helper(a) + b\n",
        "with imports": "import math\n\ndef add(a: int, b: int) -> int:\n    return a + b",
        "a body": "    total = a + b\n    return total\n",
        "a body that lost its indentation": "total = a + b\nif total:\n    return total\n",
        "a lambda": "add = lambda a, b: a + b",
        "its own helper": "def plus(a, b):\n    return a + b\ndef add(a, b):\n    return plus(a, b)",
    }
    for prompt in (PROMPT, f"Complete this function:\n\n{PROMPT}", f"Complete it.\n```python\n{PROMPT}```"):
        code = prompt_code([{"role": "user", "content": prompt}], "add")
        assert code.strip() == PROMPT.strip()
        assert {name: run_add(code, text) for name, text in said.items()} == dict.fromkeys(said, 3)
    assert prompt_code([{"role": "user", "content": "Write a function `add` that adds."}], "add") == ""
    assert run_add("", said["whole"].replace("helper", "abs")) == 3
    with pytest.raises(SyntaxError):
        program_of(PROMPT, "I cannot do that.", "add")


def test_tests_that_are_only_defined_are_called() -> None:
    for text in (
        "def check(f):\n    assert f() == 1",
        "def test_it():\n    assert f() == 1",
        "import unittest\nclass T(unittest.TestCase):\n    def test_it(self):\n        self.assertEqual(f(), 1)",
    ):
        for value in (1, 2):
            names = {"f": lambda value=value: value, "__persyn_equal__": equal, "__name__": "answer"}
            if value == 1:
                exec(compile_tests(text, "f"), names)
            else:
                with pytest.raises(AssertionError):
                    exec(compile_tests(text, "f"), names)
    with pytest.raises(ValueError, match="a package is missing"):
        compile_tests("import nothing_like_it\nassert f()", None, look_for_packages=True)


def test_a_value_that_says_itself_what_it_equals_equals_no_other() -> None:
    names: dict[str, Any] = {"__name__": "answer"}
    exec("class Any:\n    def __eq__(self, other): return True\n    __hash__ = None\nclass Int(int, Any): pass", names)
    anything = names["Any"]()
    for forged, value in ((anything, 1), ([anything], [1]), ({"a": (anything,)}, {"a": (1,)}), (names["Int"](2), 3)):
        assert forged == value or isinstance(forged, int)
        assert equal(forged, value) is False and equal(value, forged) is False
    assert equal(anything, names["Any"]()) and equal([1, {2}], [1, {2}]) and not equal(1, 2)


def test_outputs_are_compared_line_by_line_and_numbers_by_value() -> None:
    for said, expected in (
        ("3\n", "3"),
        (" 1 2 \n\n", "1 2"),
        ("1.50", "1.5"),
        ("1e3 a", "1000 a"),
        ("a\r\nb", "a\nb"),
    ):
        assert same_output(said, expected)
    for said, expected in (("3 4", "3\n4"), ("", "0"), ("NaN", "nan"), ("12", "1 2"), ("1", "1\n1"), ("yes", "Yes")):
        assert not same_output(said, expected)
    for said, expected in (("[1, 2]", "[1,2]"), ("5", "[5]"), ("1.0", "1"), ('"a"', '"a"'), ("null", "null")):
        assert same_result(said, expected)
    for said, expected in (("", "null"), ("[5]", "5"), ("nonsense", "nonsense"), ('"1"', "1")):
        assert not same_result(said, expected)
