"""Read references that are tests of code: those of HumanEval, MBPP, APPS and their kin, one form from there on.

The form is JSON. Code that asserts, with the name of the function that HumanEval's `check` is called with:

    {"tests": "def check(candidate):\\n    assert candidate(1, 2) == 3", "setup": "import math", "entry_point": "add"}

`setup` (null: none) runs before the answer: imports and helpers that it may use.

Cases of a program that reads and prints (`function` null), or of a function whose arguments and result are JSON:

    {"cases": [["1 2\\n", "3\\n"]], "function": null}
"""

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from persyn_hf.backends.answers import well_formed
from persyn_hf.backends.grading.inside import NothingTested, compile_tests


LONGEST = 1 << 24  # characters of tests
NAME = re.compile(r"[A-Za-z_]\w{0,200}(?:(?:\(\))?\.[A-Za-z_]\w{0,200})?")  # `add`, `Solution().add`
FUNCTION_KEYS = ("fn_name", "func_name")
FENCE = re.compile(r"^[ \t]*(?P<marks>`{3,}|~{3,})[ \t]*(?P<tag>[\w+#.-]*)[^\n`]*\n", re.MULTILINE)
PYTHON = ("", "python", "py", "python3", "python2")


@dataclass(frozen=True)
class CodeTests:
    """The tests of one prompt: code, or cases of input and expected output."""

    tests: str | None = None
    setup: str | None = None
    entry_point: str | None = None
    cases: tuple[tuple[str, str], ...] = ()
    function: str | None = None

    def as_reference(self) -> str:
        """Return the form in which a reference is stored."""
        said: dict[str, Any] = {"tests": self.tests, "setup": self.setup, "entry_point": self.entry_point}
        if self.tests is None:
            said = {"cases": [[*case] for case in self.cases], "function": self.function}
        return json.dumps(said, ensure_ascii=False)


def of_reference(reference: str) -> CodeTests | None:
    """Read a stored reference; None where it holds no tests."""
    said = _json(reference)
    if not isinstance(said, Mapping):
        return None
    tests, setup, name, cases, function = map(said.get, ("tests", "setup", "entry_point", "cases", "function"))
    if isinstance(tests, str) and isinstance(setup, str | None) and isinstance(name, str | None):
        return CodeTests(tests=tests, setup=setup, entry_point=name)
    if not (isinstance(cases, list) and cases and isinstance(function, str | None)):
        return None
    if not all(isinstance(case, list) and [*map(type, case)] == [str, str] for case in cases):
        return None
    return CodeTests(cases=tuple((given, expected) for given, expected in cases), function=function)


def of_cells(cells: Sequence[Any]) -> CodeTests | None:
    """Read the tests of a prompt from one or several cells of a table; None where they cannot be used.

    A name is the entry point. A list of texts is lines of code, any other text is code. The last of several cells with
    code holds the tests, and those before it that test nothing are the setup. Tests that do not compile, or that test
    nothing, cannot be used. Cases are JSON, or a value, in one of the forms of `_pairs`.
    """
    values = [_json(cell) if isinstance(cell, str) else cell for cell in cells]
    names = [cell.strip() for cell in cells if isinstance(cell, str) and NAME.fullmatch(cell.strip())]
    names += [found for found in map(_function, values) if found]  # of APPS' cases, or in LiveCodeBench's `metadata`
    name = names[0] if names else None
    pairs = next((found for found in map(_pairs, values) if found), None)
    if pairs is not None:
        return _cases(pairs, name)
    code: list[str] = []
    for cell in cells:
        if isinstance(cell, str) and cell.strip() == name:
            continue
        if isinstance(cell, str):
            code.append(cell)
        elif isinstance(cell, list) and all(isinstance(line, str) for line in cell):
            code.append("\n".join(cell))
        elif cell is not None:
            return None
    code = [well_formed(text) for text in code if text.strip()]
    begun = 0
    while begun < len(code) - 1 and _kind_of(code[begun], name) == "setup":
        begun += 1
    text, setup = "\n".join(code[begun:]), "\n".join(code[:begun]) or None
    return CodeTests(tests=text, setup=setup, entry_point=name) if _kind_of(text, name) == "tests" else None


def code_of(answer: str, entry_point: str | None = None) -> str:
    """Cut the code out of an answer: its last fenced block that is Python or unnamed; without any, the whole answer.

    Where blocks define the entry point it is the last of these: examples of its use often follow. A block whose end is
    missing ends with the answer.
    """
    blocks: list[str] = []
    at = 0
    while (fence := FENCE.search(answer, at)) is not None:
        end = re.compile(rf"^[ \t]*{fence['marks'][0]}{{{len(fence['marks'])},}}[ \t]*$", re.MULTILINE)
        closing = end.search(answer, fence.end())
        if fence["tag"].lower() in PYTHON:
            blocks.append(answer[fence.end() : closing.start() if closing else len(answer)])
        at = closing.end() if closing else len(answer)
    defining = [block for block in blocks if entry_point and _definition(entry_point).search(block)]
    return (defining or blocks or [answer])[-1]


