"""Which prompts hold an item of a test set, word for word or in good part.

The rule, for an item and a prompt in the wording of `core.wording`:

- An item overlaps a prompt that has at least a `share` of its own words in runs of `SIZE` words that both have, and
  `WORDS` of them at least; all of them, where it has no more.
- Not its own are words in runs that `ITEMS` of its set's items share, or `PROMPTS` of the prompts: boilerplate.
- An item with fewer than `SIZE` own words overlaps only a prompt with the same wording as a whole. What is boilerplate
  among the prompts may be missing there.

Runs of 8 words, and half of an item, are the rule of Tülu 3 (arXiv 2411.15124); 13 words as of GPT-3 keep phrases out
that make up half of a short item. Any one run of 8, as s1 and Open-R1 have it, finds phrases; runs of 13 miss short
items and those with a word changed here and there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from persyn_hf.core.wording import Codes, Words, encode, encode_in_chunks, grams_of, wholes_of


SIZE = 8  # words of a run
WORDS = 13
HALF = 0.5
ITEMS = (5, 0.02)  # texts that share a run of boilerplate, at least: so many, and such a share of all
PROMPTS = (10, 0.1)
SAMPLE = 2000  # prompts, evenly spaced, that are looked through for boilerplate

Numbers = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Overlap:
    """A prompt and an item by their numbers, and the share of the item's own words that the prompt has."""

    prompt: int
    item: int
    share: float


