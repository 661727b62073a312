"""The templates of the pages: what is put into a page is escaped, unless a filter here made it."""

import functools
from importlib import resources
from typing import Any

from persyn_hf.recipe.roles import Teacher
from persyn_hf.report.figures import teacher_colours
from persyn_hf.space.maths import with_maths
from persyn_hf.text import readable


SHORT = 140  # characters of a prompt in a list


def render(name: str, **values: Any) -> str:
    """Return a template of `templates/`, filled with the values."""
    return str(_environment().get_template(f"{name}.html").render(**values))


def message(title: str, text: str, tone: str = "empty") -> str:
    """Return a message that stands in place of a view, as HTML; `tone` is "empty" or "error"."""
    return render("message", title=title, text=readable(text), tone=tone)


def style() -> str:
    """Return the style sheet of the page."""
    return _read("style.css") or ""


def looks(teachers: list[Teacher]) -> list[dict[str, Any]]:
    """Return what a template shows of each teacher: its fields and its colour, the darker the larger it is."""
    colours = teacher_colours(teachers)
    return [teacher.model_dump() | {"colour": _hex(colours[teacher.name])} for teacher in teachers]


def _hex(colour: tuple[float, float, float]) -> str:
    """Return a colour of three parts from 0 to 1 as #rrggbb."""
    return "#" + "".join(f"{round(255 * part):02x}" for part in colour)


@functools.cache
def _environment() -> Any:
    """Return the environment of the templates, with the filters that they use."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "maths": lambda text: with_maths(text or ""),
        "percent": lambda share: f"{share:.1%}",
        "points": lambda share: f"{100 * share:+.1f}",
        "number": lambda number: f"{int(number):,}",
        "plain": lambda number: "–" if number is None else f"{number:,.6g}" if number < 1e6 else f"{number:,.0f}",
        "real": lambda number: "–" if number is None else f"{number:.3g}",
        "short": lambda text: text if len(text) <= SHORT else f"{text[:SHORT]}…",
        "verdict": lambda correct: {True: "right", False: "wrong", None: "unjudged"}[correct],
    }
    return environment


def _read(name: str) -> str | None:
    """Return a file of `templates/` as text, None where there is none of this name."""
    path = resources.files("persyn_hf.space") / "templates" / name
    return path.read_text(encoding="utf-8") if path.is_file() else None
