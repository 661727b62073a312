"""Run an answer's code within the sandbox, where no other module of persyn is (sandbox.py).

Standard input holds the lengths of a payload and of a mark, the payload (JSON) and the mark. The payload says what to
do:

    {"kind": "tests", "setup": null, "prompt": "def add(a, b):", "code": "...", "tests": "assert add(1, 2) == 3",
     "entry_point": null}
    {"kind": "call", "code": "...", "function": "add", "input": "[1, 2]"}
    {"kind": "program", "code": "...", "input": "1 2"}

`tests` writes the mark to standard output once the last test has passed, and nothing else gets there: the code's own
output goes nowhere. It reads the mark only then, from an open file with a random number, and it uses no name that the
code could have changed meanwhile. `call` writes the result as JSON, `program` what the program prints; both are
compared outside. In front of all that stands one word: `started`, or `unusable` for tests that cannot be read.
"""

import ast
import builtins
import json
import os
import random
import resource
import sys
import typing
from types import CodeType
from typing import Any


STARTED, UNUSABLE = b"started\n", b"unusable\n"
FILES = 64  # open files of a process
WALK = 10_000  # values of a result that are looked at
EQUAL = "__persyn_equal__"
ANSWER = ("answer", "solution")  # names by which the answer's code can be imported
NO_TEST = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
UNITTEST = """
import unittest
import io
assert unittest.TextTestRunner(stream=io.StringIO()).run(
    unittest.defaultTestLoader.loadTestsFromTestCase({})
).wasSuccessful()
"""


class NothingTested(ValueError):
    """Code that imports, defines and assigns, and no more."""


def main() -> None:
    """Read the payload, and do what it says; the process ends here."""
    lengths = b""
    while not lengths.endswith(b"\n"):
        lengths += os.read(0, 1)
    size, mark = map(int, lengths.split())
    payload = json.loads(_read(0, size))
    bound(**payload["bounds"])
    if payload["kind"] == "tests":
        run_tests(payload, mark)
    os.write(1, STARTED)
    sys.argv = ["answer.py"]
    if payload["kind"] == "call":
        call(payload)
    path = "/tmp/.input"
    with open(path, "w", encoding="utf-8") as file:
        file.write(payload["input"])
    os.dup2(os.open(path, os.O_RDONLY), 0)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  # it stays open
    names = {"__name__": "__main__", "__builtins__": builtins}
    exec(compile(payload["code"], "answer.py", "exec"), names)


def run_tests(payload: dict[str, Any], mark: int) -> None:
    """Run the code and its tests, and write the mark if all of them pass."""
    read, write, leave, os_error = os.read, os.write, os._exit, OSError
    secret, said = _hidden(0), _hidden(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    names, setup_again = _module(), False
    try:
        tests = compile_tests(payload["tests"], payload["entry_point"], look_for_packages=True)
        setup = compile_setup(payload["setup"] or "")
        try:
            exec(setup, names)
        except NameError:  # some of MBPP's use a class that the answer is to define
            names, setup_again = _module(), True
    except Exception:  # noqa: BLE001  # the tests are at fault, and not the answer
        write(said, UNUSABLE)
        leave(0)
    write(said, STARTED)
    known, kept = vars(builtins), dict(vars(builtins))
    try:
        exec(program_of(payload["prompt"], payload["code"], payload["entry_point"]), names)
        known.clear()
        known.update(kept)  # tests begin with the builtins that they were written for
        names[EQUAL] = equal
        if setup_again:
            exec(setup, names)
        exec(tests, names)
    except BaseException:  # noqa: BLE001  # an exit is no pass either
        leave(1)
    left = mark
    while left:
        try:
            part = read(secret, left)
        except os_error:
            leave(1)
        if not part:
            leave(1)
        write(said, part)
        left -= len(part)
    leave(0)


def call(payload: dict[str, Any]) -> None:
    """Call a function of the code, or of its class `Solution`, with arguments in JSON, one per line or in a list."""
    write, leave, dumps = os.write, os._exit, json.dumps
    said = _hidden(1)
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    names = _module()
    exec(compile(payload["code"], "answer.py", "exec"), names)
    function = names.get(payload["function"])
    if function is None:
        function = getattr(names["Solution"](), payload["function"])
    result = dumps(function(*json.loads(payload["input"]))).encode()
    while result:
        result = result[write(said, result) :]
    leave(0)


def program_of(prompt: str, code: str, entry_point: str | None) -> CodeType:
    """Compile what an answer comes to: HumanEval's prompts are code that it may repeat, or only go on from.

    The prompt stands in front where it is code, for its imports and its helpers. An answer that defines the entry
    point follows it; any other continues it, indented where it is not. What does not compile raises `SyntaxError`.
    """
    if not prompt:
        return compile(code, "answer.py", "exec")
    is_whole = _defines(code, entry_point)
    indented = "".join(f"    {line}" for line in code.splitlines(keepends=True))
    tries = [f"{prompt}\n{code}", code] if is_whole else [f"{prompt}\n{code}", f"{prompt}\n{indented}", code]
    fault: Exception = SyntaxError("no code")
    for text in tries:
        try:
            return compile(text, "answer.py", "exec")
        except (SyntaxError, ValueError) as error:
            fault = error
    raise fault


def compile_tests(text: str, entry_point: str | None, *, look_for_packages: bool = False) -> CodeType:
    """Compile tests, with calls of those that are only defined: `check`, as HumanEval has it, `test_...`, TestCases.

    `==` becomes that of `equal`. Code that tests nothing raises `NothingTested`; with `look_for_packages`, one that
    imports what is not installed raises `ValueError`.
    """
    tree = ast.parse(text)
    for node in list(tree.body):
        if isinstance(node, ast.FunctionDef) and node.name == "check" and entry_point is not None:
            tree.body += ast.parse(f"check({entry_point})").body
        elif isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and not node.args.args:
            tree.body += ast.parse(f"{node.name}()").body
        elif isinstance(node, ast.ClassDef) and any("TestCase" in ast.unparse(base) for base in node.bases):
            tree.body += ast.parse(UNITTEST.format(node.name)).body
    if all(isinstance(node, NO_TEST) or _is_value(node) for node in tree.body):
        raise NothingTested
    if look_for_packages:
        _check_packages(tree)
    tree = ast.fix_missing_locations(_Comparisons().visit(tree))
    return compile(tree, "tests.py", "exec")


def compile_setup(text: str) -> CodeType:
    """Compile what runs before the answer; `ValueError` where it imports what is not installed."""
    tree = ast.parse(text)
    _check_packages(tree)
    return compile(tree, "setup.py", "exec")


def _check_packages(tree: ast.Module) -> None:
    if any(map(_is_missing, _imported(tree))):
        raise ValueError("a package is missing")


def _imported(tree: ast.Module) -> set[str]:
    """Return the packages that code imports."""
    named = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    named += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level]
    return {name.partition(".")[0] for name in named}


