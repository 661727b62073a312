"""Make rewards of measured answers, and comparisons of rewards."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from persyn_hf.api.arguments import check_number
from persyn_hf.api.tables import (
    Columns,
    Prompts,
    Table,
    columns_of,
    ids_in,
    in_memory,
    numbers_in,
    prompt_table,
    splits_in,
    texts_in,
)
from persyn_hf.core import rewards as core
from persyn_hf.core.criteria import mix_criteria
from persyn_hf.core.pairs import TIE
from persyn_hf.core.rewards import NOISE, How, Measure
from persyn_hf.errors import InputError
from persyn_hf.schemas import CRITERIA, PROMPTS, REWARDS, criterion_column


if TYPE_CHECKING:
    from datasets import Dataset


SPLIT = "calibration"  # of rewards that name none
MADE = ("quality_reward", "learnability_reward", "reward", "rank")
RAW = ("quality_raw", "mean_logprob", "sum_logprob", "num_tokens", "sum_min_rank")


def rewards(rows: Table, *, alpha: float = 0.4, normalisation: How = "minmax", near_tie: float = NOISE) -> "Dataset":
    """Combine quality and learnability to rewards, normalised per prompt across teachers (the paper's Eq. 2).

    Args:
        rows: a table with one row per prompt and teacher: `prompt` (or `messages`, or `prompt_id`), `teacher`,
            `quality` (a number, true or false; missing: it could not be judged) and `learnability` (as the function of
            that name measures it), and `split` where there is one. `quality` may be absent with alpha 1,
            `learnability` with alpha 0.
        alpha: weight of learnability, 0 to 1; reward = (1 - alpha) quality + alpha learnability.
        normalisation: `minmax` (the worst is 0, the best 1), `zscore`, `rank` or `none`.
        near_tie: share of a prompt's largest value by which others may differ and still be equal.

    Returns:
        A dataset of the `rewards` contract, in the order of the rows. `rank` 1 is best; a reward is null where a value
        that counts is missing.

    Raises:
        InputError: a column is missing or of another type, a cell has two rows, or a value is not finite.
        RecipeError: a setting is not valid.

    Example: two teachers on one prompt with quality 1 and 0 and learnability -0.9 and -0.4 get the rewards 0.6, 0.4.
    """
    check_number("alpha", alpha)
    check_number("near_tie", near_tie)
    columns = columns_of(rows, "rows")
    nothing: list[Any] = [None] * len(next(iter(columns.values())))
    raw = dict.fromkeys(("quality_raw", "mean_logprob"), nothing)
    if alpha != 1 or "quality" in columns:
        raw["quality_raw"] = numbers_in(columns, "quality", "rows", "whose weight is 1 - alpha")
    if alpha != 0 or "learnability" in columns:
        raw["mean_logprob"] = numbers_in(columns, "learnability", "rows", "whose weight is alpha")
    known = {
        "prompt_id": ids_in(columns, "rows"),
        "teacher": texts_in(columns, "teacher", "rows", "who has answered"),
        "split": splits_in(columns, "rows", SPLIT),
        **raw,
    }
    return reward_table(known | core.recombine(known, alpha, normalisation, near_tie=near_tie))


def recombine(
    rewards: Table,
    alpha: float = 0.4,
    *,
    normalisation: How = "minmax",
    measure: Measure = "mean_logprob",
    near_tie: float = NOISE,
    weights: Mapping[str, float] | None = None,
) -> "Dataset":
    """Combine the raw values of stored rewards anew, with another weight, normalisation or measure; no model runs.

    Args:
        rewards: a table of the `rewards` contract, such as `load_artifact` or the function `rewards` returns it.
        alpha, normalisation, near_tie: as in the function `rewards`.
        measure: `mean_logprob`, `rank_surprisal` (which stored rewards allow) or `none`.
        weights: criterion -> its weight in the quality, above 0, such as `{"correct": 1, "judge": 2}`. It makes
            `quality_raw` anew, and needs rewards whose `score.quality` was a list that names these criteria. None: the
            stored quality is taken as it is.

    Returns:
        The same rows with `quality_reward`, `learnability_reward`, `reward` and `rank` made anew. What judges have
        replied (`verdicts`) is left out.

    Raises:
        InputError: a column is missing, or null everywhere although it counts, or a value is not finite.
        RecipeError: a setting is not valid.
    """
    check_number("alpha", alpha)
    check_number("near_tie", near_tie)
    columns = columns_of(rewards, "rewards")
    for name in ("prompt_id", "teacher"):
        columns[name] = texts_in(columns, name, "rewards", "which stored rewards have")
    for place, name in enumerate(RAW):
        if name in columns or place < (2 if measure == "mean_logprob" else len(RAW)):
            columns[name] = numbers_in(columns, name, "rewards", "which stored rewards have")
    columns.pop("verdicts", None)
    for name in map(criterion_column, CRITERIA):
        if name in columns:
            columns[name] = numbers_in(columns, name, "rewards", "which a criterion has said")
    if weights is not None:
        _check_weights(weights)
        said = {name: _said(columns, name) for name in weights}
        columns["quality_raw"] = mix_criteria(columns, said, weights, normalisation, near_tie=near_tie)
    _check_measured(columns, alpha, measure)
    columns["split"] = splits_in(columns, "rewards", SPLIT)
    return reward_table(columns | core.recombine(columns, alpha, normalisation, measure, near_tie=near_tie))


def _said(columns: Columns, criterion: str) -> list[Any]:
    """Return what a criterion says of each row of stored rewards."""
    name = criterion_column(criterion)
    if name not in columns:
        raise InputError(
            f"the rewards have no column `{name}` to weigh `{criterion}` by; give rewards of a run whose "
            "`score.quality` was a list that names it"
        )
    return columns[name]


def _check_weights(weights: Any) -> None:
    """Refuse weights that are no mapping of criteria to numbers above 0."""
    from persyn_hf.stages.score.settings import check_weight

    if not isinstance(weights, Mapping) or not weights:
        raise InputError(
            f'`weights` must map criteria to numbers, as {{"correct": 0.7, "judge": 0.3}}, got {weights!r:.60}'
        )
    for criterion, weight in weights.items():
        try:
            check_weight(criterion, weight)
        except ValueError as error:
            raise InputError(f"`weights`: {error}") from None


def _check_measured(columns: Columns, alpha: float, measure: Measure) -> None:
    """Refuse rewards that lack in every row what is to be combined: all that is made of them would be null."""
    read = {"mean_logprob": ("mean_logprob",), "rank_surprisal": ("sum_logprob", "sum_min_rank")}.get(measure, ())
    for names, counts, otherwise in ((("quality_raw",), alpha != 1, 1), (read, alpha != 0, 0)):
        gone = [name for name in names if all(value is None for value in columns[name])]
        if counts and gone:
            raise InputError(
                f"`rewards`: {' and '.join(f'`{name}`' for name in gone)} {'is' if len(gone) == 1 else 'are'} null in "
                f"every row, and alpha {alpha} with the measure {measure} needs {'it' if len(gone) == 1 else 'them'}; "
                f"give rewards of a run that measured {'it' if len(gone) == 1 else 'them'}, or set alpha {otherwise}"
            )


def pairs(
    rewards: Table, prompts: "Prompts | None" = None, *, alpha: float | None = None, tie: float = TIE
) -> "Dataset":
    """Compare the teachers of each prompt two by two (the paper's pairwise data, section 2.3).

    Args:
        rewards: a table with `prompt_id` (or the prompt itself), `teacher` and `reward`, one row per cell; with an
            `alpha` also `quality_reward` and `learnability_reward`.
        prompts: the prompts, a list or a table; None: `rewards` has them, in `prompt` or `messages`.
        alpha: weight of learnability; None: as the rewards were combined.
        tie: rewards that differ by no more are a tie, label 0.5.

    Returns:
        A dataset of the `pairs` contract: `label` is 1 where teacher B is preferred, 0 where A is, 0.5 for a tie;
        `margin` is the reward of B minus that of A. Which of two is A is drawn by a hash, so labels lean to no side.

    Raises:
        InputError: a column is missing, a prompt of the rewards is not among the prompts, or a value is no number.
    """
    from persyn_hf.recipe.strict import read_section
    from persyn_hf.stage import Context
    from persyn_hf.stages import pair

    known, asked = labelled(rewards, prompts, None if alpha is None else MADE[:2])
    settings = read_section(pair.Settings, {"alpha": alpha, "tie": tie}, "pairs")
    with TemporaryDirectory() as folder:
        made = pair.run(settings, Context(seed=0, work_dir=Path(folder)), prompts=asked, rewards=known)
        assert not isinstance(made.data, Path)  # it is a dataset
        return in_memory(made.data)


def labelled(
    rewards: Table, prompts: "Prompts | None", needs: Sequence[str] | None = None
) -> tuple["Dataset", "Dataset"]:
    """Return rewards and their prompts, each prompt once, as datasets of their contracts.

    A prompt has the split that `prompts` say, else the one of its rewards (`calibration` where they say none), else
    `pool`. `needs`: the columns of rewards that are read, by default `reward`.
    """
    columns = columns_of(rewards, "rewards")
    if prompts is None and not {"prompt", "messages"} & columns.keys():
        raise InputError(
            "`rewards` has no column `prompt` or `messages`, and no `prompts` were given; give the prompts that the "
            "rewards are about as `prompts`"
        )
    ids = ids_in(columns, "rewards")
    known: Columns = {"prompt_id": ids, "teacher": texts_in(columns, "teacher", "rewards", "who has answered")}
    for name in (*RAW[:2], *MADE[:3]):
        if name in columns or name in (needs or ("reward",)):
            known[name] = numbers_in(columns, name, "rewards", "which is learned from")
    split_of = dict(zip(ids, splits_in(columns, "rewards", SPLIT), strict=True))
    given = prompt_table(columns | {"prompt_id": ids}, "rewards") if prompts is None else prompt_table(prompts)
    asked = {row["prompt_id"]: row for row in reversed(given.to_list())}
    for name, row in asked.items():
        row["split"] = split_of[name] = row["split"] or split_of.get(name, "pool")
    known["split"] = [split_of[name] for name in ids]
    return reward_table(known), PROMPTS.dataset(list(reversed(asked.values())))


def reward_table(columns: Mapping[str, Sequence[Any]]) -> "Dataset":
    """Make a dataset of the `rewards` contract of the columns that there are; the others are null."""
    from datasets import Dataset

    size, schema = len(columns["prompt_id"]), REWARDS.having(columns)
    nothing: Columns = {name: [None] * size for name in schema.names}
    missing = nothing | {"truncated": [False] * size, "split": [SPLIT] * size}
    known = {name: list(columns.get(name, missing[name])) for name in schema.names}
    known["truncated"] = [bool(cut) for cut in known["truncated"]]
    known["num_tokens"] = [None if number is None else int(number) for number in known["num_tokens"]]
    return Dataset.from_dict(known, features=schema.features)
