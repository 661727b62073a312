"""Learnability (paper Eq. 1): the student's mean log-probability of a response.

One forward pass gives all that is known of a response under a student. The LM head is applied to the response's
positions only and in chunks, so that memory does not grow with vocabulary x length.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from persyn_hf.backends import chat
from persyn_hf.errors import EngineError


if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

RANK_CAP = 100  # rank-surprisal ratio: ranks beyond it count as it
HEAD_POSITIONS = 1024  # positions whose logits (float32, x vocabulary) are in memory at a time


@dataclass(frozen=True, kw_only=True)
class Likelihoods:
    """Arrays of shape (num_responses,). A response with no token left to score has num_tokens 0 and a NaN mean."""

    sum_logprob: np.ndarray  # nats
    num_tokens: np.ndarray  # tokens scored, the end of turn included
    sum_min_rank: np.ndarray  # sum of min(rank, 100); rank 1 is the likeliest token
    truncated: np.ndarray  # cut at max_length: no end of turn

    @property
    def mean_logprob(self) -> np.ndarray:
        """Eq. 1, nats per token."""
        with np.errstate(invalid="ignore"):
            return self.sum_logprob / np.where(self.num_tokens == 0, np.nan, self.num_tokens)


class LoadedStudent:
    """A student in memory, with what is needed to score under it."""

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        *,
        chat_template: str | None = None,
        dtype: chat.Dtype = "auto",
        device: str = "auto",
    ) -> None:
        self.name = model
        self.tokenizer: PreTrainedTokenizerBase = chat.load_tokenizer(model, revision, chat_template)
        self.model: PreTrainedModel = chat.load_causal_lm(model, revision, dtype, device)
        config = self.model.config.get_text_config()
        self.context_length = int(getattr(config, "max_position_embeddings", None) or 1 << 30)
        self._check_head()

    def hidden_states(self, ids: "torch.Tensor", mask: "torch.Tensor") -> "torch.Tensor":
        """Last hidden states, shape (rows, length, width)."""
        states: torch.Tensor = self.model.base_model(
            input_ids=ids, attention_mask=mask, use_cache=False
        ).last_hidden_state
        return states

    def logits(self, states: "torch.Tensor") -> "torch.Tensor":
        """The LM head with the scaling and soft-capping that some families put after it; float32."""
        import torch

        config = self.model.config.get_text_config()
        logits = self.model.get_output_embeddings()(states).float()
        logits = logits * getattr(config, "logit_scale", 1.0)  # Cohere
        logits = logits / getattr(config, "logits_scaling", 1.0)  # Granite
        cap = getattr(config, "final_logit_softcapping", None)  # Gemma 2
        return logits if cap is None else torch.tanh(logits / cap) * cap

    def _check_head(self) -> None:
        """Compare our path to the logits with the model's own on a few tokens."""
        import torch

        ids = torch.arange(min(8, self.model.config.get_text_config().vocab_size), device=self.model.device)[None]
        with torch.inference_mode():
            own = self.model(input_ids=ids, use_cache=False).logits.float()
            ours = self.logits(self.hidden_states(ids, torch.ones_like(ids)))
        tolerance = 1e-3 if self.model.dtype == torch.float32 else 0.05
        if not torch.allclose(own, ours, rtol=tolerance, atol=tolerance * float(own.abs().max())):
            raise EngineError(
                f"the student `{self.name}` ({type(self.model).__name__}) changes its logits after the LM head in a "
                "way that is not known here; add its scaling to persyn_hf/backends/learnability.py"
            )


