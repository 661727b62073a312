"""Read the verdict of a judge: the one place where a reply becomes a number.

A verdict is read where the reply states it in a form that means nothing else, and states no other. All else has none,
for a reason that is counted; nothing is guessed. The forms, of which a reply may use several that agree:

    {"reason": "...", "score": 8}      a JSON object with the key that was asked for, fenced or amid text
    8   **8**   8/10   [[8]]           the whole reply
    Score: 8   **Rating:** 8/10        a line that holds a label and a verdict, and no more
    [[8]]   <score>8</score>           marks, at the end of the reply; so `[RESULT] 8` (Prometheus)

A score may be written as a share of the top of its scale, 8/10, and of no other number. What is stated outside the
scale was given on another one. Another number in a mark, or beside a label (`Score 10 means perfect`), contradicts:
the judge may have quoted the answer that it judges.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal


Fault = Literal["empty", "cut", "no_verdict", "off_scale", "several", "failed"]
# empty: nothing, or thoughts alone. cut: it ends in the middle. no_verdict: none in a form that is known. off_scale:
# of another scale. several: statements that differ. failed: no reply has come (the journal's errors).

MOST_CHARS = 200_000  # of a reply that is read
MOST_REASON = 4000  # of a reason that is kept
MOST_OBJECTS = 200  # braces at which an object is looked for
AROUND = " \t\r\n*_`\"'$[](){},"  # what may stand around a verdict
NUMBER = re.compile(r"(-?[0-9]{1,6}(?:\.[0-9]{1,6})?)(?:\s*(?:/|out of)\s*([0-9]{1,6}(?:\.[0-9]{1,6})?))?")
WINNER = re.compile(r"(?:(?:answer|response|assistant|option)\s+)?([ab])|(tie)", re.IGNORECASE)
SCORE_LABEL = r"(?:(?:final|overall|total)\s+)?(?:score|rating)"
WINNER_LABEL = r"(?:(?:final|overall)\s+)?(?:verdict|winner|better\s+(?:answer|response))"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a reply says: a number, or the reason why there is none."""

    value: float | None = None
    fault: Fault | None = None


NONE = Verdict(fault="no_verdict")


@dataclass(frozen=True, kw_only=True)
class Form:
    """What a judge is asked for. `parse` reads a text that should be a verdict and nothing else; None: it is none."""

    key: str  # of the JSON object
    label: str  # regex of the words that announce a verdict in text
    mentions: tuple[re.Pattern[str], ...]  # marks, and labels with something beside them; the group may be a verdict
    parse: Callable[[str], Verdict | None]


def score_form(low: int, high: int) -> Form:
    """Return the form of a score from `low` to `high`."""

    def parse(text: str) -> Verdict | None:
        found = NUMBER.fullmatch(text)
        if found is None:
            return None
        value, top = float(found[1]), found[2]
        on_scale = low <= value <= high and (top is None or float(top) == high)
        return Verdict(value=value) if on_scale else Verdict(fault="off_scale")

    return Form(key="score", label=SCORE_LABEL, mentions=_mentions("score", SCORE_LABEL, NUMBER), parse=parse)


def _parse_winner(text: str) -> Verdict | None:
    found = WINNER.fullmatch(text)
    if found is None:
        return None
    return Verdict(value=0.5 if found[2] else float(found[1].lower() == "a"))


def _marks(key: str) -> tuple[str, ...]:
    return r"\[\[([^\[\]\n]{1,40})\]\]", rf"<{key}>([^<>\n]{{1,40}})</{key}>", r"\[RESULT\]([^\n]{1,40})"


def _mentions(key: str, label: str, verdict: re.Pattern[str]) -> tuple[re.Pattern[str], ...]:
    beside = r"[^\w\n]{0,12}(?:(?:is|of|was)\b[^\w\n]{0,6})?"
    labels = rf"\b{label}\b{beside}({verdict.pattern})\b"
    return tuple(re.compile(each, re.IGNORECASE) for each in (labels, *_marks(key)))


