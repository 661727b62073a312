"""Every teacher's answers to every prompt, as one student scores them; a study chooses among them which to pay for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persyn_hf import load_artifact
from persyn_hf.core.conversations import user_text
from persyn_hf.core.rewards import recombine, reward_matrix
from persyn_hf.recipe.recipe import Recipe


Matrix = NDArray[np.float64]
Mask = NDArray[np.bool_]
READ = ("prompt_id", "teacher", "quality_raw", "mean_logprob", "num_tokens")


class World:
    """What the artifacts of a recipe hold whose oracle was run, prompts by number, teachers by place in the pool."""

    def __init__(self, recipe: Recipe, store: Path | None, student: str | None = None) -> None:
        self._name, self._store = recipe.full_name, store
        self.teachers = recipe.teachers
        self.student = next(one for one in recipe.students if student in (None, one.name))
        self.pool = [teacher.name for teacher in recipe.teachers]
        cells = [
            {key: row[key] for key in READ}
            for kind in ("", "-pool")
            for row in self.table(f"rewards-{self.student.name}{kind}")
        ]
        self.ids = list(dict.fromkeys(row["prompt_id"] for row in cells))
        of = {row["prompt_id"]: row["messages"] for row in self.table("prompts")}
        self.messages = [of[prompt_id] for prompt_id in self.ids]
        self.texts = [user_text(messages) for messages in self.messages]
        self._place = {(row["prompt_id"], row["teacher"]): row for row in cells}
        self._rewards: dict[float, Matrix] = {}

    def table(self, kind: str) -> list[dict[str, Any]]:
        """Read all rows of an artifact of the recipe."""
        splits = load_artifact(f"{self._name}-{kind}", store=self._store)
        return [row for split in splits.values() for row in split]

    def rewards(self, alpha: float) -> Matrix:
        """Return all rewards (prompts, teachers), as nobody knows them before all is paid for."""
        if alpha not in self._rewards:
            everything = np.ones((len(self.ids), len(self.pool)), dtype=bool)
            self._rewards[alpha] = self.known(everything, np.arange(len(self.ids)), alpha)
        return self._rewards[alpha]

    def known(self, asked: Mask, prompts: Sequence[int] | NDArray[np.int64], alpha: float) -> Matrix:
        """Return the rewards of the cells `asked` (len(prompts), teachers) of some prompts, as `score` makes them."""
        chosen = [
            self._place[self.ids[prompt], self.pool[teacher]]
            for prompt, row in zip(prompts, asked, strict=True)
            for teacher in np.flatnonzero(row)
        ]
        columns = {key: [row[key] for row in chosen] for key in READ}
        columns |= recombine(columns, alpha, in_part=not asked.all())
        ids, found = reward_matrix(columns, self.pool, None)
        rewards = np.full(asked.shape, np.nan)
        row_of = {self.ids[prompt]: row for row, prompt in enumerate(prompts)}
        rewards[[row_of[prompt_id] for prompt_id in ids]] = found
        return rewards

    def measured(self, column: str, prompts: Sequence[int] | NDArray[np.int64]) -> Matrix:
        """Return `quality_raw` or `mean_logprob` of every teacher's answers to some prompts."""
        return np.array(
            [[self._place[self.ids[prompt], name][column] for name in self.pool] for prompt in prompts], dtype=float
        )
