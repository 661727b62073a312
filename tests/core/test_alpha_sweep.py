"""The alpha sweep on tables worked by hand."""

from typing import Any

import pytest

from persyn_hf.core.alpha_sweep import ALPHAS, alpha_sweep


POOL = ["a", "b", "c"]
# Of p, a is right and unlikely, b wrong and likely, c unjudged; q likewise, but b is right as well; r is not judged.
COLUMNS: dict[str, list[Any]] = {
    "prompt_id": ["p", "p", "p", "q", "q", "r"],
    "teacher": ["a", "b", "c", "a", "b", "a"],
    "quality_raw": [1.0, 0.0, None, 1.0, 1.0, None],
    "mean_logprob": [-3.0, -1.0, -0.5, -2.0, -4.0, -1.0],
    "quality_reward": [1.0, 0.0, None, 0.0, 0.0, None],
    "learnability_reward": [0.0, 0.8, 1.0, 1.0, 0.0, 0.0],
}


def test_sweep_by_hand() -> None:
    """On p the likely answer wins where 0.8 alpha > 1 - alpha, from 0.6 on; on q, at 0, a has the better mean."""
    found = alpha_sweep(COLUMNS, POOL)
    assert list(found) == ["prompts", "measures", "allocation"] and found["prompts"] == 2
    assert list(found["measures"]) == ["0", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "1"]
    for alpha in ALPHAS:
        measures, shares = found["measures"][f"{alpha:g}"], found["allocation"][f"{alpha:g}"]
        if alpha < 0.6:
            one = {"quality_raw": 1, "mean_logprob": -2.5, "effective_teachers": 1, "moved": 0}
            assert measures == pytest.approx(one | {"tied": 0.5 if alpha == 0 else 0})
            assert shares == {"a": 1, "b": 0, "c": 0}
        else:
            two = {"quality_raw": 0.5, "mean_logprob": -1.5, "effective_teachers": 2, "moved": 0.5, "tied": 0}
            assert measures == pytest.approx(two)
            assert shares == {"a": 0.5, "b": 0.5, "c": 0}


def test_the_measure_in_use_is_told() -> None:
    """Rank-surprisal of the chosen: on p 20 / 10 and 9 / 6, on q 12 / 8 and 14 / 4; lower is more learnable."""
    of = {"sum_logprob": [-10.0, -6.0, -1.0, -8.0, -4.0, -1.0], "sum_min_rank": [20.0, 9.0, 1.0, 12.0, 14.0, 1.0]}
    found = alpha_sweep({**COLUMNS, **of}, POOL, "rank_surprisal")["measures"]
    assert list(found["0"]) == ["quality_raw", "rank_surprisal", "effective_teachers", "tied", "moved"]
    assert found["0"]["rank_surprisal"] == pytest.approx(-(2 + 1.5) / 2)
    assert found["1"]["rank_surprisal"] == pytest.approx(-(1.5 + 1.5) / 2)
    assert alpha_sweep(COLUMNS, POOL, "none") == {}


@pytest.mark.parametrize("column", ["quality", "learnability"])
def test_no_sweep_where_one_side_is_not_measured(column: str) -> None:
    raw = {"quality": "quality_raw", "learnability": "mean_logprob"}[column]
    nothing = {name: [None] * len(COLUMNS["teacher"]) for name in (raw, f"{column}_reward")}
    assert alpha_sweep(COLUMNS | nothing, POOL) == {}
    assert alpha_sweep({name: [] for name in COLUMNS}, POOL) == {}


def test_prompts_with_several_best_teachers_stay_where_the_recipe_has_them() -> None:
    """Two teachers of equal answers, whose means cross between alpha 0 and 1 by other prompts, which one has alone."""
    cells = [("p", "a", 1.0, 1.0), ("p", "b", 1.0, 1.0), ("q", "a", 1.0, 0.0), ("r", "b", 0.0, 1.0)]
    names = ("prompt_id", "teacher", "quality_reward", "learnability_reward")
    columns: dict[str, list[Any]] = {name: [cell[at] for cell in cells] for at, name in enumerate(names)}
    columns |= {"quality_raw": columns["quality_reward"], "mean_logprob": columns["learnability_reward"]}
    for reference, share in ((0.2, 2 / 3), (0.8, 1 / 3)):
        found = alpha_sweep(columns, ["a", "b"], reference=reference)
        for shares, line in zip(found["allocation"].values(), found["measures"].values(), strict=True):
            assert shares["a"] == pytest.approx(share)
            assert (line["moved"], line["tied"]) == (0, pytest.approx(1 / 3))
