"""Two texts side by side, the words marked in which they differ."""

import re
from collections.abc import Sequence
from difflib import Match, SequenceMatcher
from itertools import accumulate

from markupsafe import Markup, escape


PIECE = re.compile(r"\s+|\w+|[^\w\s]")  # white space, a word, a sign
WORK = 700_000  # steps of a comparison: about 0.2 s


def marked(left: str, right: str) -> tuple[Markup, Markup, bool]:
    """Return both texts escaped, what the other one lacks in `<mark>`, and whether they were compared to the end.

    Where they are too different for that, the rest is marked as a whole. Example: "a b c" and "a d c" mark b and d.
    """
    pieces = [PIECE.findall(text) for text in (left, right)]
    matcher = _Bounded(*pieces)
    sides: tuple[list[Markup], list[Markup]] = ([], [])
    for word, *bounds in matcher.get_opcodes():
        for side, own, start, stop in zip(sides, pieces, bounds[::2], bounds[1::2], strict=True):
            text = escape("".join(own[start:stop]))
            side.append(text if word == "equal" or not text.strip() else Markup("<mark>%s</mark>") % text)
    return Markup("").join(sides[0]), Markup("").join(sides[1]), matcher.left >= 0


class _Bounded(SequenceMatcher[str]):
    """A comparison that finds no more matches after `WORK` steps: it may take quadratic time."""

    def __init__(self, a: Sequence[str], b: Sequence[str]) -> None:
        super().__init__(None, a, b)
        self.left = WORK
        places: dict[str, list[int]] = vars(self)["b2j"]  # documented, but unknown to the types
        self._steps = [0, *accumulate(1 + len(places.get(piece, ())) for piece in a)]

    def find_longest_match(self, alo: int = 0, ahi: int | None = None, blo: int = 0, bhi: int | None = None) -> Match:
        stop = len(self._steps) - 1 if ahi is None else ahi
        self.left -= self._steps[stop] - self._steps[alo]
        return super().find_longest_match(alo, ahi, blo, bhi) if self.left >= 0 else Match(alo, blo, 0)
