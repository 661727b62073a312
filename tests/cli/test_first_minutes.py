"""What a new user types first: `persyn` alone, help, what comes with persyn, completion, the demo."""

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from persyn_hf.cli import demo
from persyn_hf.cli.main import FIRST, _parser, main


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Every command's own parser."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield parser
    for group in groups:
        for below in group.choices.values():
            yield from parsers(below)


def test_persyn_alone_says_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out == FIRST + "\n"
    for line in FIRST.splitlines()[1:]:
        typed = line.split("  ")[1].split()
        assert typed[0] == "persyn"
        if typed[1] != "--help":
            _parser().parse_args(typed[1:])


def test_every_help_has_examples_that_can_be_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    each = list(parsers(_parser()))
    assert len(each) >= 20
    for parser in each:
        if parser.prog == "persyn completion":
            continue
        _, _, examples = parser.format_help().partition("examples:\n")
        typed = [line.strip() for line in examples.splitlines()]
        assert typed, parser.prog
        for line in typed:
            assert line.startswith(parser.prog), line
            _parser().parse_args(shlex.split(line.partition(" > ")[0])[1:])


def test_what_comes_with_persyn_is_listed_and_printed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    listed = capsys.readouterr().out
    for name in ("persyn:tiny/demo", "persyn:tasks/math", "persyn:accelerate/gpu-8"):
        assert f"  {name} " in listed
    assert main(["recipes", "persyn:tasks/math"]) == main(["recipes", "tasks/math"]) == 0
    text = (root / "recipes/tasks/math.yaml").read_text(encoding="utf-8")
    assert capsys.readouterr().out == text + text
    assert main(["recipes", "persyn:slurm/ray.sbatch"]) == 0
    assert capsys.readouterr().out == f"{root}/recipes/slurm/ray.sbatch\n"
    assert main(["recipes", "tasks/maths"]) == 2
    assert "did you mean `persyn:tasks/math`?" in capsys.readouterr().err


def offered(line: str, tmp_path: Path) -> list[str]:
    """What the shell offers at the end of a line, asked as bash does it."""
    environment = os.environ | {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "offered"),
        "_ARGCOMPLETE_COMP_WORDBREAKS": "",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    done = subprocess.run(
        [sys.executable, "-m", "persyn_hf.cli"], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return (tmp_path / "offered").read_text().split("\n")


def test_the_shell_completes_commands_recipes_and_artifacts(finished: tuple[Path, float], tmp_path: Path) -> None:
    (tmp_path / "my.yaml").touch()
    (tmp_path / "my.txt").touch()
    assert offered("persyn artifacts ver", tmp_path) == ["verify"]
    assert offered("persyn run m", tmp_path) == ["my.yaml"]
    assert offered("persyn run persyn:tiny/sm", tmp_path) == ["persyn:tiny/smoke"]
    found = offered(f"persyn route --store {finished[0]} tiny/smoke-router", tmp_path)
    assert found == ["tiny/smoke-router-qwen-student@v1"]
    assert offered("persyn init x.yaml --kind ", tmp_path)[:3] == ["math", "instruct", "answers"]


@pytest.mark.heavy
def test_the_shell_completes_settings_their_values_and_kinds(tmp_path: Path) -> None:
    assert offered("persyn run my.yaml --set score.alp", tmp_path) == ["score.alpha="]
    assert offered("persyn plan my.yaml --set score.quality=c", tmp_path) == [
        "score.quality=correct",
        "score.quality=column",
        "score.quality=command",
    ]
    assert offered("persyn run my.yaml --set mix.keep_incorrect=", tmp_path) == [
        "mix.keep_incorrect=true",
        "mix.keep_incorrect=false",
    ]
    assert offered("persyn run my.yaml --set teachers.", tmp_path) == [""], "a list is set whole"
    assert offered("persyn artifacts ls --kind rout", tmp_path) == ["router"]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_gets_a_script_that_it_can_read(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    read = subprocess.run(["bash", "-c", f"{script}\ncomplete -p persyn"], capture_output=True, text=True)
    assert "-F _python_argcomplete persyn" in read.stdout, read.stderr


@pytest.mark.ci
def test_the_demo_shows_who_teaches_best_and_what_to_type_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The demo's own recipe takes two minutes; here it has fewer questions."""
    sizes = "".join(f"  {key}: 12\n" for key in ("calibration", "dev", "pool"))
    (tmp_path / "few.yaml").write_text(
        f"extends: {demo.QUICK}\nname: few\nprompts:\n{sizes}train_student: {{epochs: 1}}\nevaluate: {{limit: 8}}\n"
    )
    monkeypatch.setattr(demo, "QUICK", str(tmp_path / "few.yaml"))
    assert main(["demo", "--store", str(tmp_path / "store")]) == 0
    said = capsys.readouterr().out
    assert "Allocation: share of the pool's prompts" in said and "before SFT" in said
    typed = [line.strip().split("    ")[0] for line in said.partition("next:\n")[2].splitlines()]
    assert [line.split()[1] for line in typed] == ["report", "artifacts", "route", "init"]
    monkeypatch.chdir(tmp_path)
    Path("FILE.jsonl").write_text('{"question": "What is 12 + 5?"}\n')
    for line in typed[:3]:
        assert main(line.split()[1:]) == 0, line
    assert Path("report/report.md").exists() and list(Path("data").iterdir())
    assert '"teacher": ' in capsys.readouterr().out


def test_a_key_apart_from_its_value_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["plan", "my.yaml", "--set", "score.alpha", "0.3"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "--set: takes KEY=VALUE, got score.alpha; write --set score.alpha=VALUE" in said
