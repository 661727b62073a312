"""From plain arguments to a scorer, so that another process can do the same."""

from typing import Any

from persyn_hf.backends.scoring import Scorer


def open_scorer(kind: str, **options: Any) -> Scorer:
    """Load the model of a `likelihood` or `reward_model` scorer."""
    if kind == "reward_model":
        from persyn_hf.backends.scoring.reward_model import RewardScorer

        return RewardScorer(**options)
    from persyn_hf.backends.scoring.likelihood import LikelihoodScorer

    return LikelihoodScorer(**options)
