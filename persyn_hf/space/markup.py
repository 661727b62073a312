"""Untrusted text for the page as Markdown: what comes out is of known elements, and nothing in it is loaded.

Raw HTML is text, pictures are their descriptions, links show where they lead. Formulas are read before the marks of
Markdown, which they are full of, but after its code, which is shown as it is written. An example:

    "**So** $a_1 * b_1$, see [here](https://a.org)"
    gives <p><strong>So</strong> <math>...</math>, see here (<a href="https://a.org" ...>https://a.org</a>)</p>
"""

import functools
import html
import re
from collections.abc import MutableMapping, Sequence
from typing import Any

from markupsafe import Markup

from persyn_hf.space.maths import MANY, Formula, formula_at, with_maths


LONGEST = 20_000  # characters that are read as Markdown; its worst texts of this length take half a second
CELLS = 10_000  # of the tables of a text, at most
WIDEST = 80  # characters of an address that are shown
PLACES = re.compile("\ue000([0-9]+)\ue001")  # of formulas, until all else is cleaned; a text cannot hold them
LITERAL = re.compile(r"(?<=[\w)])(?<!\*)\*(?=[\w(])|(?<=[\d)])(?<!\*)\*\*(?=[\d(])")  # "2*3*4" is no emphasis
ELEMENTS = {
    *("p", "br", "hr", "em", "strong", "code", "pre", "blockquote", "ul", "ol", "li", "a"),
    *("table", "thead", "tbody", "tr", "th", "td"),
}
LINK = {"rel": "noopener noreferrer nofollow", "target": "_blank"}


@functools.lru_cache(maxsize=128)
def with_markdown(text: str) -> Markup:
    """Return a text as HTML of `ELEMENTS` and MathML; a text that is longer than `LONGEST` as it is written."""
    import nh3

    if len(text) > LONGEST:
        return Markup('<p class="written">%s</p>') % with_maths(text)
    env: dict[str, Any] = {"formulas": []}
    rendered = _parser(_has_room(text)).render(_without_places(text), env)
    cleaned = nh3.clean(
        rendered,
        tags=ELEMENTS,
        attributes={"a": {"href"}, "ol": {"start"}},
        allowed_classes={"p": {"head"}},
        set_tag_attribute_values={"a": {"target": LINK["target"]}},
        link_rel=LINK["rel"],
        url_schemes={"http", "https"},
    )
    formulas = [str(formula.rendered) for formula in env["formulas"]]
    return Markup(PLACES.sub(lambda place: "".join(formulas[int(place[1][:4]) :][:1]), cleaned))


def without_markup(text: str) -> str:
    """Return a short text without its marks, on one line, for where there is no room for more."""
    parts: list[str] = []
    for block in _parser(_has_room(text)).parse(_without_places(text), {"formulas": []}):
        breaks = ("softbreak", "hardbreak")
        parts += [" " if part.type in breaks else part.content for part in block.children or [block]] + [" "]
    return " ".join("".join(parts).split())


def _without_places(text: str) -> str:
    return text.replace("\ue000", "\ufffd").replace("\ue001", "\ufffd")


def _has_room(text: str) -> bool:
    """Tell whether tables of a text stay small: a row of two signs gets as many cells as the head has."""
    lines = text.split("\n")
    return len(lines) * max(line.count("|") for line in lines) <= CELLS


@functools.cache
def _parser(has_tables: bool) -> Any:
    """Return the parser: CommonMark, line breaks kept, formulas before emphasis and escapes."""
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable("table" if has_tables else [])
    may_interrupt = {"alt": ["paragraph", "reference", "blockquote", "list", "table"]}
    parser.block.ruler.before("fence", "formula", _formula_block, may_interrupt)
    parser.inline.ruler.before("escape", "formula", _formula)
    parser.inline.ruler.before("emphasis", "literal", _literal)
    for kind, rule in RULES.items():
        parser.add_render_rule(kind, rule)
    return parser


def _formula(state: Any, silent: bool) -> bool:
    """Read a formula within a line."""
    found = formula_at(state.src, state.pos) if state.src[state.pos] in "$\\" else None
    if found is None or found.end > state.posMax or len(state.env["formulas"]) >= MANY:
        return False
    if not silent:
        _add(state, found)
    state.pos = found.end
    return True


def _formula_block(state: Any, first: int, last: int, silent: bool) -> bool:
    """Read a formula that begins a line, ends one and may hold empty lines, items and quotes in between."""
    start = state.bMarks[first] + state.tShift[first]
    if state.is_code_block(first) or state.src[start : start + 2] not in ("$$", "\\["):
        return False
    found = formula_at(state.src, start)
    line = first
    while found is not None and line < last and state.eMarks[line] < found.end:
        line += 1
    if found is None or line >= last or state.src[found.end : state.eMarks[line]].strip():
        return False
    if len(state.env["formulas"]) >= MANY:
        return False
    if not silent:
        _add(state, found)
        state.line = line + 1
    return True


def _add(state: Any, found: Formula) -> None:
    """Add the token of a formula, which is its place among all of the text."""
    token = state.push("formula", "", 0)
    token.content, token.meta = found.source, {"place": len(state.env["formulas"])}
    state.env["formulas"].append(found)


def _literal(state: Any, silent: bool) -> bool:
    """Read a star between two signs of a term as a star."""
    found = LITERAL.match(state.src, state.pos)
    if found is None:
        return False
    if not silent:
        state.pending += found[0]
    state.pos = found.end()
    return True


def _place(_: Any, tokens: Sequence[Any], at: int, *__: Any) -> str:
    return f"\ue000{tokens[at].meta['place']}\ue001"


def _link(_: Any, tokens: Sequence[Any], at: int, *__: Any) -> str:
    return _anchor(tokens[at]) if tokens[at].markup == "autolink" else ""


def _link_end(_: Any, tokens: Sequence[Any], at: int, *__: Any) -> str:
    """Return the address behind the words of a link, as a link of its own where it leads to the web."""
    start = next(place for place in range(at, -1, -1) if tokens[place].type == "link_open")  # links hold no links
    opened = tokens[start]
    anchor, shown = _anchor(opened), html.escape(_shortened(str(opened.attrs["href"])))
    if opened.markup == "autolink":
        return "</a>" if anchor else ""
    return f" ({anchor}{shown}{'</a>' if anchor else ''})" if shown else ""


def _anchor(token: Any) -> str:
    """Return the start of the link of a token, "" where it leads elsewhere than to the web."""
    address = str(token.attrs["href"])
    is_web = address.lower().startswith(("http://", "https://"))
    return f'<a href="{html.escape(address)}">' if is_web else ""


def _shortened(address: str) -> str:
    return address if len(address) <= WIDEST else f"{address[:WIDEST]}…"


def _picture(_: Any, tokens: Sequence[Any], at: int, *__: Any) -> str:
    return html.escape(tokens[at].content)


def _written(_: Any, tokens: Sequence[Any], at: int, options: Any, env: MutableMapping[str, Any]) -> str:
    return f"<pre><code>{html.escape(tokens[at].content)}</code></pre>\n"


RULES = {
    "formula": _place,
    "link_open": _link,
    "link_close": _link_end,
    "image": _picture,
    "heading_open": lambda *_: '<p class="head">',  # headings are the page's own
    "heading_close": lambda *_: "</p>\n",
    "fence": _written,
    "code_block": _written,
}
