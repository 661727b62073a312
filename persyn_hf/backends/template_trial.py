"""Try a chat template of others in a child process, whose time and memory are limited, before it is used here.

A template is a program: it may loop 10^10 times or write 10^9 letters, and nothing in this process could stop it. The
child renders short conversations as transformers does (`render_jinja_template`), without importing it, so it takes a
tenth of a second. A template that merely fails is not judged here: who uses it says so in better words.
"""

import contextlib
import datetime
import functools
import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from persyn_hf.errors import InputError


SECONDS = 5  # of processor time, of which an ordinary template and the start of the child take 0.2
MEMORY = 1 << 30  # bytes of address space, of which they take 0.05
LETTERS = 1_000_000  # of one conversation of a few words
CONVERSATIONS = tuple(
    tuple({"role": role, "content": text} for role, text in turns)
    for turns in (
        [("user", "Hi")],
        [("system", "Be brief."), ("user", "Hi")],
        [("user", "Hi"), ("assistant", "Ho"), ("user", "Hey")],
        [("user", "Hi"), ("assistant", "<think>\nHm\n</think>\n\nHo")],
    )
)
LONG, LARGE = "long", "large"  # what the child may say


def check_bounded(template: str, special_tokens: Mapping[str, Any], model: str, advice: str) -> None:
    """Refuse a template that takes too much time or memory, or writes too much, for conversations of a few words.

    Args:
        template: the text of the template.
        special_tokens: the tokenizer's `special_tokens_map`, which templates read.
        model: the name of its model, for the message.
        advice: what to do about it, for the message.

    Raises:
        InputError: says which bound it passed.
    """
    fault = _fault(json.dumps([template, dict(special_tokens)], default=str), SECONDS)
    if fault is not None:
        raise InputError(f"the chat template of `{model}` {fault} for a conversation of a few words; {advice}")


@functools.lru_cache(maxsize=256)
def _fault(task: str, seconds: int) -> str | None:
    """Return in words which bound a template passes in a child process; None where it passes none."""
    child = subprocess.run(
        [sys.executable, "-m", __name__, str(seconds)],
        input=task.encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    if child.returncode < 0:  # by the kernel, most likely for its time
        return f"takes more than {seconds} seconds of processor time"
    return {
        LONG: f"writes more than {LETTERS:,} letters",
        LARGE: f"takes more than {MEMORY >> 30} GiB of memory",
    }.get(child.stdout.decode())


def _try() -> None:
    """Render every conversation of a task that comes in, and say which bound is passed, if one is."""
    task = json.load(sys.stdin)
    _limit(int(sys.argv[1]))
    try:
        template = _environment().from_string(task[0])
    except MemoryError:
        sys.stdout.write(LARGE)
        return
    for turns in CONVERSATIONS:
        for to_answer in (True, False):
            given = {"messages": turns, "tools": None, "documents": None, "add_generation_prompt": to_answer}
            try:
                length = len(template.render(**(task[1] | given)))
            except MemoryError:
                sys.stdout.write(LARGE)
                return
            except Exception:  # noqa: BLE001, S112  # templates refuse by raising, and may raise anything
                continue
            if length > LETTERS:
                sys.stdout.write(LONG)
                return


def _environment() -> Any:
    """Return the environment of Jinja in which transformers renders a template."""
    import jinja2.ext
    from jinja2 import nodes
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(jinja2.ext.Extension):
        """The block `generation`, by which transformers can tell what an assistant said: its content is written."""

        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            """Return the content of the block."""
            line = next(parser.stream).lineno
            return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)

    def refuse(message: object) -> None:
        raise jinja2.TemplateError(str(message))

    def to_json(value: object, **options: Any) -> str:
        return json.dumps(value, **({"ensure_ascii": False} | options))

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = datetime.datetime.now().strftime
    return environment


def _limit(seconds: int) -> None:
    """Limit this process; systems other than Linux refuse or ignore the limit of memory."""
    import resource

    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, MEMORY),
    ):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(limit, (value, value))


if __name__ == "__main__":
    _try()
