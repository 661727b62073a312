"""How often `persyn probe` is right where words tell less: `python bench/probe_power.py STORE RECIPE STUDENT`.

STORE holds the rewards of every cell of a recipe (`persyn run RECIPE --set until=score`). The texts of a share of the
prompts, `--mixed`, are dealt out anew among these prompts, so they tell nothing there, while all rewards stay. Each
draw takes `--cells` cells in two rounds, as the command does, and the verdict is set beside what a router gains that
learns from 300 prompts in full and is judged on all others.
"""

import argparse
from collections import Counter

import numpy as np

from persyn_hf.backends.routers import RouterSettings
from persyn_hf.backends.routers.cross_validation import FOLDS, choose, coordinates, cross_validated, scores_of
from persyn_hf.backends.routers.featured import texts_of
from persyn_hf.backends.routers.features import Tfidf
from persyn_hf.cli.probe import WORTH
from persyn_hf.core.arrays import BoolArray, FloatArray
from persyn_hf.core.metrics import routed_reward
from persyn_hf.core.partial_calibration import first_in_full, halve, survivors
from persyn_hf.core.probe import complete, probe
from persyn_hf.core.rewards import reward_matrix
from persyn_hf.store.local import Store


KNOWN = 300  # prompts from which the router learns that the verdicts are judged by
SETTINGS = RouterSettings(kind="ridge")


def asked(rewards: FloatArray, cells: int) -> tuple[FloatArray, BoolArray]:
    """Return what two rounds measure of the prompts in order, and which teachers are kept."""
    order, sizes = np.arange(len(rewards)), np.zeros(rewards.shape[1])
    first = first_in_full(rewards.shape, cells // 2, order)
    kept = survivors(np.where(first, rewards, np.nan), sizes, -(-rewards.shape[1] // 2))
    both = halve(first, cells - int(first.sum()), order, kept)
    return np.where(both, rewards, np.nan)[both.any(axis=1)], kept


def learnt(texts: list[str], rewards: FloatArray, rng: np.random.Generator) -> float:
    """Return the gain of the cheap router that learns from `KNOWN` prompts, on the others."""
    words = Tfidf.fit(texts[:KNOWN], SETTINGS.max_features).transform(texts)
    points, known, others = coordinates(words), rewards[:KNOWN], rewards[KNOWN:]
    candidate = choose(points[:KNOWN], known, SETTINGS, rng)
    routed = routed_reward(scores_of(candidate, points[:KNOWN], known, points[KNOWN:]), others)
    return float((routed - others[:, known.mean(axis=0).argmax()]).mean())


def main() -> None:
    """Print a row per share of mixed prompts and number of cells."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store")
    parser.add_argument("recipe", help="NAMESPACE/NAME")
    parser.add_argument("student")
    parser.add_argument("--mixed", type=float, nargs="+", default=[0.0, 0.3, 0.5, 1.0])
    parser.add_argument("--cells", type=int, nargs="+", default=[300, 600])
    parser.add_argument("--draws", type=int, default=20)
    arguments = parser.parse_args()
    store = Store(arguments.store)
    rows = store.read_dataset(store.get(f"{arguments.recipe}-prompts@v1"))
    columns = store.read_dataset(store.get(f"{arguments.recipe}-rewards-{arguments.student}@v1"))[:]
    ids, rewards = reward_matrix(columns, list(dict.fromkeys(columns["teacher"])), None)
    text_of = dict(zip(rows["prompt_id"][:], texts_of(rows["messages"][:]), strict=True))
    print("| mixed | a router gains | cells | gain told | one teacher | unknown | route |")
    print("|---|---|---|---|---|---|---|")
    for share in arguments.mixed:
        for cells in arguments.cells:
            verdicts, told, true = Counter[str](), [], []
            for seed in range(arguments.draws):
                rng = np.random.default_rng(seed)
                order = rng.permutation(len(ids))
                texts, drawn = [text_of[ids[row]] for row in order], rewards[order]
                mixed = np.flatnonzero(rng.random(len(texts)) < share)
                for place, text in zip(mixed, [texts[row] for row in rng.permutation(mixed)], strict=True):
                    texts[place] = text
                measured, kept = asked(drawn, cells)
                whole = complete(measured, kept)
                of = [text for text, is_whole in zip(texts, whole, strict=False) if is_whole]
                points = coordinates(Tfidf.fit(of, SETTINGS.max_features).transform(of))
                scores = cross_validated(points, measured[whole][:, kept], SETTINGS, rng)
                found = probe(measured, kept, scores, points @ points.T, FOLDS, WORTH, rng)
                verdicts[found.verdict] += 1
                told.append(found.router_gain.value)
                true.append(learnt(texts, drawn, rng))
            shown = [f"{verdicts[word]}" for word in ("one teacher", "unknown", "route")]
            gains = f"{np.mean(true):.3f}", str(cells), f"{np.mean(told):.3f} ± {np.std(told):.3f}"
            print("|", " | ".join([f"{share:.0%}", *gains, *shown]), "|", flush=True)


if __name__ == "__main__":
    main()
