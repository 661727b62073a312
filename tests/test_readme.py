"""What the README shows is true: its recipe is valid, its files and commands exist; `test_docs` follows its links."""

import re
from pathlib import Path

import pytest

from persyn_hf.cli.main import _parser
from persyn_hf.recipe.file import load_recipe
from persyn_hf.runner.plan import make_plan


def blocks(root: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (root / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_recipe_is_valid(root: Path, tmp_path: Path) -> None:
    recipe, *more = blocks(root, "yaml")
    (tmp_path / "my.yaml").write_text(recipe)
    steps = make_plan(load_recipe(tmp_path / "my.yaml"))
    assert {step.strategy for step in steps if step.strategy} == {"persyn", "car", "strong", "mix"}
    assert len(more) == 4
    for sections in more:  # each goes with the recipe
        (tmp_path / "more.yaml").write_text("extends: my.yaml\n" + sections)
        assert {"persyn"} <= {step.strategy for step in make_plan(load_recipe(tmp_path / "more.yaml"))}


def test_its_commands_exist(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = re.findall(r"^(persyn \w+|make \w+)", "\n".join(blocks(root, "bash")), flags=re.MULTILINE)
    assert len(commands) >= 5
    for command in commands:
        program, word = command.split()
        if program == "make":
            assert re.search(rf"^{word}:", (root / "Makefile").read_text(), flags=re.MULTILINE), command
        else:
            with pytest.raises(SystemExit) as ended:
                _parser().parse_args([word, "--help"])
            assert ended.value.code == 0, command


def test_the_files_of_its_tree_exist(root: Path) -> None:
    (tree,) = blocks(root, "text")
    names = re.findall(r"^( *)((?:[\w.]+[/ ])+)", tree, flags=re.MULTILINE)
    for indent, listed in names:
        for name in listed.split():
            if "." in name or name.endswith("/"):
                assert (root / ("persyn_hf" if indent else "") / name).exists(), name
