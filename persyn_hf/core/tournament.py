"""Rank the answers to one prompt by comparing them two by two: the Bradley-Terry strengths of a small tournament.

Answer i beats answer j with the probability sigmoid(s_i - s_j). A tie is half a win for each. The prior: every two
answers that were compared have tied once more. So an answer that won all its games has a finite strength, ties of all
make all strengths 0, and more games weigh more.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from persyn_hf.core.arrays import FloatArray


PRIOR = 0.5  # wins of each side that are added to every pair
ROUNDS = 100
PRECISE = 1e-10


def strengths(wins: ArrayLike) -> FloatArray:
    """Return the strengths of n answers, (n,), with mean 0; NaN where an answer cannot be compared with the others.

    wins (n, n): how often i has won against j, ties as halves; both 0 where the two were not compared. Only the
    largest set of answers that comparisons connect has strengths: between two sets nothing is known. Where two sets
    are the largest, none has.

    Example: i wins both games against j. With the prior 2.5 wins to 0.5, so s_i - s_j = ln(2.5 / 0.5) = ln 5 = 1.609,
    and the strengths are 0.805 and -0.805.
    """
    won = np.asarray(wins, dtype=np.float64)
    found = np.full(len(won), np.nan)
    among = _largest(won + won.T > 0)
    if len(among) > 1:
        part = won[np.ix_(among, among)]
        found[among] = _fit(part + PRIOR * (part + part.T > 0))
    return found


def _fit(won: FloatArray) -> FloatArray:
    """Return the strengths that make the games most likely, by Newton's method; the games connect all answers."""
    games = won + won.T
    scores = np.zeros(len(won))
    for _ in range(ROUNDS):
        chance = 1 / (1 + np.exp(scores[None, :] - scores[:, None]))
        gradient = (won - games * chance).sum(axis=1)
        weights = games * chance * chance.T
        hessian = np.diag(weights.sum(axis=1)) - weights
        step = np.linalg.solve(hessian + 1 / len(won), gradient)  # the constant fixes the mean, and moves nothing else
        scores = scores + np.clip(step, -2, 2)
        if np.abs(step).max() < PRECISE:
            break
    centred: FloatArray = scores - scores.mean()
    return centred


def _largest(compared: NDArray[np.bool_]) -> list[int]:
    """Return the largest set of places that comparisons connect; empty where two sets are the largest."""
    left, sets = set(range(len(compared))), []
    while left:
        reached, new = set[int](), {min(left)}
        while new:
            reached |= new
            new = {int(other) for place in new for other in np.flatnonzero(compared[place])} - reached
        sets.append(reached)
        left -= reached
    sets.sort(key=len, reverse=True)
    return sorted(sets[0]) if len(sets) == 1 or (sets and len(sets[0]) > len(sets[1])) else []