def prompt_code(messages: Sequence[Mapping[str, str]], entry_point: str | None) -> str:
    """Return the code that a prompt holds and that defines the entry point, HumanEval's; empty where there is none."""
    if entry_point is None or not messages:
        return ""
    code = code_of(messages[-1]["content"], entry_point)
    if "(" in entry_point or not _definition(entry_point).search(code):
        return ""
    begin = re.search(r"^(?:from|import|def|class|async|@)\b", code, re.MULTILINE)  # a sentence may stand in front
    return code[begin.start() :] if begin else code


def same_output(said: str, expected: str) -> bool:
    """Tell whether two outputs are the same: line by line, without white space around, and numbers by their value."""
    ours, theirs = ([line.split() for line in text.strip().splitlines()] for text in (said, expected))
    return len(ours) == len(theirs) and all(
        len(one) == len(other) and all(map(_same_word, one, other)) for one, other in zip(ours, theirs, strict=True)
    )


def same_result(said: str, expected: str) -> bool:
    """Tell whether two results in JSON are equal; `[5]` is 5, too, as APPS writes it."""
    nothing = object()
    ours, theirs = _json(said, nothing), _json(expected, nothing)
    return ours is not nothing and (ours == theirs or [ours] == theirs)


def _definition(entry_point: str) -> re.Pattern[str]:
    """Return what finds the definition of an entry point: that of `Solution` for `Solution().add`."""
    name = re.escape(re.split(r"[(.]", entry_point)[0])
    return re.compile(rf"^(?:(?:async[ \t]+)?def|class)[ \t]+{name}\b", re.MULTILINE)


def _same_word(one: str, other: str) -> bool:
    if one == other:
        return True
    try:
        return len(one) <= 400 and len(other) <= 400 and Decimal(one) == Decimal(other)
    except InvalidOperation:
        return False


def _kind_of(text: str, entry_point: str | None) -> Literal["tests", "setup"] | None:
    """Tell whether code is tests, or tests nothing; None where it does not compile."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile_tests(text[:LONGEST], entry_point)
    except NothingTested:
        return "setup"
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return "tests"


def _pairs(value: Any) -> list[Any] | None:
    """Return the pairs of input and output in any of the forms in which data sets have them."""
    if isinstance(value, list) and value and all(isinstance(case, Mapping) for case in value):
        return [(case.get("input"), case.get("output")) for case in value]
    for given, expected in (("inputs", "outputs"), ("input", "output")) if isinstance(value, Mapping) else ():
        inputs, outputs = value.get(given), value.get(expected)
        if isinstance(inputs, list) and isinstance(outputs, list) and len(inputs) == len(outputs):
            return [*zip(inputs, outputs, strict=True)]
    return None


def _cases(pairs: Sequence[tuple[Any, Any]], function: str | None) -> CodeTests | None:
    """Make cases: of a program its input and output, of a function a list of its arguments and its result, as JSON."""
    cases = []
    for given, expected in pairs:
        if given is None or expected is None:
            return None
        if function is None:
            cases.append((_as_text(given), _as_text(expected)))
        elif (arguments := _arguments(given)) is not None:
            cases.append((arguments, expected if isinstance(expected, str) else json.dumps(expected)))
        else:
            return None
    return CodeTests(cases=tuple(cases), function=function)


def _as_text(value: Any) -> str:
    """Return input or output as text; APPS has lists of lines, too."""
    return well_formed("\n".join(map(str, value)) if isinstance(value, list) else str(value))


def _arguments(value: Any) -> str | None:
    """Return a list of arguments as JSON; LiveCodeBench has one per line. None where it is no JSON."""
    if isinstance(value, list):
        return json.dumps(value)
    nothing = object()
    lines = [_json(line, nothing) for line in str(value).split("\n") if line.strip()]
    return None if nothing in lines else json.dumps(lines)


def _function(value: Any) -> str | None:
    if not isinstance(value, Mapping):
        return None
    return next((value[key] for key in FUNCTION_KEYS if isinstance(value.get(key), str)), None)


def _json(text: str, otherwise: Any = None) -> Any:
    try:
        return json.loads(text) if len(text) <= LONGEST else otherwise
    except (ValueError, RecursionError):
        return otherwise
