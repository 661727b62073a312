"""Untrusted text as Markdown: known elements only, nothing loaded, formulas before marks, code as it is written."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from space_samples import EVIL
from test_space_maths import PIECES, Tags

from persyn_hf.space import maths
from persyn_hf.space.markup import ELEMENTS, LINK, LONGEST, with_markdown, without_markup


MARKS = [
    *PIECES,
    *("*", "**", "_", "`", "```", "~~~\n", "#", "\n# ", "\n", "\n\n", "> ", "- ", "1. ", "    ", "|a|b|\n|-|-|\n|"),
    *("[", "](", ")", "![", "](http://a.org/x.png)", "](javascript:alert(1))", "<http://a.org>", "<a@b.c>"),
    *("[a]: http://b.org 'title'\n", "[a]", "&#xe000;0&#xe001;", "\ue0000\ue001", "&lt;img src=x&gt;", "<b>", "<!--"),
    *("http://a.org/\"onclick='x", '](<http://a.org/" onclick=x>)', "](data:text/html,x)", "](//a.org)", "\\["),
]


def check(text: str) -> None:
    """Nothing but known elements and their known attributes comes out."""
    for tag, attributes in Tags(str(with_markdown(text))).found:
        assert tag in ELEMENTS | maths.ELEMENTS
        for name, value in attributes:
            match tag, name:
                case "a", "href":
                    assert (value or "").lower().startswith(("http://", "https://"))
                case "a", _:
                    assert LINK[name] == value
                case "ol", "start":
                    assert (value or "").isdigit()
                case "p", "class":
                    assert value in ("head", "written")
                case _:
                    assert value in maths.ATTRIBUTES[name]


@given(st.lists(st.sampled_from(MARKS) | st.text(max_size=5), max_size=14).map("".join))
@settings(max_examples=300, deadline=None)
def test_only_known_elements_come_out(text: str) -> None:
    check(text)
    assert "\n" not in without_markup(text)


@pytest.mark.parametrize("text", EVIL)
def test_planted_texts_are_text(text: str) -> None:
    check(text)
    assert not {"script", "img", "iframe", "svg"} & {tag for tag, _ in Tags(str(with_markdown(text))).found}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("## Solution\n**Answer:** 5", '<p class="head">Solution</p>\n<p><strong>Answer:</strong> 5</p>\n'),
        ("one\ntwo", "<p>one<br>\ntwo</p>\n"),
        ("From $2,000-$3,000 it *costs* $5.", "<p>From $2,000-$3,000 it <em>costs</em> $5.</p>\n"),
        ("2*3*4 = 24, 2**3 + 4**5, a*b*c", "<p>2*3*4 = 24, 2**3 + 4**5, a*b*c</p>\n"),
        ("**Step 1**: go", "<p><strong>Step 1</strong>: go</p>\n"),
        ("`$x$ *a* <b>`", "<p><code>$x$ *a* &lt;b&gt;</code></p>\n"),
        (r"\(a_b_c\) *is* \[\def\a{b}\] \(none", r"<p>\(a_b_c\) <em>is</em> \[\def\a{b}\] (none</p>" + "\n"),
        ("```py\n$x$ & *a*\n```", "<pre><code>$x$ &amp; *a*\n</code></pre>\n"),
        ("![a *cat*](http://evil.org/x.png)", "<p>a *cat*</p>\n"),
        ("[here](javascript:alert(1))", "<p>[here](javascript:alert(1))</p>\n"),
        ("[here](/file)", "<p>here (/file)</p>\n"),
        (
            "[here](https://a.org?x=1&y=2)",
            '<p>here (<a href="https://a.org?x=1&amp;y=2" target="_blank" rel="noopener noreferrer nofollow">'
            "https://a.org?x=1&amp;y=2</a>)</p>\n",
        ),
        (
            "<https://a.org>",
            '<p><a href="https://a.org" target="_blank" rel="noopener noreferrer nofollow">https://a.org</a></p>\n',
        ),
        ("<u@a.org>", "<p>u@a.org</p>\n"),
        ("<div onclick=x>", "<p>&lt;div onclick=x&gt;</p>\n"),
        ("", ""),
    ],
)
def test_markdown_and_what_is_none(text: str, expected: str) -> None:
    assert str(with_markdown(text)) == expected


@pytest.mark.parametrize(
    ("text", "source", "around"),
    [
        ("so $a_1 * b_1 * c_1$ *is*", "a_1 * b_1 * c_1", "<p>so {} <em>is</em></p>\n"),
        (r"so \(a_1 *b_2*\) and \[x\]", "a_1 *b_2*", None),
        ("\\[\n- x\n\n= 3\n\\]\nafter", "\n- x\n\n= 3\n", "{}<p>after</p>\n"),
        ("$$\n# x\n$$", "\n# x\n", "{}"),
        ("text\n$$x$$\nmore", "x", "<p>text</p>\n{}<p>more</p>\n"),
        ("> $$y$$", "y", "<blockquote>\n{}</blockquote>\n"),
        (r"**\boxed{*5*}**", r"\boxed{*5*}", "<p><strong>{}</strong></p>\n"),
        ("|a|\n|-|\n|$x_1$|", "x_1", None),
    ],
)
def test_a_formula_is_read_before_the_marks_in_it(text: str, source: str, around: str | None) -> None:
    shown = str(with_markdown(text))
    start, end = shown.index("<math"), shown.index("</math>") + len("</math>")
    assert shown[start:end] in {str(maths._mathml(source, display)) for display in ("inline", "block")}
    if around is not None:
        assert shown[:start] + "{}" + shown[end:] == around


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("## Solve\n- **now** `x`\n", "Solve now x"),
        ("Find $x^2$\nof\n\n\\[y\\]", "Find x^2 of y"),
        ("[here](http://a.org) ![cat](b.png)", "here cat"),
        ("|a|b|\n|-|-|\n|1|2|", "a b 1 2"),
        ("```\ncode()\n```", "code()"),
        ("<b>bold</b> & co", "<b>bold</b> & co"),
        ("", ""),
    ],
)
def test_a_preview_is_text_alone(text: str, expected: str) -> None:
    assert without_markup(text) == expected


HOSTILE = {
    name: (piece * LONGEST)[:LONGEST]
    for name, piece in {
        "brackets": "[",
        "stars": "*",
        "quotes": ">",
        "backticks": "`",
        "pictures": "![](",
        "links": "[](a",
        "items": "- ",
        "numbers": "1. ",
        "emphasis": "a_*",
        "strong": "**a*b ",
        "references": "[a]: b\n",
        "headings": "a\n=\n",
        "signs": "<&\\~|$",
        "formulas": "$$ \\( ",
        "rows": "|\n",
        "quoted lists": "> - ",
        "entities": "&#xe000;",
    }.items()
} | {
    "nested lists": "\n".join("  " * depth + "- a" for depth in range(140)),
    "nested brackets": "[" * (LONGEST // 2) + "]" * (LONGEST // 2),
    "a wide table": "|a" * 2500 + "\n" + "|-" * 2500 + "\n" + "|\n" * 5_000,
    "a long table": "|a|\n|-|\n" + "|\n" * (LONGEST // 2 - 5),
    "runs of backticks": "".join("`" * length + " " for length in range(1, 198)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_markdown_ends_soon(name: str) -> None:
    begun = time.monotonic()
    check(HOSTILE[name][:LONGEST])
    assert time.monotonic() - begun < 10  # half a second alone; quadratic growth would be minutes


@pytest.mark.parametrize("columns", [1, 30, 2500])
def test_a_table_grows_no_further_than_its_text(columns: int) -> None:
    text = "|a" * columns + "\n" + "|-" * columns + "\n" + "|\n" * 3_000
    assert len(with_markdown(text[:LONGEST])) < 20 * LONGEST


def test_what_is_too_long_is_shown_as_it_is_written() -> None:
    shown = str(with_markdown("*" * (LONGEST + 1)))
    assert shown == f'<p class="written">{"*" * (LONGEST + 1)}</p>'
