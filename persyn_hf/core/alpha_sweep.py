"""Show what other weights of learnability would have chosen, from rewards measured already (the paper's Fig. 4)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from persyn_hf.core.assignment import allocation, route, several_best
from persyn_hf.core.metrics import effective_teachers
from persyn_hf.core.rewards import Measure, combine, learnability, to_matrix


ALPHAS = tuple(tenths / 10 for tenths in range(11))


def alpha_sweep(
    columns: Mapping[str, Sequence[Any]],
    pool: Sequence[str],
    measure: Measure = "mean_logprob",
    reference: float = 0.4,
) -> dict[str, Any]:
    """Send each prompt to its best teacher by the reward of every alpha in `ALPHAS`, and describe what is chosen.

    A prompt stays with its teacher at the alpha `reference` wherever that is still one of the best. Of several best
    ones the one with the highest mean would be chosen, and blocks of prompts would change it where two means cross,
    though nothing has changed for them.

    Args:
        columns: of a rewards dataset, one row per (prompt, teacher) cell. Only cells count whose quality and
            learnability are both measured, so that every alpha chooses from the same answers.
        pool: names of the teachers.
        measure: which learnability; see `rewards.learnability`.
        reference: the recipe's alpha.

    Returns:
        `prompts`: how many count. `measures`, by alpha: mean `quality_raw` and mean learnability (by `measure`) of the
        chosen answers, the effective number of teachers, the share of prompts with several best teachers (`tied`), and
        the share whose teacher at `reference` is no longer a best one (`moved`). `allocation`, by alpha: the share of
        the prompts of each teacher. The result is empty where no prompt counts.
    """
    ids, teachers = columns["prompt_id"], columns["teacher"]
    learned = [None if value != value else value for value in learnability(columns, measure).tolist()]
    columns = {**columns, measure: learned}
    names = ("quality_reward", "learnability_reward", "quality_raw", measure)
    matrices = np.stack([to_matrix(ids, teachers, columns[name], pool)[1] for name in names])
    both = np.all(~np.isnan(matrices), axis=0)
    measured = np.any(both, axis=1)
    quality, learned_reward, *raw = np.where(both, matrices, np.nan)[:, measured]
    if not measured.any():
        return {}
    measures, shares = {}, {}
    at_reference = route(combine(quality, learned_reward, reference)).teacher
    for alpha in ALPHAS:
        reward = combine(quality, learned_reward, alpha)
        chosen = route(reward, stay=at_reference).teacher
        share = allocation(chosen, len(pool))
        means = (float(values[np.arange(len(chosen)), chosen].mean()) for values in raw)
        measures[f"{alpha:g}"] = dict(zip(names[2:], means, strict=True)) | {
            "effective_teachers": float(effective_teachers(share)),
            "tied": float(several_best(reward).mean()),
            "moved": float((chosen != at_reference).mean()),
        }
        shares[f"{alpha:g}"] = dict(zip(pool, share.tolist(), strict=True))
    return {"prompts": int(measured.sum()), "measures": measures, "allocation": shares}
