"""Weigh items that come in groups, such as tasks of a category: groups count alike, however many items they hold."""

from collections.abc import Sequence

import numpy as np

from persyn_hf.core.arrays import FloatArray


def group_weights(items: Sequence[str]) -> FloatArray:
    """Return how often each item counts, (num_items,); names tell the groups.

    The item `math/olympiad/17` is in the group `olympiad` inside the group `math`. The weighted mean of the items is
    the mean over the outer groups of their means over the inner ones. An item in no group is a group of its own. The
    weights sum to the number of items.

    Example: `a/1`, `a/2` and `b/1` have the weights 0.75, 0.75 and 1.5, so each group has half of the weight.
    """
    paths = [tuple(item.split("/")) for item in items]
    inside: dict[tuple[str, ...], set[str]] = {}
    for path in paths:
        for depth, name in enumerate(path):
            inside.setdefault(path[:depth], set()).add(name)
    shares = [np.prod([len(inside[path[:depth]]) for depth in range(len(path))]) for path in paths]
    return np.array([len(paths) / share for share in shares], dtype=np.float64)
