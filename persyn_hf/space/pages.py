"""The templates of the pages: what is put into a page is escaped, unless a filter here made it."""

import functools
import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any

from persyn_hf.recipe.roles import Teacher
from persyn_hf.report.colours import teacher_fills
from persyn_hf.space.markup import with_markdown, without_markup
from persyn_hf.text import readable


SHORT = 140  # characters of a prompt in a list
MEDIA = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


def render(name: str, /, **values: Any) -> str:
    """Return a template of `templates/`, filled with the values."""
    return str(_environment().get_template(f"{name}.html").render(**values))


def message(title: str, text: str, tone: str = "empty") -> str:
    """Return a message that stands in place of a view, as HTML; `tone` is "empty" or "error"."""
    return render("message", title=title, lines=[readable(text)], tone=tone)


def messages(lines: Sequence[str]) -> str:
    """Return what is wrong with an address as HTML, "" where nothing is."""
    title = "Not all of this address can be shown"
    return render("message", title=title, lines=[readable(line) for line in lines], tone="error") if lines else ""


def looks(teachers: Sequence[Teacher]) -> dict[str, dict[str, Any]]:
    """Return what a template shows of each teacher, by name: its fields, its colour and its pattern."""
    fills = teacher_fills(teachers)
    return {
        teacher.name: teacher.model_dump()
        | {"colour": fills[teacher.name].colour, "pattern": fills[teacher.name].pattern}
        for teacher in teachers
    }


@functools.cache
def assets() -> dict[str, str]:
    """Return the name of each file of `static/` with its digest in it, under which it never changes."""
    names = (path.name for path in (resources.files("persyn_hf.space") / "static").iterdir() if path.is_file())
    return {name: f"{hashlib.sha256(_file(name)).hexdigest()[:12]}-{name}" for name in names}


def asset(name: str) -> tuple[bytes, str] | None:
    """Return the content and the media type of a file by its name in `assets`, None where there is none."""
    for plain, served in assets().items():
        if served == name:
            return _file(plain), MEDIA[plain.rpartition(".")[2]]
    return None


def _file(name: str) -> bytes:
    return (resources.files("persyn_hf.space") / "static" / name).read_bytes()


@functools.cache
def _environment() -> Any:
    """Return the environment of the templates, with the filters that they use."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "markdown": lambda text: with_markdown(text or ""),
        "percent": lambda share: f"{share:.1%}",
        "whole": lambda share: f"{share:.0%}",
        "points": lambda share: f"{100 * share:+.1f}",
        "number": lambda number: f"{int(number):,}",
        "plain": lambda number: "–" if number is None else f"{number:,.6g}" if number < 1e6 else f"{number:,.0f}",
        "real": lambda number: "–" if number is None else f"{number:.3f}",
        "size": size,
        "preview": lambda text: short(without_markup(text)),
        "verdict": lambda correct: {True: "right", False: "wrong", None: "not judged"}[correct],
    }
    environment.globals["messages"] = messages
    return environment


def short(text: str) -> str:
    """Return the beginning of a text."""
    return text if len(text) <= SHORT else f"{text[:SHORT]}…"


def size(params_b: float | None) -> str:
    """Return billions of parameters as text: 0.00029 is 0.29 M, 72 is 72 B."""
    if params_b is None:
        return "–"
    return f"{params_b:,.4g} B" if params_b >= 0.1 else f"{1000 * params_b:,.3g} M"


def _template(name: str) -> str | None:
    """Return a file of `templates/` as text, None where there is none of this name."""
    path = resources.files("persyn_hf.space") / "templates" / name
    return path.read_text(encoding="utf-8") if path.is_file() else None
