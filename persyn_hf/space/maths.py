"""Untrusted text for the page: escaped, with its formulas as MathML of known elements and nothing else.

The formulas are converted here, not in the browser: no script looks at the text, macros are refused, and what comes
out is copied element by element from a list, so that there are no links, styles, pictures or sizes in it.
"""

import functools
import html
import re
from dataclasses import dataclass
from xml.etree import ElementTree

from markupsafe import Markup, escape


LONGEST = 2_000  # characters of a formula
MANY = 200  # formulas of one text
DEEP = 60  # nested groups of a formula
LARGEST = 100_000  # characters of its MathML
MACROS = re.compile(r"\\(?:def|let|newcommand|renewcommand|providecommand|DeclareMathOperator)")  # they may multiply

OPENERS = {"$$": ("$$", "block"), "\\[": ("\\]", "block"), "\\(": ("\\)", "inline"), "$": ("$", "inline")}
OPENER = re.compile(r"\$\$|\\\[|\\\(|(?<![\\\w])\$(?=[^\s$])|\\boxed(?=\{)")
ELEMENTS = {
    *("math", "mrow", "mi", "mn", "mo", "ms", "mtext", "mspace", "mfrac", "msqrt", "mroot", "menclose", "mphantom"),
    *("msub", "msup", "msubsup", "munder", "mover", "munderover", "mmultiscripts", "mprescripts"),
    *("mtable", "mtr", "mtd", "mpadded", "mstyle"),
}
ATTRIBUTES = {
    "display": {"block", "inline"},
    "displaystyle": {"true", "false"},
    "mathvariant": {"normal", "bold", "italic", "bold-italic", "double-struck", "script", "fraktur", "monospace"},
    "stretchy": {"true", "false"},
    "fence": {"true", "false"},
    "form": {"prefix", "infix", "postfix"},
    "linethickness": {"0"},
    "columnalign": {"left", "center", "right"},
    "accent": {"true", "false"},
    "movablelimits": {"true", "false"},
    "largeop": {"true", "false"},
    "notation": {"box"},
}
ALIGNED = re.compile(r"\\(begin|end)\{(?:aligned|align\*?|gathered|gather\*?|split)\}")  # not known to the converter


@dataclass(frozen=True, kw_only=True)
class Formula:
    """A formula in a text: `source` is it as it is written, without its dollars; `end` is the place behind it."""

    source: str
    end: int
    rendered: Markup


def with_maths(text: str) -> Markup:
    """Return a text escaped, with its formulas rendered."""
    parts: list[Markup] = []
    end = number = 0
    while number < MANY and (opener := OPENER.search(text, end)):
        formula = formula_at(text, opener.start())
        number += 1
        parts.append(escape(text[end : opener.start()]))
        parts.append(escape(opener[0]) if formula is None else formula.rendered)
        end = opener.end() if formula is None else formula.end
    parts.append(escape(text[end:]))
    return Markup("").join(parts)


def formula_at(text: str, place: int) -> Formula | None:
    """Return the formula that begins at a place, None where none does; one that cannot be converted stays text."""
    opener = OPENER.match(text, place)
    if opener is None:
        return None
    start = opener.end()
    closer, display = OPENERS.get(opener[0], ("", "inline"))
    stop = _closed(text, start, closer) if closer else _matched(text, start)
    source = text[start if closer else place : stop] if stop >= 0 else ""
    if not _is_formula(source, closer):
        return None
    end = stop + len(closer)
    return Formula(source=source, end=end, rendered=_mathml(source, display) or escape(text[place:end]))


def _closed(text: str, start: int, closer: str) -> int:
    """Return where a formula ends, -1 if nowhere near; `\\$` is a sign in it.

    A single `$` before a digit is money, as in "$2,000-$3,000", and closes nothing (Pandoc has the same rule).
    """
    end = start + LONGEST + len(closer)
    stop = text.find(closer, start, end)
    while stop > start and closer[0] == "$" and text[stop - 1] == "\\":
        stop = text.find(closer, stop + 1, end)
    is_money = closer == "$" and stop >= 0 and text[stop + 1 : stop + 2].isdigit()
    return -1 if is_money else stop


def _matched(text: str, start: int) -> int:
    """Return the place behind the brace that closes the one at `start`, -1 if nowhere near."""
    depth = 0
    for sign in re.finditer(r"[{}]", text[start : start + LONGEST]):
        depth += 1 if sign[0] == "{" else -1
        if depth == 0:
            return start + sign.end()
    return -1


def _is_formula(text: str, closer: str) -> bool:
    """Tell whether a text is a formula: between single dollars there is often money, "costs $5 and $6"."""
    return bool(text.strip()) and (closer != "$" or ("\n" not in text and not text[-1].isspace()))


@functools.lru_cache(maxsize=4096)
def _mathml(formula: str, display: str) -> Markup | None:
    """Return a formula as MathML, None where the converter does not know it."""
    from latex2mathml.converter import convert_to_element

    if MACROS.search(formula) or _depth(formula) > DEEP:
        return None
    try:
        cleaned = _cleaned(convert_to_element(ALIGNED.sub(r"\\\1{matrix}", formula), display=display))
    except Exception:  # the converter meets whatever a model may write: any fault of it means text
        return None
    text = ElementTree.tostring(cleaned, encoding="unicode")
    return Markup(text) if len(text) <= LARGEST else None


def _depth(formula: str) -> int:
    """Return how deep a converter could have to go: braces, `\\left` and environments open a group, scripts nest."""
    depth = deepest = 0
    for sign in re.findall(r"\\left|\\right|\\begin|\\end|[{}]", formula):
        depth += 1 if sign in ("{", "\\left", "\\begin") else -1
        deepest = max(deepest, depth)
    return deepest


def _cleaned(element: ElementTree.Element) -> ElementTree.Element:
    """Return a copy of an element with what is known of it; an element of another name becomes a group."""
    name = element.tag.rpartition("}")[2]
    copy = ElementTree.Element(name if name in ELEMENTS else "mrow")
    copy.text = html.unescape(element.text or "")  # the converter writes signs as references
    for key, value in element.attrib.items():
        if value in ATTRIBUTES.get(key, ()):
            copy.set(key, value)
    copy.extend(_cleaned(child) for child in element)
    return copy
