"""What a criterion of quality is given, and what it returns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


Cell = tuple[str, str]  # prompt_id, teacher


@dataclass(frozen=True)
class Judged:
    """An answer to judge: the row of its prompt, the row of the kept response, and the share of right samples."""

    prompt: Mapping[str, Any]
    response: Mapping[str, Any]
    pass_rate: float | None


@dataclass(frozen=True, kw_only=True)
class Quality:
    """The quality of every answer, in order, and what the card says of how it was found."""

    values: Sequence[float | None]
    verdicts: Sequence[list[dict[str, Any]] | None] | None = None  # what judges replied on each; None: none was asked
    counts: Mapping[str, int] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    cost: Mapping[str, Any] = field(default_factory=dict)