def find_overlaps(
    prompts: Sequence[str], sets: Sequence[Sequence[str]], share: float = HALF
) -> Iterator[tuple[int, list[Overlap]]]:
    """Yield, for each chunk of the prompts, how many they are and their overlaps, ordered by prompt and item.

    The items of all sets are numbered in one row, from 0. The prompts differ from one another.
    """
    templates = shared_grams(encode(prompts[:: max(1, len(prompts) // SAMPLE)]), *PROMPTS)
    index = _Index.build(sets, templates)
    for start, words in encode_in_chunks(prompts):
        found = index.overlaps(words, share)
        yield len(words.starts) - 1, [Overlap(start + prompt, item, part) for prompt, item, part in found]


def shared_grams(words: Words, least: int, share: float) -> Codes:
    """Return, in order, the runs that at least `least` texts, and that share of them, have; equal texts count once."""
    grams, places = grams_of(words, SIZE)
    _, first = np.unique(wholes_of(words), return_index=True)
    owners = words.owners[places]
    counted = np.isin(owners, first)
    pairs = np.unique(np.stack([grams[counted], owners[counted].astype(np.uint64)]), axis=1)
    runs, counts = np.unique(pairs[0], return_counts=True)
    return np.asarray(runs[counts >= max(least, share * len(first))])


@dataclass(frozen=True)
class _Index:
    """The items, to be looked up by their runs of words and by their whole wording."""

    templates: Codes
    grams: Codes  # in order, each once
    starts: Numbers  # of each run's postings
    places: Numbers  # the postings: where the run begins among the words of all items
    owners: Numbers  # of each word of the items
    own: np.ndarray[Any, np.dtype[np.bool_]]  # which words are an item's own
    num_own: Numbers  # own words of each item
    wholes: Codes  # in order: of the items that are looked up as a whole
    whole_items: Numbers

    @classmethod
    def build(cls, sets: Sequence[Sequence[str]], templates: Codes) -> "_Index":
        words = encode(text for texts in sets for text in texts)
        grams, places = grams_of(words, SIZE)
        owners = words.owners
        boilerplate, end = np.isin(grams, templates), 0
        for texts in sets:
            start, end = end, end + len(texts)
            first, last = np.searchsorted(places, words.starts[[start, end]])
            shared = shared_grams(_part(words, start, end), *ITEMS)
            boilerplate[first:last] |= np.isin(grams[first:last], shared)
        own = ~_covered(places[boilerplate], len(words.codes))
        num_own = np.bincount(owners[own], minlength=end)
        counted = ~boilerplate & (num_own[owners[places]] >= SIZE)
        grams, places = grams[counted], places[counted]
        order = np.argsort(grams, kind="stable")
        runs, starts = np.unique(grams[order], return_index=True)
        wholes = wholes_of(words)
        rests = wholes_of(words, ~_covered_by(words, templates))
        keys, items = np.concatenate([wholes, rests]), np.tile(np.arange(end), 2)
        known = (keys != 0) & (num_own[items] < SIZE)
        keys, items = np.unique(np.stack([keys[known], items[known].astype(np.uint64)]), axis=1)
        return cls(
            templates=templates,
            grams=runs,
            starts=np.append(starts, len(grams)),
            places=places[order],
            owners=owners,
            own=own,
            num_own=num_own,
            wholes=keys,
            whole_items=items.astype(np.int64),
        )

    def overlaps(self, prompts: Words, least: float) -> list[tuple[int, int, float]]:
        """Return prompt, item and share of each overlap."""
        found = dict.fromkeys(self._as_wholes(prompts), 1.0)
        found |= {(prompt, item): share for prompt, item, share in self._by_runs(prompts, least)}
        return [(prompt, item, share) for (prompt, item), share in sorted(found.items())]

    def _by_runs(self, prompts: Words, least: float) -> Iterator[tuple[int, int, float]]:
        grams, places = grams_of(prompts, SIZE)
        at = np.searchsorted(self.grams, grams)
        at[at == len(self.grams)] = 0
        hits = np.flatnonzero(self.grams[at] == grams) if len(self.grams) else np.zeros(0, dtype=np.int64)
        runs, texts = np.unique(np.stack([at[hits], prompts.owners[places[hits]]]), axis=1)
        lengths = self.starts[runs + 1] - self.starts[runs]
        ends = np.cumsum(lengths)
        postings = np.arange(lengths.sum()) + np.repeat(self.starts[runs] - (ends - lengths), lengths)
        begins, texts = self.places[postings], np.repeat(texts, lengths)
        order = np.lexsort((begins, texts))  # places tell the items apart
        begins, texts = begins[order], texts[order]
        items = self.owners[begins]
        is_first = np.r_[True, (np.diff(texts) != 0) | (np.diff(items) != 0)][: len(begins)]
        after = np.where(is_first, begins, np.maximum(begins, np.r_[0, begins[:-1] + SIZE][: len(begins)]))
        counts = np.r_[0, np.cumsum(self.own)]
        firsts = np.flatnonzero(is_first)
        if len(firsts):
            covered = np.add.reduceat(counts[begins + SIZE] - counts[after], firsts)
            needed = self.num_own[items[firsts]]
            for at in np.flatnonzero(covered >= np.maximum(least * needed, np.minimum(WORDS, needed))):
                yield int(texts[firsts[at]]), int(items[firsts[at]]), float(covered[at] / needed[at])

    def _as_wholes(self, prompts: Words) -> Iterator[tuple[int, int]]:
        rests = wholes_of(prompts, ~_covered_by(prompts, self.templates))
        for keys in (wholes_of(prompts), rests):
            first, last = (np.searchsorted(self.wholes, keys, side) for side in ("left", "right"))
            for prompt in np.flatnonzero(last > first):
                for item in self.whole_items[first[prompt] : last[prompt]]:
                    yield int(prompt), int(item)


def _part(words: Words, start: int, end: int) -> Words:
    """Return the words of the texts from `start` to before `end`."""
    starts = words.starts[start : end + 1]
    return Words(words.codes[starts[0] : starts[-1]], starts - starts[0])


def _covered_by(words: Words, grams: Codes) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Say of each word whether it is in one of these runs."""
    found, places = grams_of(words, SIZE)
    return _covered(places[np.isin(found, grams)], len(words.codes))


def _covered(places: Numbers, count: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Say of each of `count` words whether it is in a run that begins at one of `places`."""
    edges = np.bincount(places, minlength=count + 1) - np.bincount(places + SIZE, minlength=count + 1)
    return np.asarray(np.cumsum(edges[:count]) > 0)
