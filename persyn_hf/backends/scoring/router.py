"""Score prompts by an llm router, as a scorer, so that the processes of `accelerate launch` can share them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from persyn_hf.backends import chat
from persyn_hf.backends.loading import suitable_batch
from persyn_hf.backends.routers import load
from persyn_hf.backends.routers.llm_model import Llm
from persyn_hf.backends.scoring import Values


class RouterScorer:
    """An llm router in memory. Its values of a prompt are the scores of the teachers, in the router's order."""

    def __init__(self, folder: str, alpha: float | None, device: str = "auto") -> None:
        router = load(Path(folder), device, alpha)
        assert isinstance(router, Llm)  # who asks for processes has looked
        self._router = router
        self.batch_tokens = suitable_batch(router.model)

    def encode(self, rows: Sequence[chat.Row]) -> list[chat.Turn]:
        """Encode conversations; there are no answers yet."""
        tokens = self._router.encode([messages for messages, _ in rows])
        return [chat.Turn(ids=np.array(ids, dtype=np.int32), start=0, truncated=False) for ids in tokens]

    def measure(self, turns: Sequence[chat.Turn]) -> list[Values]:
        """Measure one batch, in its order."""
        outputs = self._router.outputs([turn.ids.tolist() for turn in turns])
        return [list(row) for row in self._router.combine(outputs).tolist()]
