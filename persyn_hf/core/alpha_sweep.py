"""What other weights of learnability would have chosen, from rewards measured already (the paper's Fig. 4)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from persyn_hf.core.assignment import allocation, route
from persyn_hf.core.metrics import effective_teachers
from persyn_hf.core.rewards import Measure, combine, learnability, to_matrix


ALPHAS = tuple(tenths / 10 for tenths in range(11))


def alpha_sweep(
    columns: Mapping[str, Sequence[Any]], pool: Sequence[str], measure: Measure = "mean_logprob"
) -> dict[str, Any]:
    """Send each prompt to its best teacher by the reward of every alpha: what is chosen, and from whom.

    `columns` of a rewards dataset. Only cells count whose quality and learnability are both measured, so that every
    alpha chooses from the same answers; without any the result is empty. Per alpha: mean `quality_raw` and mean
    `measure` of learnability of the chosen answers, the effective number of teachers, and each teacher's share of the
    prompts.
    """
    ids, teachers = columns["prompt_id"], columns["teacher"]
    learned = [None if value != value else value for value in learnability(columns, measure).tolist()]
    columns = {**columns, measure: learned}
    names = ("quality_reward", "learnability_reward", "quality_raw", measure)
    matrices = np.stack([to_matrix(ids, teachers, columns[name], pool)[1] for name in names])
    both = np.all(~np.isnan(matrices), axis=0)
    known = np.any(both, axis=1)
    quality, learned_reward, *raw = np.where(both, matrices, np.nan)[:, known]
    if not known.any():
        return {}
    measures, shares = {}, {}
    for alpha in ALPHAS:
        chosen = route(combine(quality, learned_reward, alpha)).teacher
        share = allocation(chosen, len(pool))
        means = (float(values[np.arange(len(chosen)), chosen].mean()) for values in raw)
        measures[f"{alpha:g}"] = dict(zip(names[2:], means, strict=True)) | {
            "effective_teachers": float(effective_teachers(share))
        }
        shares[f"{alpha:g}"] = dict(zip(pool, share.tolist(), strict=True))
    return {"prompts": int(known.sum()), "measures": measures, "allocation": shares}
