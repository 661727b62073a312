"""Which texts nearly say the same, by MinHash and locality-sensitive hashing.

The similarity of two texts is the Jaccard index of their runs of `RUN` words in the wording of `core.wording`: those
that both have, of those that either has. It is estimated by the share of equal values among `BANDS` x `ROWS` MinHashes
(Broder, 1997), with a standard error of 0.04 at 0.7. Only texts with a band of equal values are compared, which finds
99 % of the pairs at 0.7 and all but one in 2,000 at 0.8. Runs of 5 words and 0.7 are what BigCode and many others use.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from persyn_hf.core.wording import Codes, Words, encode_in_chunks, grams_of, wholes_of


RUN = 5  # words
LEAST = 0.7  # similarity of near-duplicates
BANDS, ROWS = 24, 5
CHUNK = 4096  # pairs that are compared at once

Numbers = np.ndarray[Any, np.dtype[np.int64]]
Signatures = np.ndarray[Any, np.dtype[np.uint32]]  # texts x (BANDS * ROWS)


def group_near_duplicates(
    texts: Sequence[str], room: Callable[[tuple[int, int]], Signatures] | None = None
) -> Numbers:
    """Return for each text the number of the first one in its group: its own, where it has no near-duplicate before.

    A group is a chain: each of its texts is a near-duplicate of another one in it, not of all. `room` makes the array
    of the MinHashes, 480 bytes a text, by its shape: of millions it may lie in a file. Null: it lies in memory.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not texts:
        return np.zeros(0, dtype=np.int64)
    shape = (len(texts), BANDS * ROWS)
    found = np.empty(shape, dtype=np.uint32) if room is None else room(shape)
    for start, words in encode_in_chunks(texts):
        found[start : start + len(words.starts) - 1] = signatures(words)
    pairs = similar_pairs(found)
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(texts), len(texts)))
    _, groups = connected_components(links, directed=False)
    _, first, members = np.unique(groups, return_index=True, return_inverse=True)
    return np.asarray(first[members])


def signatures(words: Words) -> Signatures:
    """Return the MinHashes of each text. A text of fewer than `RUN` words is one run; one without words has zeros."""
    grams, places = grams_of(words, RUN)
    owners = words.owners[places]
    short = np.flatnonzero(np.bincount(owners, minlength=len(words.starts) - 1) == 0)
    grams, owners = np.append(grams, wholes_of(words)[short]), np.append(owners, short)
    order = np.argsort(owners, kind="stable")
    grams, starts = grams[order], np.unique(owners[order], return_index=True)[1]
    found = np.empty((len(starts), BANDS * ROWS), dtype=np.uint32)
    for place, (factor, mask) in enumerate(_constants().reshape(-1, 2)):
        hashes = (((grams ^ mask) * (factor | np.uint64(1))) >> np.uint64(32)).astype(np.uint32)
        found[:, place] = np.minimum.reduceat(hashes, starts)
    found[np.diff(words.starts) == 0] = 0
    return found


def similar_pairs(found: Signatures) -> Numbers:
    """Return the pairs of texts whose similarity is estimated as at least `LEAST`: (pairs, 2), the earlier first.

    Within a bucket of equal bands a text is compared with the first one and with the one before it, so a bucket of
    many costs no more than a few.
    """
    number = max(len(found), 1)
    codes = np.zeros(0, dtype=np.int64)  # of pairs: the earlier text x `number` + the later one
    worded = np.flatnonzero(found.any(axis=1))
    for band in range(BANDS):
        keys = _mixed(found[worded, band * ROWS : (band + 1) * ROWS])
        order = np.argsort(keys, kind="stable")
        same = np.flatnonzero(keys[order][1:] == keys[order][:-1]) + 1
        begins = np.r_[True, keys[order][1:] != keys[order][:-1]]
        leaders = np.flatnonzero(begins)[np.cumsum(begins) - 1] if len(order) else begins
        for others in (leaders[same], same - 1):
            codes = np.union1d(codes, worded[order[others]] * number + worded[order[same]])
    pairs = np.stack(np.divmod(codes, number), axis=1)
    similar = [
        (found[part[:, 0]] == found[part[:, 1]]).mean(axis=1) >= LEAST
        for part in np.array_split(pairs, len(pairs) // CHUNK + 1)
    ]
    return np.asarray(pairs[np.concatenate(similar)])


def _mixed(columns: Signatures) -> Codes:
    keys = np.zeros(len(columns), dtype=np.uint64)
    for column in columns.T:
        keys = (keys ^ column) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys


def _constants() -> Codes:
    """Return two numbers for each hash, the same on every machine and with every version of numpy (SplitMix64)."""
    keys = np.arange(1, 2 * BANDS * ROWS + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(keys ^ (keys >> np.uint64(31)))
