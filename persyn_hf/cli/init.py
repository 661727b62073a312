"""The command `persyn init`: write a commented recipe for one's own prompts, teachers and student."""

import argparse
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from persyn_hf.cli.look import look_at
from persyn_hf.cli.new_recipe import KINDS, Wishes, text_of
from persyn_hf.cli.options import add_command
from persyn_hf.cli.questions import ask, choose, is_asked
from persyn_hf.cli.source import find_source, path_of, why
from persyn_hf.console import say
from persyn_hf.errors import PersynError


ENGINES = {
    "transformers": "here, with transformers",
    "vllm": "here, with vLLM",
    "server": "behind an OpenAI-compatible server",
}
JUDGES = {
    "reward-model": "a reward model, on this machine",
    "judge": "a language model behind a server, by a rubric",
}
NOBODY = "none"  # in place of a student
TESTS = {"math": "GSM8K, MATH-500 and SVAMP", "instruct": "IFEval and TruthfulQA"}  # of what a recipe extends


def add(commands: Any) -> None:
    """Add the command to the subparsers `commands`."""
    text = "write a commented recipe; asks on a terminal for what is open, wrong, or cannot be told from the file"
    examples = (
        "",
        "my.yaml --prompts questions.jsonl --teachers Qwen/Qwen2.5-7B-Instruct,meta-llama/Llama-3.1-8B-Instruct "
        "--student Qwen/Qwen2.5-0.5B",
        "my.yaml --prompts answers.parquet --kind answers --student none",
        "my.yaml --prompts q.csv --columns prompt=frage reference=antwort --teachers small,large --student none "
        "--engine server --url http://localhost:8000/v1",
        "my.yaml --prompts instructions.jsonl --teachers A,B --student none --judge gpt-4.1-mini "
        "--judge-url https://api.openai.com/v1 --judge-key-env OPENAI_API_KEY",
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
    text = "language model that judges answers, as its server names it (default without references: a reward model)"
    command.add_argument("--judge", metavar="MODEL", help=text)
    command.add_argument(
        "--judge-url", action="append", default=[], metavar="URL", help="of its server (default: --url)"
    )
    command.add_argument("--judge-key-env", metavar="NAME", help="environment variable that holds its key")
    command.add_argument("--test", metavar="FILE", help="questions with answers, to evaluate the student on")
    command.add_argument("--force", action="store_true", help="overwrite the recipe, where it is there")


def _init(arguments: argparse.Namespace) -> int:
    path: Path = arguments.recipe
    if path.suffix not in (".yaml", ".yml"):
        raise PersynError(f"{path} must end in .yaml, as recipes do")
    if path.exists() and not arguments.force:
        raise PersynError(f"{path} is there already; name another file, or overwrite it with --force")
    if not path.parent.is_dir():
        raise PersynError(f"the folder {path.parent} is not there; make it, or name a recipe elsewhere")
    try:
        wishes, told = _wishes(arguments)
    except (EOFError, KeyboardInterrupt) as left:  # Ctrl-D, Ctrl-C
        say("\nnothing was written")
        return 1 if isinstance(left, EOFError) else 128 + signal.SIGINT
    text = _valid(wishes, path)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise PersynError(f"{path} cannot be written: {error.strerror}; name another file") from None
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
    test = _test(arguments)
    source = find_source(arguments)
    kind, seen = source.kind, source.seen
    chosen = arguments.kind is not None or is_asked()
    told = [f"  kind: {kind}, {'as chosen' if chosen else why(source.found)}"]
    unused = [name for name in source.found.values() if name not in source.columns.values()]
    unused += [] if seen is None else seen.unused
    told += [_unused(unused, source.columns, kind)] if unused else []
    wishes = Wishes(
        name=_name(arguments.recipe),
        kind=kind,
        source={"dataset": source.name} if seen is None else {"path": _beside(source.name, arguments.recipe)},
        columns=source.columns,
        teachers=seen.teachers if seen is not None and kind == "answers" else [],
        student=None,
        number=None if seen is None else seen.number,
        marked=seen is not None and seen.marked and kind != "instruct",
        key=arguments.api_key_env,
    )
    _valid(replace(wishes, teachers=["one", "two"]), arguments.recipe)  # a fault here is none of the answers below

    def fill(first: dict[str, Any] | None, what: str, option: str, read: Callable[[str], dict[str, Any]]) -> None:
        """Make the first change of the recipe, else ask for one, until what it changes to is valid."""
        nonlocal wishes
        while True:
            changed = replace(wishes, **(read(ask(what, option)) if first is None else first))
            try:
                _valid(changed, arguments.recipe)
            except PersynError as error:
                if not is_asked():
                    raise
                say(error)
                first = None
            else:
                wishes = changed
                return

    def teachers(said: str) -> dict[str, Any]:
        listed = [part.strip() for part in said.split(",") if part.strip()]
        return {"teachers": listed if kind == "answers" else [_model(one, arguments.recipe) for one in listed]}

    def student(said: str) -> dict[str, Any]:
        return {} if said == NOBODY else {"student": _model(said, arguments.recipe), **test}

    what = "the names of the teachers" if kind == "answers" else "the teachers"
    named = teachers(arguments.teachers) if arguments.teachers else {} if wishes.teachers else None
    fill(named, f"{what}, by commas (two at least)", "--teachers", teachers)
    named = student(arguments.student) if arguments.student else None
    fill(named, f"the model of the student ({NOBODY}: train none)", "--student", student)
    if not test and wishes.student is not None and kind in TESTS:
        told.append(
            f"  the student will be evaluated on {TESTS[kind]}, from the Hub; on a test of your own: --test FILE"
        )
    engine: Any = arguments.engine or ("server" if arguments.url else None)
    if engine is None and kind != "answers":
        engine = choose("where teachers run", ENGINES, "transformers")
    if engine == "server":
        named = {"engine": engine, "urls": arguments.url} if arguments.url else None
        what = "the url of the server, as http://host:8000/v1"
        fill(named, what, "--url", lambda said: {"engine": engine, "urls": [said]})
    elif engine is not None:
        wishes = replace(wishes, engine=engine)
    if (judge := _judge(arguments, wishes)) is not None:
        urls = arguments.judge_url or arguments.url
        key = arguments.judge_key_env or (None if arguments.judge_url else arguments.api_key_env)
        named = {"judge": judge, "judge_urls": urls, "judge_key": key} if urls else None
        what = "the url of the judge's server, as http://host:8000/v1"
        fill(named, what, "--judge-url", lambda said: {"judge": judge, "judge_urls": [said], "judge_key": key})
    return wishes, told


def _judge(arguments: argparse.Namespace, wishes: Wishes) -> str | None:
    """Return the language model that is to judge answers; None: another measure does."""
    if arguments.judge is not None or wishes.quality != "reward_model":
        judge: str | None = arguments.judge
        return judge
    chosen = choose("what judges the answers", JUDGES, "reward-model")
    return ask("the judge, as its server names it", "--judge") if chosen == "judge" else None


def _test(arguments: argparse.Namespace) -> dict[str, Any]:
    """Look at the test of one's own."""
    if arguments.test is None:
        return {}
    seen = look_at(path_of(arguments.test), {})
    answer = seen.columns.get("reference") or seen.columns.get("response", "answer")
    columns = {"question": seen.columns["prompt"], "answer": answer}
    return {"test": _beside(arguments.test, arguments.recipe), "test_columns": columns, "test_marked": seen.marked}


def _valid(wishes: Wishes, path: Path) -> str:
    """Return the text of the recipe. Raises `PersynError` where it is not valid."""
    from persyn_hf.recipe.file import read_recipe
    from persyn_hf.recipe.yaml_text import read_yaml
    from persyn_hf.runner.plan import make_plan

    text = text_of(wishes)
    make_plan(read_recipe(read_yaml(text, str(path)), path.parent))
    return text


def _unused(unused: Sequence[str], columns: dict[str, str], kind: str) -> str:
    """Say which columns are not read, and by which option they would be."""
    uses = ["reference", *(["quality"] if kind == "answers" else []), "topic"]
    options = " or ".join(f"{what}=NAME" for what in uses if what not in columns)
    return f"  not used: {', '.join(unused)}" + (f"; to use one: --columns {options}" if options else "")


def _name(recipe: Path) -> str:
    kept = "".join(sign if sign.isascii() and (sign.isalnum() or sign in "._-") else "-" for sign in recipe.stem)
    return kept.strip("-._")[:64].rstrip("-._") or "my"


def _model(model: str, recipe: Path) -> str:
    """Return an id as it is, and a folder as the recipe must name it."""
    return _beside(model, recipe) if os.path.isdir(path_of(model)) else model


def _beside(file: str, recipe: Path) -> str:
    """Return the path of a file as a recipe names it: from the recipe's own folder."""
    path = path_of(file)
    if path.is_absolute() or file.startswith("persyn:"):
        return file if file.startswith("~") else str(path)
    near = os.path.relpath(path.absolute(), recipe.absolute().parent)
    return near if near.startswith("..") else f"./{near}"
