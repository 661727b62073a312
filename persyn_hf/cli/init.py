"""The command `persyn init`: write a commented recipe for one's own prompts, teachers and student."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from persyn_hf.cli.new_recipe import KINDS, Wishes, text_of
from persyn_hf.cli.options import add_command
from persyn_hf.console import say
from persyn_hf.errors import PersynError
from persyn_hf.recipe.strict import nearest
from persyn_hf.text import readable


ENGINES = {
    "transformers": "here, with transformers",
    "vllm": "here, with vLLM",
    "server": "behind an OpenAI-compatible server",
}
NOBODY = "none"  # in place of a student
TESTS = {"math": "GSM8K, MATH-500 and SVAMP", "instruct": "IFEval and TruthfulQA"}  # of what a recipe extends


def add(commands: Any) -> None:
    """Add the command to the subparsers `commands`."""
    text = "write a commented recipe; asks for what the options leave open, where there is a terminal"
    examples = (
        "",
        "my.yaml --prompts questions.jsonl --teachers Qwen/Qwen2.5-7B-Instruct,meta-llama/Llama-3.1-8B-Instruct "
        "--student Qwen/Qwen2.5-0.5B",
        "my.yaml --prompts answers.parquet --kind answers --student none",
        "my.yaml --prompts q.csv --columns prompt=frage reference=antwort --teachers small,large --student none "
        "--engine server --url http://localhost:8000/v1",
    )
    command = add_command(commands, "init", _init, text, *examples, store=False)
    command.add_argument("recipe", type=Path, nargs="?", default=Path("my.yaml"), help="default: my.yaml")
    kinds = "; ".join(f"{kind}: {what}" for kind, what in KINDS.items())
    command.add_argument("--kind", choices=tuple(KINDS), help=f"{kinds} (default: as the file looks)")
    text = "JSONL, JSON, CSV or parquet, or a dataset of the Hub, ORG/NAME; for `answers` the file with them"
    command.add_argument("--prompts", metavar="FILE", help=text)
    text = "what columns are called: prompt=question reference=answer; also teacher, response, quality, topic"
    command.add_argument("--columns", nargs="+", default=[], metavar="WHAT=NAME", help=text)
    text = (
        "models, by commas: ids of the Hub, folders, or names that the server knows; for `answers` as the file has it"
    )
    command.add_argument("--teachers", metavar="A,B", help=text)
    command.add_argument("--student", metavar="MODEL", help=f"id of the Hub or folder; {NOBODY}: train none")
    command.add_argument("--engine", choices=tuple(ENGINES), help="where teachers run (default: transformers)")
    command.add_argument(
        "--url", action="append", default=[], help="of the server, as http://host:8000/v1; repeatable"
    )
    command.add_argument("--api-key-env", metavar="NAME", help="environment variable that holds the server's key")
    command.add_argument("--test", metavar="FILE", help="questions with answers, to evaluate the student on")
    command.add_argument("--force", action="store_true", help="overwrite the recipe, where it is there")


def _init(arguments: argparse.Namespace) -> int:
    from persyn_hf.recipe.file import read_recipe
    from persyn_hf.recipe.yaml_text import read_yaml
    from persyn_hf.runner.plan import make_plan
    from persyn_hf.store.disk import out_faults

    path: Path = arguments.recipe
    if path.suffix not in (".yaml", ".yml"):
        raise PersynError(f"{path} must end in .yaml, as recipes do")
    if path.exists() and not arguments.force:
        raise PersynError(f"{path} is there already; name another file, or overwrite it with --force")
    wishes, told = _wishes(arguments)
    text = text_of(wishes)
    make_plan(read_recipe(read_yaml(text, str(path)), path.parent))  # what is written is valid
    with out_faults(path.parent):
        path.write_text(text, encoding="utf-8")
    sizes = ", ".join(f"{number:,} for {split}" for split, number in wishes.sizes.items())
    known = "prompts" if wishes.number is None else f"{wishes.number:,} prompts"
    say(f"wrote {path}: {len(wishes.teachers)} teachers, {known} ({sizes}); read it, it is commented")
    for line in told:
        say(line)
    for line in (
        f"persyn validate --deep {path}   is everything there that a run needs?",
        *([] if wishes.kind == "answers" else [f"persyn preview {path} -n 3      three prompts to every teacher"]),
        f"persyn plan {path}              what it asks and costs",
        f"persyn run {path}",
    ):
        say(f"  {line}")
    return 0


def _wishes(arguments: argparse.Namespace) -> tuple[Wishes, list[str]]:
    """Take what the options say, look at the file, and ask for the rest; with lines on what was taken for granted."""
    given = _columns(arguments.columns)
    source = arguments.prompts or _ask(
        "the file of your prompts (JSONL, JSON, CSV, parquet; or ORG/NAME)", "--prompts"
    )
    columns, number, named, marked = dict(given), None, [], False
    unused: list[str] = []
    is_file = not _is_dataset(source)
    if is_file:
        from persyn_hf.cli.look import look_at

        seen = look_at(Path(source).expanduser(), given)
        columns, number, named, marked = seen.columns, seen.number, seen.teachers, seen.marked
        unused = seen.unused
    kind = arguments.kind or _choose("what is in it", KINDS, _likely(columns))
    chosen = arguments.kind is not None or sys.stdin.isatty()
    told = [f"  kind: {kind}, {'as chosen' if chosen else _why(columns)}"]
    found, columns = columns, _of_kind(columns, given, kind, source)
    unused = [*(name for name in found.values() if name not in columns.values()), *unused]
    told += [_unused(unused, columns, kind)] if unused else []
    teachers = _listed(arguments.teachers) or (named if kind == "answers" else [])
    if not teachers:
        what = "names of the teachers" if kind == "answers" else "the teachers, by commas (two at least)"
        teachers = _listed(_ask(what, "--teachers"))
    student = arguments.student or _ask(f"the model of the student ({NOBODY}: train none)", "--student")
    engine: Any = arguments.engine or ("server" if arguments.url else None)
    if engine is None:
        engine = "transformers" if kind == "answers" else _choose("where teachers run", ENGINES, "transformers")
    urls = arguments.url
    if engine == "server" and not urls:
        urls = [_ask("the url of the server, as http://host:8000/v1", "--url")]
    test: dict[str, Any] = {}
    if arguments.test is None and student != NOBODY and kind in TESTS:
        told.append(
            f"  the student will be evaluated on {TESTS[kind]}, from the Hub; on a test of your own: --test FILE"
        )
    if arguments.test is not None and student != NOBODY:
        from persyn_hf.cli.look import look_at

        seen = look_at(Path(arguments.test).expanduser(), {})
        answer = seen.columns.get("reference") or seen.columns.get("response", "answer")
        test = {"test": _beside(arguments.test, arguments.recipe), "test_marked": seen.marked}
        test["test_columns"] = {"question": seen.columns["prompt"], "answer": answer}
    wishes = Wishes(
        name=_name(arguments.recipe),
        kind=kind,
        source={"path": _beside(source, arguments.recipe)} if is_file else {"dataset": source},
        columns=columns,
        teachers=[_model(teacher, arguments.recipe) for teacher in teachers] if kind != "answers" else teachers,
        student=None if student == NOBODY else _model(student, arguments.recipe),
        number=number,
        marked=marked and kind != "instruct",
        engine=engine,
        urls=urls,
        key=arguments.api_key_env,
        **test,
    )
    return wishes, told


def _columns(given: Sequence[str]) -> dict[str, str]:
    """Read `prompt=question`."""
    from persyn_hf.cli.look import USUAL

    columns = {}
    for each in given:
        what, equals, name = each.partition("=")
        if not equals or not name:
            raise PersynError(f"--columns takes WHAT=NAME, got `{each}`; write --columns prompt=question")
        if what not in (*USUAL, "topic"):
            raise PersynError(f"--columns: `{what}` is not known{nearest(what, (*USUAL, 'topic'))}")
        columns[what] = name
    return columns


def _likely(columns: dict[str, str]) -> str:
    if {"teacher", "response"} <= columns.keys():
        return "answers"
    return "math" if "reference" in columns else "instruct"


def _why(columns: dict[str, str]) -> str:
    """Say why `_likely` has taken a kind."""
    kind = _likely(columns)
    if kind == "answers":
        return f"because of the columns `{columns['teacher']}` and `{columns['response']}`"
    if kind == "math":
        return f"because the column `{columns['reference']}` is taken for the answers to check by"
    return "because no column is known to hold a reference"


def _unused(unused: Sequence[str], columns: dict[str, str], kind: str) -> str:
    """Say which columns are not read, and by which option they would be."""
    uses = ["reference", *(["quality"] if kind == "answers" else []), "topic"]
    options = " or ".join(f"{what}=NAME" for what in uses if what not in columns)
    return f"  not used: {', '.join(unused)}" + (f"; to use one: --columns {options}" if options else "")


def _of_kind(columns: dict[str, str], given: dict[str, str], kind: str, source: str) -> dict[str, str]:
    """Keep the columns that a kind of recipe reads, and refuse where one is missing."""
    reads = {"math": ("prompt", "reference"), "instruct": ("prompt",)}.get(kind, tuple(columns))
    needs = {"math": ("prompt", "reference"), "instruct": ("prompt",)}.get(kind, ("prompt", "teacher", "response"))
    for what in needs:
        if what not in columns:
            raise PersynError(f"no column of {source} is known to hold the {what}; name it: --columns {what}=NAME")
    return {what: name for what, name in columns.items() if what in reads or what in given}


def _is_dataset(source: str) -> bool:
    """Tell an id of the Hub from a file: no ending, one slash, and nothing of that name lies here."""
    return not Path(source).expanduser().exists() and not Path(source).suffix and source.count("/") == 1


def _name(recipe: Path) -> str:
    kept = "".join(sign if sign.isascii() and (sign.isalnum() or sign in "._-") else "-" for sign in recipe.stem)
    return kept.strip("-._")[:64].rstrip("-._") or "my"


def _model(model: str, recipe: Path) -> str:
    """Return an id as it is, and a folder as the recipe must name it."""
    return _beside(model, recipe) if Path(model).expanduser().is_dir() else model


def _beside(file: str, recipe: Path) -> str:
    """Return the path of a file as a recipe names it: from the recipe's own folder."""
    path = Path(file).expanduser()
    if path.is_absolute() or file.startswith("persyn:"):
        return file if file.startswith("~") else str(path)
    near = os.path.relpath(path.absolute(), recipe.absolute().parent)
    return near if near.startswith("..") else f"./{near}"


def _listed(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _ask(what: str, option: str) -> str:
    """Ask on the terminal. Raises `PersynError` where there is none."""
    if not sys.stdin.isatty():
        raise PersynError(f"there is no terminal to ask at for {what}; give {option}, see: persyn init --help")
    while True:
        try:
            said = input(readable(f"{what}: ")).strip()
        except EOFError:
            raise PersynError("nothing was written: the questions were not answered") from None
        if said:
            return said


def _choose(what: str, choices: dict[str, str], likely: str) -> Any:
    """Ask for one of several; without a terminal it is the likely one."""
    if not sys.stdin.isatty():
        return likely
    for name, meaning in choices.items():
        print(f"  {name:<14}{meaning}")
    while True:
        try:
            said = input(f"{what} [{likely}]: ").strip()
        except EOFError:
            raise PersynError("nothing was written: the questions were not answered") from None
        if said in ("", *choices):
            return said or likely
        print(f"`{readable(said)}` is not known{nearest(said, choices)}")
