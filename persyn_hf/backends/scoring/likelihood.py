"""Measure learnability (paper Eq. 1): the student's mean log-probability of a response.

One forward pass gives all that is measured. An example, with a prompt of 3 tokens and a response of 2:

    ids           p0   p1   p2   r0   r1   end      `start` is 3; the end-of-turn token is scored too
    scored                       r0   r1   end
    predicted by            p2   r0   r1            the hidden state at t-1 predicts the token at t
    probability                  1/2  1/4  1/2      sum_logprob = ln(1/16) = -2.77 nats, num_tokens = 3
    rank                         1    3    1        sum_min_rank = 5 (1 is the likeliest token)

The learnability of this response is -2.77 / 3 = -0.92.

The LM head is applied to the scored positions only and in chunks, so that memory does not grow with vocabulary x
length. Rows are padded on the right and there is no attention mask: a token never sees what follows it, and without a
mask attention takes no memory of length x length. Some models do look ahead, or compute their logits in another way:
`_check_path` refuses these before anything is measured.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from persyn_hf.backends import chat
from persyn_hf.backends import loading as models
from persyn_hf.backends.batches import pad
from persyn_hf.backends.scoring import Values
from persyn_hf.errors import EngineError, InputError


if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# What one row measures: nats; tokens scored, the end of turn included; sum of min(rank, 100), where rank 1 is the
# likeliest token; cut at max_length, so without an end of turn.
MEASURES = ("sum_logprob", "num_tokens", "sum_min_rank", "truncated")

RANK_CAP = 100  # of the rank-surprisal ratio: a larger rank counts as 100

# Positions x vocabulary whose logits are in memory at a time: two float32 tables of 256 MB, which all batches share
# (glibc scatters fresh ones over ever more memory: 5 GB after 1,400 answers by SmolLM2-135M). A GPU needs some 400
# positions of a vocabulary of 152K for the matrix product not to wait for the weights of the head.
HEAD_ELEMENTS = 1 << 26


class LikelihoodScorer:
    """A student in memory, whose values of a response are those of `MEASURES`.

    They equal, row by row, `log_softmax(model(ids).logits[:-1])` gathered at `ids[1:]` over the response's positions.
    A response with no token left to score within `max_length` has num_tokens 0.
    """

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        *,
        max_length: int,
        chat_template: str | None = None,
        dtype: models.Dtype = "auto",
        device: str = "auto",
    ) -> None:
        self.name = model
        self.tokenizer: PreTrainedTokenizerBase = models.load_tokenizer(model, revision, chat_template)
        self.model: PreTrainedModel = models.load_causal_lm(model, revision, dtype, device)
        config = self.model.config.get_text_config()
        self._max_length = min(max_length, int(getattr(config, "max_position_embeddings", None) or max_length))
        self.batch_tokens = models.suitable_batch(self.model)
        self._tables: torch.Tensor | None = None
        self._check_path()

    def encode(self, rows: Sequence[chat.Row]) -> list[chat.Turn]:
        """Encode conversations with their answers, each cut at `max_length` tokens.

        Raises:
            InputError: an answer holds a token for which the model has no embedding.
        """
        turns = chat.encode_turns(self.tokenizer, rows, self._max_length)
        largest = max((int(turn.ids.max(initial=0)) for turn in turns), default=0)
        embeddings = self.model.get_input_embeddings().num_embeddings
        if largest >= embeddings:
            raise InputError(
                f"the tokenizer of `{self.name}` reads {self.tokenizer.convert_ids_to_tokens(largest)} (token "
                f"{largest}) in the answers, but the model has {embeddings} embeddings; add the missing rows to the "
                "model (`resize_token_embeddings`)"
            )
        return turns

    def measure(self, turns: Sequence[chat.Turn]) -> list[Values]:
        """Measure one batch, in its order. Raises `EngineError` where values are not finite or memory is short."""
        sums = _score_batch(self, turns)
        if not sums.isfinite().all():
            raise self._broken()
        return [
            [total, int(tokens), ranks, turn.truncated]
            for turn, total, tokens, ranks in zip(turns, *sums.tolist(), strict=True)
        ]

    def hidden_states(self, ids: "torch.Tensor") -> "torch.Tensor":
        """Compute the last hidden states (rows, length, width) of token ids (rows, length)."""
        states: torch.Tensor = self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        return states

    def logits(self, states: "torch.Tensor", out: "torch.Tensor") -> "torch.Tensor":
        """Apply the LM head, with the scaling and soft-capping that some families put after it.

        States (positions, width) give logits (positions, vocabulary), which are written to `out` and returned.
        """
        import torch

        head, config = self.model.get_output_embeddings(), self.model.config.get_text_config()
        if states.dtype == out.dtype and head.bias is None:
            torch.mm(states, head.weight.T, out=out)
        else:
            out.copy_(head(states))
        scale = (getattr(config, "logit_scale", None) or 1) / (getattr(config, "logits_scaling", None) or 1)
        if scale != 1:  # Cohere, Granite
            out.mul_(scale)
        cap = getattr(config, "final_logit_softcapping", None)  # Gemma 2
        return out if cap is None else out.div_(cap).tanh_().mul_(cap)

    def tables(self, positions: int, vocabulary: int) -> "torch.Tensor":
        """Return two tables to write to, (2, positions, vocabulary) in float32; later calls write to the same ones."""
        import torch

        if self._tables is None or self._tables.shape[1] < positions:
            self._tables = None  # freed first
            self._tables = torch.empty((2, positions, vocabulary), device=self.model.device)
        return self._tables[:, :positions]

    def _check_path(self) -> None:
        """Compare our path to the logits with the model's own on a few tokens, and refuse a model whose logits differ.

        The model itself is not shown the second half of them, because a student that looks ahead would be misled by
        padding.
        """
        import torch

        ids = torch.arange(min(8, self.model.config.get_text_config().vocab_size), device=self.model.device)[None]
        half = ids.shape[1] // 2
        try:
            with torch.inference_mode():
                own = self.model(input_ids=ids[:, :half], use_cache=False).logits[0].float()
                ours = self.logits(self.hidden_states(ids)[0, :half], torch.empty_like(own))
        except (AttributeError, TypeError):  # no base model, no LM head, other arguments
            own, ours = torch.zeros(1), torch.ones(1)
        if not own.isfinite().all():
            raise self._broken()
        tolerance = 1e-3 if self.model.dtype == torch.float32 else 0.05
        if not torch.allclose(own, ours, rtol=tolerance, atol=tolerance * float(own.abs().max())):
            raise EngineError(
                f"the student `{self.name}` ({type(self.model).__name__}) makes its logits of more than its LM head "
                "and the tokens so far; give another student, or add what it does to "
                "persyn_hf/backends/scoring/likelihood.py"
            )

    def _broken(self) -> EngineError:
        return EngineError(
            f"the student `{self.name}` gives log-probabilities that are not finite: its weights are damaged, or "
            f"{str(self.model.dtype).removeprefix('torch.')} overflows; give other weights, or set "
            "`score.dtype: float32`"
        )


def _score_batch(student: LikelihoodScorer, turns: Sequence[chat.Turn]) -> "torch.Tensor":
    """Return the sum of log-probabilities, the number of tokens and the sum of capped ranks of each row: (3, rows)."""
    import torch

    device = student.model.device
    ids, mask = pad([turn.ids for turn in turns])
    scored = mask.bool()
    for row, turn in enumerate(turns):
        scored[row, : max(turn.start, 1)] = False
    rows, positions = scored.nonzero(as_tuple=True)
    sums = torch.zeros((3, len(turns)), dtype=torch.float64)
    if len(rows):
        targets = ids[rows, positions].to(device)
        try:
            with torch.inference_mode():
                states = student.hidden_states(ids.to(device))
                states = states[rows.to(device), positions.to(device) - 1]  # position t-1 predicts token t
                per_token = _score_positions(student, states, targets).cpu()
        except torch.OutOfMemoryError:
            raise EngineError(
                f"the student `{student.name}` ran out of memory at {len(turns)} rows of {ids.shape[1]} tokens; "
                "lower `score.batch_tokens` and run again"
            ) from None
        sums.index_add_(1, rows, per_token)
    return sums


def _score_positions(student: LikelihoodScorer, states: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
    """Return log-probability, 1 and capped rank of each target: (3, tokens), float64. The softmax is in float32."""
    import torch

    measured = torch.ones((3, len(targets)), dtype=torch.float64, device=states.device)
    vocabulary = len(student.model.get_output_embeddings().weight)
    chunk = min(len(targets), max(1, HEAD_ELEMENTS // vocabulary))
    tables = student.tables(chunk, vocabulary)
    for start in range(0, len(targets), chunk):
        target, (table, spare) = targets[start : start + chunk, None], tables[:, : len(targets) - start]
        logits = student.logits(states[start : start + chunk], table)
        at_target, top = logits.gather(1, target), logits.amax(1, keepdim=True)
        total = torch.sub(logits, top, out=spare).exp_().sum(1, keepdim=True)
        measured[0, start : start + chunk] = (at_target - top - total.log()).squeeze(1)
        measured[2, start : start + chunk] = 1 + logits.gt_(at_target).sum(1)  # in place: a table of booleans is cast
    measured[2].clamp_(max=RANK_CAP)
    return measured
