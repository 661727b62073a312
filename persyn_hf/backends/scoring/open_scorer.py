"""Open a scorer from plain arguments, so that another process can do the same."""

from typing import Any

from persyn_hf.backends.scoring import Scorer


def open_scorer(kind: str, **options: Any) -> Scorer:
    """Load the model of a `likelihood`, `reward_model` or `router` scorer."""
    if kind == "reward_model":
        from persyn_hf.backends.scoring.reward_model import RewardScorer

        return RewardScorer(**options)
    if kind == "router":
        from persyn_hf.backends.scoring.router import RouterScorer

        return RouterScorer(**options)
    from persyn_hf.backends.scoring.likelihood import LikelihoodScorer

    return LikelihoodScorer(**options)