def score_responses(
    student: LoadedStudent,
    conversations: Sequence[chat.Messages],
    responses: Sequence[str],
    *,
    max_length: int,
    batch_tokens: int,
    skip: frozenset[int] = frozenset(),
    done: Callable[[list[int], Likelihoods], None] | None = None,
) -> Likelihoods:
    """Score each response after its conversation; results are in the order given.

    Equals, row by row, `log_softmax(model(ids).logits[:-1])` gathered at `ids[1:]` over the response's positions.
    Batches hold at most `batch_tokens` tokens, padding included, and rows of similar length; `done` is told the rows
    of each finished batch and their values. Rows in `skip` are not scored (they are known already) but keep their
    place in the batches, so that a run that was cut gives the same numbers to the last bit.
    """
    length = min(max_length, student.context_length)
    turns = [
        chat.encode_turn(student.tokenizer, conversation, response, length)
        for conversation, response in zip(conversations, responses, strict=True)
    ]
    columns = np.zeros((3, len(turns)))
    truncated = np.array([turn.truncated for turn in turns], dtype=bool)
    for batch in plan_batches([len(turn.ids) for turn in turns], batch_tokens):
        rows = [row for row in batch if row not in skip]
        if not rows:
            continue
        columns[:, rows] = _score_batch(student, [turns[row] for row in rows])
        if done is not None:
            done(rows, _likelihoods(columns[:, rows], truncated[rows]))
    return _likelihoods(columns, truncated)


def plan_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Group rows, longest first, so that rows x longest stays within `batch_tokens` (a longer row goes alone)."""
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        if not batches or (len(batches[-1]) + 1) * lengths[batches[-1][0]] > batch_tokens:
            batches.append([])
        batches[-1].append(row)
    return batches


def _likelihoods(columns: np.ndarray, truncated: np.ndarray) -> Likelihoods:
    return Likelihoods(
        sum_logprob=columns[0], num_tokens=columns[1].astype(np.int64), sum_min_rank=columns[2], truncated=truncated
    )


def _score_batch(student: LoadedStudent, turns: list[chat.Turn]) -> np.ndarray:
    """Sum of log-probabilities, number of tokens and sum of capped ranks; shape (3, rows)."""
    import torch

    device = student.model.device
    longest = max(len(turn.ids) for turn in turns)
    ids = torch.zeros((len(turns), longest), dtype=torch.long)
    mask = torch.zeros_like(ids)
    scored = torch.zeros((len(turns), longest), dtype=torch.bool)
    for row, turn in enumerate(turns):  # padded on the right: positions start at 0 in every row
        ids[row, : len(turn.ids)] = torch.tensor(turn.ids)
        mask[row, : len(turn.ids)] = 1
        scored[row, max(turn.start, 1) : len(turn.ids)] = True
    rows, positions = scored.nonzero(as_tuple=True)
    sums = torch.zeros((3, len(turns)), dtype=torch.float64)
    if len(rows):
        targets = ids[rows, positions].to(device)
        try:
            with torch.inference_mode(), chat.suitable_threads(student.model):
                states = student.hidden_states(ids.to(device), mask.to(device))
                states = states[rows.to(device), positions.to(device) - 1]  # position t-1 predicts token t
                per_token = _score_positions(student, states, targets).cpu()
        except torch.OutOfMemoryError:
            raise EngineError(
                f"the student `{student.name}` ran out of memory at {len(turns)} rows of {longest} tokens; "
                "lower `score.batch_tokens` and run again"
            ) from None
        sums.index_add_(1, rows, per_token)
    values: np.ndarray = sums.numpy()
    return values


def _score_positions(student: LoadedStudent, states: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
    """Log-probability, 1 and capped rank of each target; shape (3, tokens), float64. The softmax is in float32."""
    import torch

    parts: list[Any] = []
    for start in range(0, len(targets), HEAD_POSITIONS):
        target = targets[start : start + HEAD_POSITIONS, None]
        logits = student.logits(states[start : start + HEAD_POSITIONS])
        at_target = logits.gather(1, target)
        logprob = (at_target.squeeze(1) - logits.logsumexp(1)).double()
        rank = (1 + (logits > at_target).sum(1)).clamp(max=RANK_CAP).double()
        parts.append(torch.stack([logprob, torch.ones_like(logprob), rank]))
    return torch.cat(parts, dim=1)
