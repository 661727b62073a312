"""Text from outside on its way to people: what a terminal, a table, a picture and a file may get of it."""

import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from persyn_hf.cli.main import main
from persyn_hf.console import say
from persyn_hf.errors import PersynError, reason
from persyn_hf.text import first_line, one_line, readable


ANY = st.text(st.characters())  # half surrogates too
NASTY = "\x1b[2J\x1b]0;owned\x07a\u202eb\ud800c [bold]d[/b] :smile:\x00"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mno such\tmodel\x1b[0m\nat all", "no such model\nat all"),
        ("\x1b]0;title\x07a\x1b]8;;http://h\x1b\\b", "ab"),
        ("a\u202eb\u2066c\u200f", "abc"),
        ("half \ud83d of \U0001f600", "half \ufffd of \U0001f600"),
        ("one\r\ntwo\x0bthree\u2028four", "one\ntwo\nthree\nfour"),
        ("می\u200cروم 数学 👩\u200d🔬 e\u0301", "می\u200cروم 数学 👩\u200d🔬 e\u0301"),
        ("non\u00a0breaking, so\u00adft, \ufeffBOM", "non breaking, soft, BOM"),
        ("\x9b31m", "31m"),
        ("", ""),
    ],
)
def test_what_is_shown_of_a_text(text: str, shown: str) -> None:
    assert readable(text) == shown
    assert one_line(text) == " ".join(shown.split())


@given(ANY)
def test_whatever_is_said_nothing_commands_and_everything_can_be_written(text: str) -> None:
    shown = readable(text)
    shown.encode("utf-8")
    kinds = {
        unicodedata.category(sign) for sign in shown.replace("\n", "").replace("\u200c", "").replace("\u200d", "")
    }
    assert not kinds & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert readable(shown) == shown
    assert "\n" not in one_line(text) and one_line(one_line(text)) == one_line(text)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_plain_text_is_shown_as_it_is(text: str) -> None:
    assert readable(text) == text


def test_a_foreign_error_is_quoted_in_one_line() -> None:
    assert reason(ValueError("\n\n \x1b[31mbad\x1b[0m thing\nTraceback")) == "ValueError: bad thing"
    assert reason(ValueError("\x1b[0m\n")) == "ValueError"
    assert len(first_line("x" * 10_000_000)) == 300


def test_nothing_in_a_text_is_read_as_markup() -> None:
    printed = io.StringIO()
    say(NASTY, Console(file=printed, width=20, force_terminal=True))
    assert printed.getvalue() == "ab\ufffdc [bold]d[/b] :smile:\n"


def test_errors_are_printed_through_the_filter(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> int:
        raise PersynError(f"the server says: {NASTY}")

    monkeypatch.setattr("persyn_hf.cli.run._status", fail)
    assert main(["status"]) == 2
    assert capsys.readouterr().err == "error: the server says: ab\ufffdc [bold]d[/b] :smile:\n"
