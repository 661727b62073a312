"""Untrusted text: shown as text whatever it holds, its formulas as MathML of known elements only."""

import time
from html import unescape
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from space_samples import EVIL

from persyn_hf.space.maths import ATTRIBUTES, ELEMENTS, with_maths


PIECES = [
    *EVIL,
    "$",
    "$$",
    "\\(",
    "\\)",
    "\\[",
    "\\]",
    "{",
    "}",
    "\\frac",
    "\\text{<b>}",
    "&",
    "<",
    ">",
    '"',
    "'",
    "\\",
]
PIECES += [
    "\\begin{aligned}",
    "\\end{aligned}",
    "\\boxed{",
    "x^2",
    "&lt;script&gt;",
    "\\href{u}{v}",
    "\\unicode{60}",
    "\0",
]


class Tags(HTMLParser):
    """What a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, attrs))


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=12).map("".join))
@settings(max_examples=300, deadline=None)
def test_only_known_elements_come_out(text: str) -> None:
    for tag, attributes in Tags(str(with_maths(text))).found:
        assert tag in ELEMENTS
        assert all(value in ATTRIBUTES[name] for name, value in attributes)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$x^2$", '<math display="inline"><mrow><msup><mi>x</mi><mn>2</mn></msup></mrow></math>'),
        ("it costs $5 and $6", "it costs $5 and $6"),
        (r"a \$5 b", r"a \$5 b"),
        ("$unclosed <b>", "$unclosed &lt;b&gt;"),
        (r"$\nosuch$", r'<math display="inline"><mrow><mi>\nosuch</mi></mrow></math>'),
        (r"$\newcommand{\a}{\b\b}\a$", r"$\newcommand{\a}{\b\b}\a$"),
        (r"$\rule{9em}{9em}$", '<math display="inline"><mrow><mspace /></mrow></math>'),
        (r"\boxed{x", r"\boxed{x"),
        ("", ""),
    ],
)  # fmt: skip
def test_formulas_and_what_is_none(text: str, expected: str) -> None:
    assert str(with_maths(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "$$" * 500_000,
        "\\(" * 500_000,
        "\\[" * 500_000,
        "$a " * 300_000,
        "\\boxed{" * 100_000,
        "$" + "{" * 100_000 + "$",
    ]
    + ["$" + "x^{" * 600 + "}" * 600 + "$", "$" + "\\frac{1}{" * 200 + "}" * 200 + "$", "$" + "x_" * 999 + "$"],
    ids=lambda text: text[:8],
)
def test_a_bomb_is_text_soon(text: str) -> None:
    begun = time.monotonic()
    found = str(with_maths(text))
    assert time.monotonic() - begun < 5  # quadratic time would be minutes
    assert "<" not in found and len(found) == len(text)


@pytest.mark.parametrize(
    "text", ["From $1,500 to $2,500 a month.", "sums: $7+$8=$15", "It costs $5 or $6.", "-$3 and -$4", "$10/$20"]
)
def test_prices_are_no_formulas(text: str) -> None:
    assert unescape(str(with_maths(text))) == text


def test_a_formula_beside_a_price_is_one() -> None:
    shown = str(with_maths("For $20 you get $x^2$ of them, $y = 3$."))
    assert shown.count("<math") == 2 and shown.startswith("For $20 you get <math")
