"""Measured rewards of the prompts to be assigned."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from persyn_hf.core.assignment import column_means
from persyn_hf.core.rewards import FloatArray, reward_matrix


if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

COLUMNS = ("prompt_id", "teacher", "reward", "quality_reward", "learnability_reward", "split")


class Measured:
    """Rewards by prompt, NaN where unmeasured; a later set fills in the prompts that an earlier one does not know."""

    def __init__(
        self, sets: "Sequence[Dataset | None]", splits: Sequence[str], pool: Sequence[str], alpha: float | None
    ) -> None:
        self.matrix: FloatArray = np.zeros((0, len(pool)))
        self._row_of: dict[str, int] = {}
        for rewards in sets:
            ids, found = reward_matrix(of_splits(rewards, splits, COLUMNS), pool, alpha) if rewards else ([], [])
            for prompt_id, row in zip(ids, range(len(self.matrix), len(self.matrix) + len(ids)), strict=True):
                before = self._row_of.get(prompt_id)
                if before is None or np.isnan(self.matrix[before]).all():
                    self._row_of[prompt_id] = row
            self.matrix = np.concatenate([self.matrix, found]) if ids else self.matrix
        self.means = column_means(self.matrix) if len(self.matrix) else np.zeros(len(pool))  # for equal scores

    @property
    def num_prompts(self) -> int:
        return len(self._row_of)

    def __contains__(self, prompt_id: str) -> bool:
        return prompt_id in self._row_of

    def of(self, chunk: "pa.Table") -> FloatArray:
        """Rewards of the prompts of a chunk (num_prompts, num_teachers)."""
        rows = np.array([self._row_of.get(prompt_id, -1) for prompt_id in chunk["prompt_id"].to_pylist()], dtype=int)
        found = np.full((len(rows), self.matrix.shape[1]), np.nan)
        found[rows >= 0] = self.matrix[rows[rows >= 0]]
        return found


def of_splits(dataset: "Dataset", splits: Sequence[str], columns: Sequence[str]) -> dict[str, list[Any]]:
    """Columns of the rows that are in `splits`."""
    chosen = [row for row, split in enumerate(dataset["split"]) if split in splits]
    return dict(dataset.select_columns(list(columns)).select(chosen)[:])
