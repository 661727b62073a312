"""Ask a vLLM server of our own for completions, tokens in and tokens out.

The server would render a template and read an answer by rules of its own: another date in the prompt, another
tokenizer (Mistral's), special tokens that are tags of thoughts dropped. So it is sent the tokens of the prompt that
was rendered here, and its tokens are read here, as those of the engine `transformers` are.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from persyn_hf.backends import chat
from persyn_hf.backends.answers import Request, Said
from persyn_hf.backends.engines.completions import read_usage
from persyn_hf.backends.engines.endpoint import Endpoint
from persyn_hf.backends.engines.replies import Fault
from persyn_hf.core.endings import ending


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TokensEndpoint(Endpoint):
    """One url; `ends` are the tokens that end an answer."""

    path = "/v1/completions"
    wanted = "completion"
    ours = True

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", ends: Sequence[int], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._tokenizer, self._ends = tokenizer, list(ends)

    def body(self, request: Request) -> dict[str, Any]:
        """Make the body: the prompt's tokens and the sampling."""
        fields = super().body(request)
        del fields["messages"]
        tokens = {"prompt": chat.encode(self._tokenizer, request.prompt.text), "return_token_ids": True}
        return fields | tokens | {"stop_token_ids": self._ends}

    def read(self, found: Mapping[str, Any]) -> Said | Fault:
        """Read the tokens of a success."""
        choices = found.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        ids = choice.get("token_ids") if isinstance(choice, Mapping) else None
        if not isinstance(choice, Mapping) or not isinstance(ids, list):
            return Fault(kind="failed", reason=f"the server's answer is no {self.wanted} (it has no `token_ids`)")
        finish_reason = ending(choice.get("finish_reason"))
        if finish_reason == "error":
            return Fault(kind="failed", reason=f"the answer broke off (finish reason {choice['finish_reason']})")
        num_tokens, num_prompt_tokens = read_usage(found.get("usage"))
        return Said(
            text=chat.until_end(self._tokenizer, ids, self._ends)[0],
            finish_reason=finish_reason,
            num_tokens=num_tokens,
            num_prompt_tokens=num_prompt_tokens,
        )
