"""Text from outside, as it may be printed, drawn and written down.

Servers, templates, models, manifests and files say what they like: a colour that never ends, a sign that turns the
direction of a line, half a character. All of it passes `readable` or `one_line` on its way to people; what is trained
on, scored or stored as data does not, because there every sign counts. An example, where ESC is the escape character:

    "ESC[31mno such\\tmodel\\nESC[0m"     one_line gives "no such model"
"""

import re
import unicodedata


# What terminals obey: colours and movements (ESC [ ... m), titles (ESC ] ... BEL) and the short ones (ESC c).
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")
_JOINERS = "\u200c\u200d"  # format characters that Persian, Hindi and emoji are spelled with
_DROPPED = ("Cc", "Cf")  # Unicode's control and format characters; the latter turn directions or cannot be seen


def readable(text: object) -> str:
    """Return text of one line or several without control characters, signs of direction and half surrogates.

    Line breaks of any kind become newlines, and those at the end go. Other white space becomes a space. Half a
    surrogate pair, which no file and no terminal takes, becomes U+FFFD.
    """
    string = str(text)
    if string.isascii() and string.isprintable():
        return string
    lines = _ESCAPES.sub("", string).splitlines()
    return "\n".join("".join(map(_shown, line)) for line in lines).rstrip("\n")


def one_line(text: object) -> str:
    """Return text as `readable` does, on one line, each run of white space a space."""
    return " ".join(readable(text).split())


def first_line(text: object, limit: int = 300) -> str:
    """Return the first line of a text that is not empty, as `one_line` does, `limit` characters of it at most."""
    lines = map(one_line, readable(str(text)[: 20 * limit]).split("\n"))
    return next(filter(None, lines), "")[:limit]


def _shown(sign: str) -> str:
    """Return what stands for one character."""
    if sign.isprintable() or sign in _JOINERS:
        return sign
    if sign.isspace():
        return " "
    category = unicodedata.category(sign)
    return "\ufffd" if category == "Cs" else "" if category in _DROPPED else sign
