"""`verify: command`, `verify: tests` and `quality: command` in their stages, and what is refused before they run."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from openai_server import OpenAIServer, Response, completion
from rows import assignment, prompt, response, write_lines

from persyn_hf.cli.main import main
from persyn_hf.errors import EngineError, InputError, RecipeError
from persyn_hf.recipe.roles import Teacher
from persyn_hf.recipe.strict import read_section
from persyn_hf.schemas import ASSIGNMENTS, PROMPTS, RESPONSES
from persyn_hf.stage import Context, Result
from persyn_hf.stages import generate, prompts, score


CHECK = "def check(candidate):\n    assert candidate(1, 2) == 3\n"
GRADER = """
import json, sys
for line in sys.stdin:
    row = json.loads(line)
    print(json.dumps(None if "?" in row["answer"] else "right" in row["answer"]))
"""


@pytest.fixture
def bwrap() -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed (apt install bubblewrap)")


def grader(tmp_path: Path, text: str = GRADER) -> list[str]:
    (tmp_path / "grader.py").write_text(text)
    return ["python", str(tmp_path / "grader.py")]


def read(tmp_path: Path, rows: list[Any], **settings: Any) -> Result:
    path = tmp_path / "p.jsonl"
    write_lines(path, rows)
    given = {"path": str(path), "calibration": 1, "dev": 0, **settings}
    return prompts.run(read_section(prompts.Settings, given, "prompts"), Context(seed=0, work_dir=tmp_path))


def ask(
    tmp_path: Path, rows: list[dict[str, Any]], says: dict[str, list[str]], server: "Asked", **settings: Any
) -> Result:
    """Have teachers `a` and `b` answer prompts at a server: what they say is in `says`, by prompt."""
    server.says = says
    data = PROMPTS.dataset(rows)
    assigned = ASSIGNMENTS.dataset(
        [assignment(row["prompt_id"], "a", source="router", scores=[0.9, 0.1], split=row["split"]) for row in rows]
    )
    given = {
        "engine": "server",
        "samples": 3,
        "max_tokens": 9,
        "server": {"urls": [server.url], "concurrency": 1},
        **settings,
    }
    teachers = (Teacher(name="a", model="big"), Teacher(name="b", model="small"))
    (tmp_path / "work").mkdir(exist_ok=True)
    context = Context(seed=0, work_dir=tmp_path / "work", teachers=teachers)
    return generate.run(
        read_section(generate.Settings, given, "generate"), context, prompts=data, assignments=assigned
    )


class Asked(OpenAIServer):
    """A server that gives the next of several answers to each prompt."""

    def __init__(self) -> None:
        self.says: dict[str, list[str]] = {}
        super().__init__(self._reply, models=("big", "small"))

    def _reply(self, text: str, times: int) -> Response:
        return Response(body=completion(self.says[text][min(times, len(self.says[text])) - 1]))


@pytest.fixture
def server() -> Iterator[Asked]:
    with Asked() as running:
        yield running


def verdicts(result: Result, text: str) -> list[tuple[str, bool | None, bool]]:
    name = prompt(text)["prompt_id"]
    return [(row["response"], row["is_correct"], row["selected"]) for row in result.data if row["prompt_id"] == name]


def test_a_command_selects_samples_and_ends_asking(tmp_path: Path, server: Asked) -> None:
    """As with math-verify: the kept sample is a right one, and `stop_when_correct` asks no further one."""
    says = {"x": ["wrong", "right", "right"], "y": ["no", "no", "no"], "z": ["?", "?", "?"]}
    settings = {"verify": "command", "command": {"run": grader(tmp_path)}}
    rows = [prompt(text) for text in says]  # without references
    result = ask(tmp_path, rows, says, server, **settings)
    assert [(said, right) for said, right, _ in verdicts(result, "x")] == [
        ("wrong", False),
        ("right", True),
        ("right", True),
    ]
    assert [said for said, _, selected in verdicts(result, "x") if selected] == ["right"]
    assert (result.counts["correct"], result.counts["unjudged"]) == (2, 3)
    again = ask(tmp_path, rows, says, server, stop_when_correct=True, **settings)
    assert [said for said, _, _ in verdicts(again, "x")] == ["wrong", "right"]


def test_a_command_escalates(tmp_path: Path, server: Asked) -> None:
    settings = {"verify": "command", "command": {"run": grader(tmp_path)}, "samples": 1, "escalate": 1}
    says = {"x": ["wrong", "right"], "y": ["right"], "z": ["?"]}
    result = ask(tmp_path, [prompt(text) for text in says], says, server, **settings)
    assert result.counts["escalated"] == 1 and server.times == {"x": 2, "y": 1, "z": 1}
    assert [(row["teacher"], row["is_correct"]) for row in result.data if row["round"] == 1] == [("b", True)]


def test_rows_that_a_command_fails_on_are_counted(tmp_path: Path, server: Asked) -> None:
    says = {"x": ["right"], "y": ["die"], "z": ["no"]}
    run = grader(tmp_path, GRADER.replace("    print", "    if row['answer'] == 'die': sys.exit(1)\n    print"))
    settings = {"verify": "command", "command": {"run": run}, "samples": 1}
    result = ask(tmp_path, [prompt(text) for text in says], says, server, **settings)
    assert {name: result.counts[name] for name in ("correct", "unjudged", "grader_died")} == {
        "correct": 1,
        "unjudged": 1,
        "grader_died": 1,
    }


def test_a_command_that_never_works_ends_the_run_in_one_sentence(tmp_path: Path, server: Asked) -> None:
    says = {text: ["right"] for text in "uvwxyz"}
    run = grader(tmp_path, "import nothing_like_it")
    with pytest.raises(
        EngineError, match="graded none of the first 5 answers: it ended with status 1 and said: Module"
    ):
        ask(tmp_path, [prompt(text) for text in says], says, server, verify="command", command={"run": run})


def test_code_is_tested_from_the_table_to_the_verdict(tmp_path: Path, server: Asked, bwrap: None) -> None:
    head = 'def add(a, b):\n    """Add."""'
    table = [
        {"prompt": head, "test": CHECK, "entry_point": "add"},
        {"prompt": "no tests", "test": "", "entry_point": None},
        {"prompt": "a misprint", "test": "assert add(1, 2) = 3", "entry_point": "add"},
    ]
    columns = {"reference": ["test", "entry_point"]}
    read_in = read(tmp_path, table, columns=columns, references="tests")
    counts = read_in.counts
    assert (counts["kept"], counts["reference_missing"], counts["reference_unparsable"]) == (1, 1, 1)
    says = {head: ["    return a - b", "```python\ndef add(a, b):\n    return a + b\n```", "import sys; sys.exit(0)"]}
    result = ask(tmp_path, [*read_in.data], says, server, verify="tests")
    assert [(right, selected) for _, right, selected in verdicts(result, head)] == [
        (False, False),
        (True, True),
        (False, False),
    ]


def test_tests_of_several_columns_need_to_be_named_as_such(tmp_path: Path) -> None:
    table = [{"prompt": "p", "test": "assert f()", "name": "f"}]
    with pytest.raises(RecipeError, match="several columns of a reference are those of tests; name one, or set"):
        read(tmp_path, table, columns={"reference": ["test", "name"]})
    with pytest.raises(RecipeError, match="tests are taken as they stand; take out `reference_after`"):
        read(tmp_path, table, columns={"reference": "test"}, references="tests", reference_after="#")
    with pytest.raises(InputError, match="has no column `tests` for `columns.reference`, did you mean `test`"):
        read(tmp_path, table, columns={"reference": ["tests", "name"]}, references="tests")


def test_a_command_gives_quality(tmp_path: Path) -> None:
    rows = [prompt(text, reference=text) for text in "xyz"]
    says = {"x": "0.5", "y": "true", "z": "null"}
    answers = [response(row["prompt_id"], "a", says[row["messages"][0]["content"]]) for row in rows]
    run = grader(tmp_path, "import json, sys\nfor line in sys.stdin: print(json.loads(line)['answer'])")
    given = {"quality": "command", "command": {"run": run}, "learnability": "none", "alpha": 0}
    context = Context(seed=0, work_dir=tmp_path, teachers=(Teacher(name="a"),))
    result = score.run(
        read_section(score.Settings, given, "score"),
        context,
        prompts=PROMPTS.dataset(rows),
        responses=RESPONSES.dataset(answers),
    )
    assert result.data["quality_raw"][:] == [0.5, 1.0, None] and result.counts["unjudged"] == 1


@pytest.mark.parametrize(
    ("section", "values", "said"),
    [
        (generate.Settings, {"verify": "command"}, "`verify: command` and `command: {run: [...]}` belong together"),
        (
            generate.Settings,
            {"command": {"run": ["x"]}},
            "`verify: command` and `command: {run: [...]}` belong together",
        ),
        (generate.Settings, {"verify": "comand"}, "did you mean `command`?"),
        (generate.Settings, {"sandbox": {"memory_mb": 1}}, "sandbox.memory_mb: must be at least 64, got 1"),
        (score.Settings, {"quality": "command"}, "`quality: command` and `command: {run: [...]}` belong together"),
        (score.Settings, {"quality": "command", "command": {"run": "x.py"}}, "command.run: "),
    ],
)
def test_settings_that_contradict_each_other(section: Any, values: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError) as error:
        read_section(section, values, "s")
    assert said in str(error.value)


REFERENCE = {"prompt": "question", "reference": "answer"}
TESTS = {"prompt": "question", "reference": "test"}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "tests that are none": (
        {"prompts": {"columns": REFERENCE}, "generate": {"verify": "tests"}},
        "`generate.verify: tests` runs tests, which the prompts must have as references; set `prompts: {references: ",
    ),
    "tests for math-verify": (
        {"prompts": {"columns": TESTS, "references": "tests"}, "generate": {}},
        "`prompts.references: tests` reads tests of code, which `generate.verify: math` cannot run; set `verify: ",
    ),
    "a command that is not there": (
        {"generate": {"verify": "command", "command": {"run": ["no-such-program"]}}},
        "the program `no-such-program` of `command.run` is not found; install it, or give its whole path",
    ),
    "a script that is not there": (
        {"generate": {"verify": "command", "command": {"run": ["python", "./none.py"]}}},
        "none.py does not exist; paths in a recipe count from that file",
    ),
    "a command that fails": (
        {"generate": {"verify": "command", "command": {"run": ["python", "./fails.py"]}}},
        "was given no lines, to try it, and ended with status 1 and said: ModuleNotFoundError: No module named",
    ),
}


@pytest.mark.parametrize("mistake", REFUSED)
def test_what_cannot_work_is_told_before_anything_is_asked(
    mistake: str, tmp_path: Path, server: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fails.py").write_text("import nothing_like_it")
    sections, said = REFUSED[mistake]
    assert plan(tmp_path, server, sections) == 2
    assert said in capsys.readouterr().err and server.bodies == []


def test_a_command_needs_no_references_and_another_script_is_another_step(
    tmp_path: Path, server: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    server.says = {f"{number}?": ["right"] for number in range(9)}
    sections = {"generate": {"verify": "command", "command": {"run": ["python", "./grader.py"]}}}
    told = []
    for text in (GRADER, GRADER, GRADER + "#"):
        grader(tmp_path, text)
        assert plan(tmp_path, server, sections, "run") == 0
        told.append(capsys.readouterr().out)
    assert len(server.bodies) == len({body["messages"][-1]["content"] for body in server.bodies}) * 2
    assert [": 0 run now" in text for text in told] == [False, True, False]


def plan(tmp_path: Path, server: Asked, sections: dict[str, Any], command: str = "validate") -> int:
    rows = [{"question": f"{number}?", "answer": "1", "test": "assert f()"} for number in range(9)]
    write_lines(tmp_path / "q.jsonl", rows)
    read_in = {"path": "./q.jsonl", "columns": {"prompt": "question"}, "calibration": 2, "dev": 1, "pool": 2}
    asked = {"engine": "server", "samples": 1, "max_tokens": 9, "server": {"urls": [server.url]}}
    values: dict[str, Any] = {
        "name": "graded",
        "teachers": [{"name": "a", "model": "big"}, {"name": "b", "model": "small"}],
        "students": [{"name": "s"}],
        "strategies": ["persyn"],
        "until": "score",
        "prompts": read_in | sections.get("prompts", {}),
        "generate": asked | sections["generate"],
        "score": {"learnability": "none", "alpha": 0},
        "train_router": {"kind": "knn"},
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(values))
    more = ["--deep"] if command == "validate" else []
    return main([command, str(tmp_path / "r.yaml"), "--store", str(tmp_path / "store"), *more])
