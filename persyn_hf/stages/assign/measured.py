"""The measured rewards of the prompts that are to be assigned."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from persyn_hf.core.arrays import FloatArray
from persyn_hf.core.assignment import column_means
from persyn_hf.core.rewards import reward_matrix


if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

COLUMNS = ("prompt_id", "teacher", "reward", "quality_reward", "learnability_reward", "split")


class Measured:
    """The rewards of prompts by every teacher, NaN where unmeasured.

    Of several sets of rewards an earlier one goes first; a later one fills in prompts on which it has nothing
    measured. `means` (n,), over all rewards, decide between teachers of equal score.
    """

    def __init__(
        self, sets: "Sequence[Dataset | None]", splits: Sequence[str], pool: Sequence[str], alpha: float | None
    ) -> None:
        """Read the rewards of some splits from datasets; `alpha` combines them, None takes the stored reward."""
        self.matrix: FloatArray = np.zeros((0, len(pool)))
        self._row_of: dict[str, int] = {}
        for rewards in sets:
            ids, matrix = reward_matrix(of_splits(rewards, splits, COLUMNS), pool, alpha) if rewards else ([], [])
            for prompt_id, row in zip(ids, range(len(self.matrix), len(self.matrix) + len(ids)), strict=True):
                before = self._row_of.get(prompt_id)
                if before is None or np.isnan(self.matrix[before]).all():
                    self._row_of[prompt_id] = row
            self.matrix = np.concatenate([self.matrix, matrix]) if ids else self.matrix
        self.means = column_means(self.matrix) if len(self.matrix) else np.zeros(len(pool))

    @property
    def num_prompts(self) -> int:
        """Return the number of prompts that have a row in some set."""
        return len(self._row_of)

    def __contains__(self, prompt_id: str) -> bool:
        """Say whether a prompt has a row in some set."""
        return prompt_id in self._row_of

    def of(self, chunk: "pa.Table") -> FloatArray:
        """Return the rewards of a chunk's prompts (num_prompts, num_teachers), NaN where unmeasured."""
        rows = np.array([self._row_of.get(prompt_id, -1) for prompt_id in chunk["prompt_id"].to_pylist()], dtype=int)
        rewards = np.full((len(rows), self.matrix.shape[1]), np.nan)
        rewards[rows >= 0] = self.matrix[rows[rows >= 0]]
        return rewards


def of_splits(dataset: "Dataset", splits: Sequence[str], columns: Sequence[str]) -> dict[str, list[Any]]:
    """Return the `columns` of the rows that are in `splits`, as lists."""
    chosen = [row for row, split in enumerate(dataset["split"]) if split in splits]
    return dict(dataset.select_columns(list(columns)).select(chosen)[:])
