"""Every snippet of the documentation is one that persyn takes: recipes are valid, commands parse, files exist."""

import ast
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from doc_blocks import ALONE, OWN_TEST, SHOWN, Block, blocks, commands, pages

import persyn_hf
from persyn_hf.cli.main import _parser
from persyn_hf.errors import PersynError
from persyn_hf.recipe.file import load_recipe
from persyn_hf.recipe.packaged import find
from persyn_hf.reference.schema import recipe_schema
from persyn_hf.reference.settings import list_settings
from persyn_hf.runner.plan import make_plan


ALL = list(blocks())
RUN, PARSED = ("bash", "python"), ("yaml",)
OTHER_PROGRAMS = (
    *("pip", ".venv/bin/pip", "hf", "git", "python", "../.venv/bin/python", "pre-commit", "ray", "vllm", "sbatch"),
    *("cat", "cd", "cp", "done", "echo", "eval", "exit", "export", "head", "hostname", "make", "mkdir", "paste"),
    *("rsync", "source", "trap", "wait"),
)
OWN_FILES = (
    "my.yaml",
    "work/recipe.yaml",
    "work/bench.yaml",
    "work/sft.yaml",
    "other.yaml",
    "judged.yaml",
    "routed.yaml",
    "answers.yaml",
)  # that a reader has or makes
REASONS = (  # for not running a block
    *("needs a GPU", "needs a cluster", "needs the Hub", "needs the network", "needs your own files"),
    *("needs a file of another project", "installs packages", "takes hours", "examples of the help"),
    "it serves until it is stopped",
)


def of(*languages: str) -> list[Block]:
    return [block for block in ALL if block.language in languages]


def ids(block: Block) -> str:
    return block.where


def test_every_block_is_run_or_says_why_not(record_property: Callable[[str, object], None]) -> None:
    assert len(ALL) >= 100
    for block in ALL:
        assert block.language in (*RUN, *PARSED, *SHOWN), f"{block.where}: a block of an unknown language"
        if block.language in RUN:
            assert block.why is not None, f"{block.where}: put <!-- run --> or <!-- not run: reason --> before it"
            assert block.why in ("", *REASONS), f"{block.where}: a new reason, `{block.why}`"
    counted = Counter("run" if block.why == "" else f"not run: {block.why}" for block in of(*RUN))
    record_property("blocks", dict(counted.most_common()))  # in the XML report: `--junitxml`
    assert counted["run"] >= 30


def test_no_marker_stands_alone_and_no_code_is_only_indented() -> None:
    for path in pages():
        text = path.read_text(encoding="utf-8")
        for marker in re.finditer(r"^<!-- (?:not )?run\b(?!: the blocks).*-->\n", text, flags=re.MULTILINE):
            assert ALONE.search(marker[0]) and text[marker.end() :].startswith("```"), f"{path.name}: {marker[0]}"
        prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
        indented = re.search(r"\n\n    \S.*", prose)
        assert not indented, f"{path.name}: put a fence around {indented[0].strip()!r}"
        assert not re.search(r"^ +```", text, flags=re.MULTILINE), f"{path.name}: a fence begins its line"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The recipe of the README, on which fragments go: sections that a fragment has take the place of these."""
    block = next(block for block in of("yaml") if block.page == "README.md")
    return yaml.safe_load(block.text)


@pytest.mark.parametrize("block", of("yaml"), ids=ids)
def test_recipes_and_parts_of_recipes_are_valid(block: Block, base: dict, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(base), encoding="utf-8")
    said = yaml.safe_load(block.text)
    whole = said if "name" in said or "extends" in said else {**base, **said}
    teachers = {teacher["name"] for teacher in whole.get("teachers", [])}
    if teachers and "strategies" not in said:
        whole["strategies"] = ["persyn"]
    (tmp_path / "it.yaml").write_text(yaml.safe_dump(whole, sort_keys=False), encoding="utf-8")
    make_plan(load_recipe(tmp_path / "it.yaml"))


@pytest.mark.parametrize("block", of("bash"), ids=ids)
def test_commands_are_ones_that_exist(block: Block, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = set(list_settings(recipe_schema()))
    for program, *words in commands(block.text):
        if program == "persyn":
            check_persyn(words, block, root, known, capsys)
        elif program == "make":
            for word in words:
                assert "=" in word or re.search(rf"^{word}:", (root / "Makefile").read_text(), re.MULTILINE), word
        elif program == "python" and words[0].endswith(".py"):
            assert (root / words[0]).is_file() or block.page == "docs/evaluation.md", words[0]
        else:
            assert program in OTHER_PROGRAMS, f"{block.where}: {program}"


def check_persyn(
    words: list[str], block: Block, root: Path, known: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Parse a command, and look for the files and settings that it names."""
    try:
        given = _parser().parse_args(words)
    except SystemExit as ended:
        assert ended.code == 0, f"{block.where}: persyn {' '.join(words)}: {capsys.readouterr().err}"
        return
    if words[0] == "recipes" and given.name:
        find(given.name if given.name.startswith("persyn:") else f"persyn:{given.name}")
    for name in [str(name) for name in [getattr(given, "recipe", None), *getattr(given, "recipes", [])] if name]:
        if name.startswith("persyn:"):
            find(name)
        elif "$" not in name and "FILE" not in name and "RECIPE" not in name and name not in OWN_FILES:
            assert words[0] == "init" or (root / name).is_file(), f"{block.where}: {name}"
    for override in getattr(given, "overrides", None) or []:
        key = override.partition("=")[0]
        assert key in known, f"{block.where}: {key}"


@pytest.mark.parametrize("block", of("python"), ids=ids)
def test_python_parses_and_names_public_functions(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "persyn_hf":
            assert node.attr in persyn_hf.__all__, f"{block.where}: persyn_hf.{node.attr}"


def test_pages_with_tests_of_their_own_are_there(root: Path) -> None:
    for page, test in OWN_TEST.items():
        assert (root / page).is_file() and page in (root / test).read_text(encoding="utf-8")


def test_a_script_is_cut_into_commands() -> None:
    script = """cp "$(persyn recipes x/y)" a # c
A=1 persyn run b > c 2>/dev/null && sbatch \\
  d
cat > f <<'END'
persyn no
END
for s in $x; do persyn run $s; done
"""
    assert list(commands(script)) == [
        ["cp", "SUBSTITUTED", "a"],
        ["persyn", "run", "b"],
        ["sbatch", "d"],
        ["cat"],
        ["persyn", "run", "$s"],
        ["done"],
        ["persyn", "recipes", "x/y"],
    ]


def test_a_wrong_recipe_is_told(base: dict, tmp_path: Path) -> None:
    (tmp_path / "it.yaml").write_text(yaml.safe_dump(base | {"score": {"alhpa": 1}}), encoding="utf-8")
    with pytest.raises(PersynError, match="did you mean `alpha`"):
        make_plan(load_recipe(tmp_path / "it.yaml"))
