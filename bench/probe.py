"""What `persyn probe` says in several draws: `python bench/probe.py RECIPE [--store DIR] [--draws 10] [--set K=V]`.

Each draw has the recipe's seed raised by one, so it asks other prompts; what the journal of the store holds already
costs nothing.
"""

import argparse
from collections import Counter
from pathlib import Path

from rich.console import Console

from persyn_hf.cli.probe import WORTH
from persyn_hf.forecast.probe import probe
from persyn_hf.recipe.file import load_recipe
from persyn_hf.store.local import Store


COLUMNS = ("seed", "cells", "prompts", "best", "reward", "perfect", "cheap", "leaves", "chance", "enough", "verdict")


def main() -> None:
    """Print a line per draw, then how often each verdict came."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="seed of the first draw")
    parser.add_argument("--cells", type=int)
    parser.add_argument("--worth", type=float, default=WORTH)
    arguments = parser.parse_args()
    recipe, store = load_recipe(arguments.recipe, arguments.set), Store(arguments.store)
    quiet, verdicts = Console(quiet=True), Counter[str]()
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for seed in range(arguments.first, arguments.first + arguments.draws):
        drawn = recipe.model_copy(update={"seed": seed})
        pool, cells, _, found = probe(drawn, store, quiet, arguments.cells, arguments.worth)
        verdicts[found.verdict] += 1
        of = [
            f"{value:.3f} [{low:.3f}, {high:.3f}]"
            for value, low, high in (found.reward, found.oracle_gain, found.router_gain)
        ]
        row = [seed, sum(cells), found.prompts, pool[found.best], *of, f"{found.leaves:.0%}", f"{found.chance:.3f}"]
        print("|", " | ".join(map(str, [*row, found.enough, found.verdict])), "|", flush=True)
    print(dict(verdicts))


if __name__ == "__main__":
    main()
