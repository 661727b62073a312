"""Measure quality by a reward model: its one logit for a conversation with its answer."""

from collections.abc import Sequence
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from persyn_hf.backends import chat
from persyn_hf.backends import loading as models
from persyn_hf.backends.batches import pad
from persyn_hf.backends.scoring import Values
from persyn_hf.errors import EngineError, InputError, reason


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


AUTO = "AutoModelForSequenceClassification"
ADVICE = "set `score.reward_model.model` to another, such as Skywork/Skywork-Reward-V2-Llama-3.1-8B"


class RewardScorer:
    """A sequence-classification model with one label, in memory. Its one value of an answer is the raw logit.

    An answer that does not fit within `max_length` tokens is not judged (None), because the score of a cut answer is
    the score of another answer.
    """

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        *,
        max_length: int,
        dtype: models.Dtype = "auto",
        device: str = "auto",
    ) -> None:
        self.name = model
        self.tokenizer: PreTrainedTokenizerBase = models.load_tokenizer(model, revision, advice=ADVICE)
        self.model: PreTrainedModel = models.load_model(AUTO, model, revision, dtype, device, advice=ADVICE)
        if self.model.config.num_labels != 1:
            raise EngineError(
                f"the reward model `{model}` gives {self.model.config.num_labels} numbers per answer, one is needed; "
                f"{ADVICE}"
            )
        context = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        self._max_length = min(max_length, int(context or max_length))
        self.model.config.get_text_config().use_cache = False
        self.batch_tokens = models.suitable_batch(self.model)
        head = getattr(self.model, "score", None)  # of decoders
        if head is not None:  # a bfloat16 logit has 3 digits, so answers would tie; vLLM's heads are float32, too
            head.float().register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))

    def encode(self, rows: Sequence[chat.Row]) -> list[chat.Turn]:
        """Encode whole conversations; one that is too long gets no tokens."""
        texts = [self._render(messages, answer) for messages, answer in rows]
        turns = []
        for ids in self.tokenizer(texts, add_special_tokens=False)["input_ids"]:
            too_long = len(ids) > self._max_length
            turns.append(chat.Turn(ids=np.array([] if too_long else ids, dtype=np.int32), start=0, truncated=too_long))
        return turns

    def measure(self, turns: Sequence[chat.Turn]) -> list[Values]:
        """Measure one batch, in its order. Raises `EngineError` where a score is not finite or memory is short."""
        scores = iter(_score_batch(self, [turn for turn in turns if not turn.truncated]))
        return [[None if turn.truncated else next(scores)] for turn in turns]

    def _render(self, messages: chat.Messages, answer: str) -> str:
        try:
            return chat.apply(self.tokenizer, [*messages, {"role": "assistant", "content": answer}])
        except Exception as error:  # noqa: BLE001  # templates refuse by raising
            raise InputError(
                f"the chat template of the reward model `{self.name}` refuses a conversation ({reason(error)}); "
                "leave such prompts out, or take another reward model"
            ) from None


def _score_batch(judge: RewardScorer, turns: Sequence[chat.Turn]) -> list[float]:
    """Compute the logits of the rows, padded on the right."""
    import torch

    if not turns:
        return []
    ids, mask = pad([turn.ids for turn in turns], _choose_padding(judge.model, turns))
    device = judge.model.device
    try:
        with torch.inference_mode():
            logits: torch.Tensor = judge.model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits
            scores = logits.squeeze(1).double().cpu()
    except torch.OutOfMemoryError:
        raise EngineError(
            f"the reward model `{judge.name}` ran out of memory at {len(turns)} rows of {ids.shape[1]} tokens; lower "
            "`score.reward_model.batch_tokens` and run again"
        ) from None
    if not scores.isfinite().all():
        raise EngineError(
            f"the reward model `{judge.name}` scores an answer as {scores[~scores.isfinite()][0]:g}; "
            "its weights are broken, or need `score.reward_model.dtype: float32`"
        )
    return scores.tolist()


def _choose_padding(model: "PreTrainedModel", turns: Sequence[chat.Turn]) -> int:
    """Make a token that ends no row the padding of the model.

    A decoder reads the score at the last token that is not padding. With the end-of-turn token as padding, as in many
    checkpoints, it would read the score one token too early; without a padding token it refuses batches.
    """
    last = {int(turn.ids[-1]) for turn in turns}
    unused = next(token for token in count() if token not in last)
    for config in (model.config, model.config.get_text_config()):
        config.pad_token_id = unused
    return unused
