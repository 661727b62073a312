"""Items in groups, such as the tasks of a category: groups count alike, however many items they hold."""

from collections.abc import Sequence

import numpy as np

from persyn_hf.core.rewards import FloatArray


def group_weights(items: Sequence[str]) -> FloatArray:
    """How often each item counts, where names tell the groups: `math/olympiad/17` is in two, one inside the other.

    The weighted mean of the items is then the mean over the outer groups of their means over the inner ones. An item
    in no group counts once; the weights sum to the number of items.
    """
    paths = [tuple(item.split("/")) for item in items]
    inside: dict[tuple[str, ...], set[str]] = {}
    for path in paths:
        for depth, name in enumerate(path):
            inside.setdefault(path[:depth], set()).add(name)
    shares = [np.prod([len(inside[path[:depth]]) for depth in range(len(path))]) for path in paths]
    return np.array([len(paths) / share for share in shares], dtype=np.float64)
