"""The wording of a text: its words in a form that spelling, layout and typography do not change.

Of two texts that differ in case, line breaks, spaces, punctuation, Unicode forms, accents or the spelling of a
number (1,000; 1 000; 1000), the words are the same. A word here is

- a run of letters, without regard to case and accents;
- a number, 3.5 as well;
- a letter by itself, in scripts that put no spaces between words;
- `+ - * / = < >` before a number: 5+3 is not 5-3.

A label before a colon at the beginning ("Question 5:") or at the end ("Answer:") is no part of the wording.
"""

import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


Codes = np.ndarray[Any, np.dtype[np.uint64]]

# Scripts without spaces between words: Thai, Lao, Burmese, Khmer, Kana, Han.
ALONE = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
WORD = re.compile(rf"[{ALONE}]|[^\W\d_{ALONE}]+|\d+(?:\.\d+)?|[-+*/=<>](?=\s*\d)")
THOUSANDS = re.compile(r"(?<!\d)\d{1,3}(?:(?:,|'|\s++)\d{3})+(?!\d)")
BETWEEN = re.compile(r"\D+")
HEAD = re.compile(
    r"(?:\W*+(?:question|problem|exercise|task|query|prompt|instruction|input|user|human|q)[\s*_#]*+\d*+[\s*_#]*+:)+"
)
TAIL = re.compile(r"(?<!\w)(?:answer|solution|response|output|assistant|a)[\s*_]*+:\W*+\Z")
SIGNS = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-") | {"×": "*", "÷": "/", "⁄": "/", "∕": "/"})
MIX = np.uint64(0x9E3779B97F4A7C15)


CHUNK, CHARACTERS = 1024, 2**21  # texts, and characters of them, that are encoded at once


@dataclass(frozen=True)
class Words:
    """The words of several texts, one after another, as numbers; `starts` has a number more than there are texts."""

    codes: Codes
    starts: np.ndarray[Any, np.dtype[np.int64]]

    @property
    def owners(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return the number of the text that each word is of."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))


def words_of(text: str) -> list[str]:
    """Return the words of a text: "Q: It's 1,000 + 5." gives it, s, 1000, +, 5."""
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text)
    text = text.casefold()
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text).translate(SIGNS)
        text = "".join(sign for sign in text if unicodedata.category(sign) not in ("Mn", "Mc", "Me", "Cf"))
    if ":" in text:
        if head := HEAD.match(text):
            text = text[head.end() :]
        text = TAIL.sub("", text)
    return WORD.findall(THOUSANDS.sub(lambda number: BETWEEN.sub("", number.group()), text))


def encode_in_chunks(texts: Sequence[str]) -> Iterator[tuple[int, Words]]:
    """Yield the number of the first text of each chunk and the chunk's words, so that memory stays bounded."""
    start, characters = 0, 0
    for place, text in enumerate(texts):
        characters += len(text)
        if place + 1 - start == CHUNK or characters >= CHARACTERS or place + 1 == len(texts):
            yield start, encode(texts[start : place + 1])
            start, characters = place + 1, 0


def encode(texts: Iterable[str]) -> Words:
    """Return the words of texts as numbers, the same on every machine."""
    codes: list[int] = []
    starts = [0]
    for text in texts:
        codes += [zlib.crc32(word.encode()) for word in words_of(text)]
        starts.append(len(codes))
    mixed = np.array(codes, dtype=np.uint64) * MIX
    return Words(mixed ^ (mixed >> np.uint64(29)), np.array(starts, dtype=np.int64))


def grams_of(words: Words, size: int) -> tuple[Codes, np.ndarray[Any, np.dtype[np.int64]]]:
    """Return the runs of `size` words within a text as numbers, and the place of the first word of each.

    A text of fewer words has none.
    """
    count = len(words.codes) - size + 1
    if count <= 0:
        return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64)
    grams = np.zeros(count, dtype=np.uint64)
    for place in range(size):
        grams = grams * MIX + words.codes[place : place + count]
    grams ^= grams >> np.uint64(31)
    owners = words.owners
    places = np.flatnonzero(owners[:count] == owners[size - 1 :])
    return grams[places], places


def wholes_of(words: Words, kept: np.ndarray[Any, np.dtype[np.bool_]] | None = None) -> Codes:
    """Return a number for the wording of each text as a whole; 0 where it has no words. `kept` leaves out words."""
    codes, owners = words.codes, words.owners
    if kept is not None:
        codes, owners = codes[kept], owners[kept]
    lengths = np.bincount(owners, minlength=len(words.starts) - 1)
    ends = np.cumsum(lengths)
    weights = _powers(int(lengths.max(initial=0)))[np.arange(len(codes)) - (ends - lengths)[owners]]
    sums = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(codes * weights, dtype=np.uint64)])
    totals = (sums[ends] - sums[ends - lengths]) * MIX
    return np.where(lengths > 0, totals ^ (totals >> np.uint64(31)) | np.uint64(1), np.uint64(0))


def _powers(count: int) -> Codes:
    return np.cumprod(np.full(count, MIX, dtype=np.uint64), dtype=np.uint64)