def _is_missing(package: str) -> bool:
    import importlib.util

    return package not in ANSWER and package not in sys.modules and importlib.util.find_spec(package) is None


def _is_value(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and not isinstance(node.value, ast.Call | ast.Await)


def _module() -> dict[str, Any]:
    """Return the names of a new module, which is that of the answer; tests may import it as `solution`.

    It begins with the names of `typing`: answers of the kind of LeetCode use `List` as if it were there.
    """
    module = type(sys)("answer")
    for name in ANSWER:
        sys.modules[name] = module
    vars(module).update({name: getattr(typing, name) for name in typing.__all__}, __builtins__=builtins)
    return vars(module)


class _Comparisons(ast.NodeTransformer):
    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        if len(node.ops) != 1 or not isinstance(node.ops[0], ast.Eq):
            return node
        name = ast.Name(id=EQUAL, ctx=ast.Load())
        return ast.copy_location(ast.Call(func=name, args=[node.left, node.comparators[0]], keywords=[]), node)


def equal(left: Any, right: Any) -> Any:
    """Compare as `==` does; but a value of the answer's own making, which says itself what it equals, equals no other.

    Such a value is one of a class that the answer defines with an `__eq__`, alone or within lists, tuples, sets and
    dicts. Two such values may be equal.
    """
    if _says_itself(left) != _says_itself(right):
        return False
    return left == right


def _says_itself(value: Any) -> bool:
    todo, seen = [value], 0
    while todo and seen < WALK:
        value, seen = todo.pop(), seen + 1
        kind = type(value)
        if any("__eq__" in vars(base) and base.__module__ == "answer" for base in kind.__mro__):
            return True
        if isinstance(value, (list, tuple, set, frozenset)):
            todo += list(value)[: WALK - len(todo)]
        elif isinstance(value, dict):
            todo += [*value.keys(), *value.values()][: WALK - len(todo)]
    return False


def bound(memory: int, seconds: float, file: int, processes: int | None) -> None:
    """Bound this process and its children by the kernel; nobody here can raise the bounds again.

    A sandbox may have set narrower bounds, and bound `processes` itself (None).
    """
    whole = int(seconds) + (seconds > int(seconds))
    for kind, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, whole),
        (resource.RLIMIT_FSIZE, file),
        (resource.RLIMIT_NOFILE, FILES),
        (resource.RLIMIT_NPROC, processes),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        most = hard if most is None else most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def _defines(code: str, entry_point: str | None) -> bool:
    if entry_point is None:
        return True
    heads = (f"def {entry_point}(", f"async def {entry_point}(", f"{entry_point} =", f"class {entry_point}")
    return any(line.startswith(heads) for line in code.splitlines())


def _hidden(number: int) -> int:
    """Return another number of an open file, drawn at random; the old one is free."""
    import fcntl

    hidden = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, random.SystemRandom().randrange(16, FILES - 1))
    return hidden


def _read(number: int, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = os.read(number, min(1 << 16, size - len(parts)))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


if __name__ == "__main__":
    main()
