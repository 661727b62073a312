"""The environment of the templates: everything that is put into a page is escaped, unless a filter here made it."""

import functools
from importlib import resources
from typing import Any

from persyn_hf.recipe.roles import Teacher
from persyn_hf.report.figures import teacher_colours
from persyn_hf.space.maths import with_maths


SHORT = 140  # characters of a prompt in a list


def render(name: str, **values: Any) -> str:
    """A template of `templates/` filled."""
    return str(_environment().get_template(f"{name}.html").render(**values))


def message(title: str, text: str, tone: str = "empty") -> str:
    return render("message", title=title, text=text, tone=tone)


def style() -> str:
    return _read("style.css") or ""


def looks(teachers: list[Teacher]) -> list[dict[str, Any]]:
    """What a template shows of each teacher: the colour of its family, the darker the larger."""
    colours = teacher_colours(teachers)
    return [teacher.model_dump() | {"colour": _hex(colours[teacher.name])} for teacher in teachers]


def _hex(colour: tuple[float, float, float]) -> str:
    return "#" + "".join(f"{round(255 * part):02x}" for part in colour)


@functools.cache
def _environment() -> Any:
    import jinja2

    found = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "maths": lambda text: with_maths(text or ""),
        "percent": lambda share: f"{share:.1%}",
        "points": lambda share: f"{100 * share:+.1f}",
        "number": lambda number: f"{int(number):,}",
        "plain": lambda number: "–" if number is None else f"{number:,.6g}" if number < 1e6 else f"{number:,.0f}",
        "real": lambda number: "–" if number is None else f"{number:.3g}",
        "short": lambda text: text if len(text) <= SHORT else f"{text[:SHORT]}…",
        "verdict": lambda correct: {True: "right", False: "wrong", None: "unjudged"}[correct],
    }
    return found


def _read(name: str) -> str | None:
    path = resources.files("persyn_hf.space") / "templates" / name
    return path.read_text(encoding="utf-8") if path.is_file() else None