# Of two answers: 1 where the first (A) is better, 0 where the second (B) is, 0.5 for a tie.
WINNER_FORM = Form(
    key="winner", label=WINNER_LABEL, mentions=_mentions("winner", WINNER_LABEL, WINNER), parse=_parse_winner
)


def read_verdict(reply: str, form: Form, *, is_cut: bool = False) -> Verdict:
    """Read a reply whose thoughts are cut off already.

    is_cut: the reply did not end by itself. It then counts only as a whole JSON object with nothing behind it.
    """
    text = reply.strip()
    if not text:
        return Verdict(fault="cut" if is_cut else "empty")
    if len(text) > MOST_CHARS:
        return NONE
    stated, outside, behind = _objects(text, form)
    if is_cut and (not stated or behind.strip(AROUND)):
        return Verdict(fault="cut")
    stated += _statements(outside, form)
    if not stated and (whole := _parse(text, form)) is not None:
        stated = [whole]
    mentioned = (_parse(found[1], form) for each in form.mentions for found in each.finditer(outside))
    known = {verdict for verdict in (*stated, *mentioned) if verdict is not None}
    if not stated:
        return NONE
    return known.pop() if len(known) == 1 else Verdict(fault="several")


def read_reason(text: str) -> str:
    """Return the reason that a reply gives: that of its first JSON object which has one, else the whole reply.

    It is for people to read. At most `MOST_REASON` characters of it are returned.
    """
    objects = _json_objects(text[:MOST_CHARS])
    given = (value for *_, pairs in objects for key, value in pairs if key.strip().lower() == "reason")
    said = next((value for value in given if isinstance(value, str)), text)
    return said.encode("utf-8", "replace").decode().strip()[:MOST_REASON]  # JSON may hold half of a surrogate pair


def _parse(text: str, form: Form) -> Verdict | None:
    """Read what may be a verdict, without what stands around it."""
    bare = text.strip(AROUND)
    if bare.startswith("\\boxed"):
        bare = bare.removeprefix("\\boxed").strip(AROUND)
    return form.parse(bare.rstrip(".").strip(AROUND))


def _statements(text: str, form: Form) -> list[Verdict]:
    """Return the verdicts of lines with a label, and of a mark at the end."""
    line = rf"^[ \t>#*_\"'-]*{form.label}[ \t*_\"'`]*(?:[:=]|\bis\b:?)(.+)$"
    forms = (line, *(rf"{mark}\W*\Z" for mark in _marks(form.key)))
    found = (match[1] for each in forms for match in re.finditer(each, text, re.IGNORECASE | re.MULTILINE))
    return [verdict for said in found if (verdict := _parse(said, form)) is not None]


def _objects(text: str, form: Form) -> tuple[list[Verdict], str, str]:
    """Return what the JSON objects with the key say, the text without them, and what of it is behind the last one."""
    stated: list[Verdict] = []
    outside, end = "", 0
    for start, stop, pairs in _json_objects(text):
        values = [value for key, value in pairs if key.strip().lower() == form.key]
        if values:
            stated += [_of_json(value, form) for value in values]
            outside, end = outside + text[end:start], stop
    return stated, outside + text[end:], text[end:]


def _json_objects(text: str) -> Iterator[tuple[int, int, list[tuple[str, Any]]]]:
    """Yield (start, end, keys with values) of the JSON objects of a text; those within others are not looked at."""
    decoder = json.JSONDecoder(object_pairs_hook=list, strict=False)  # models break lines within strings
    at = text.find("{")
    for _ in range(MOST_OBJECTS):
        if at < 0:
            return
        try:
            pairs, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            yield at, end, pairs
        at = text.find("{", end)


def _of_json(value: Any, form: Form) -> Verdict:
    """Read the value of the key. One that is no verdict is a statement all the same."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return NONE
    return _parse(str(value), form) or NONE
