"""Chat templates and tokenizers: one place where a conversation becomes text and tokens.

Teachers and students are loaded offline-first, without remote code and from safetensors only.
"""

import ctypes
import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from persyn_hf.errors import EngineError, InputError, require


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Messages = Sequence[Mapping[str, str]]
Dtype = Literal["auto", "float32", "bfloat16"]

DIGESTED = ("*.safetensors", "*.json", "*.jinja", "*.model")  # weights, configs, tokenizer, template
TINY = 5e6  # parameters
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, KEPT_BYTES = -1, -3, 1 << 30  # of malloc.h
CONTENT = "c0ntent"  # stands for an answer when the end of a turn is looked up


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A conversation and its answer as tokens: `ids[start:]` are the answer and its end-of-turn token."""

    ids: list[int]
    start: int
    truncated: bool  # the answer was cut at the maximum length: no end-of-turn token


def load_tokenizer(
    model: str, revision: str | None = None, chat_template: str | None = None
) -> "PreTrainedTokenizerBase":
    """Load a tokenizer with a chat template (its own, or the Jinja file given) and an end-of-sequence token.

    Raises:
        InputError: it cannot be loaded, knows no tokens, or has no template.
    """
    transformers = require("transformers", extra="models", feature="running a model")
    _check_folder(model)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(model, revision=revision, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001  # a broken tokenizer file raises anything; all of it is the user's to mend
        raise InputError(f"the tokenizer of `{model}` cannot be loaded: {reason(error)}") from None
    if not set(tokenizer.get_vocab().values()) - {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}:
        raise InputError(f"the tokenizer of `{model}` knows no tokens; the model needs its tokenizer.json")
    if chat_template is not None:
        tokenizer.chat_template = read_template(chat_template)
    if not tokenizer.chat_template:
        raise InputError(
            f"the tokenizer of `{model}` has no chat template; use a chat model, or give a student its own under "
            "`students`: `chat_template: FILE.jinja`"
        )
    if tokenizer.eos_token_id is None:
        raise InputError(f"the tokenizer of `{model}` names no eos_token; set it in tokenizer_config.json")
    return tokenizer


def load_causal_lm(model: str, revision: str | None, dtype: Dtype, device: str) -> "PreTrainedModel":
    """Load a causal language model for inference, on `device` (auto: the first GPU, else the CPU)."""
    torch = require("torch", extra="models", feature="running a model")
    transformers = require("transformers", extra="models", feature="running a model")
    _check_folder(model)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        keep_freed_memory()
    try:
        with no_bars(when=Path(model).is_dir()):  # a download keeps its own
            loaded = transformers.AutoModelForCausalLM.from_pretrained(
                model,
                revision=revision,
                dtype=dtype if dtype == "auto" else getattr(torch, dtype),
                use_safetensors=True,
                trust_remote_code=False,
            )
        return loaded.to(device).eval()
    except Exception as error:  # noqa: BLE001  # as above; also out of memory
        raise EngineError(f"the model `{model}` cannot be loaded: {reason(error)}") from None


def keep_freed_memory() -> None:
    """Have glibc keep freed memory for the next tensor instead of returning it to the kernel.

    A KV cache grows by being copied at every step; getting its pages anew each time takes half of the time on a CPU
    (measured in bench/generation.py: 2.1 times as fast).
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # musl has none
        libc.mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


@contextmanager
def suitable_threads(model: "PreTrainedModel") -> Iterator[None]:
    """One CPU thread for a very small model: more only wait for one another. Restored afterwards."""
    import torch

    before = torch.get_num_threads()
    if model.device.type == "cpu" and model.num_parameters() < TINY:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def identify(model: str, revision: str | None = None) -> str:
    """Name what answers, whatever it is called: MODEL@COMMIT for the Hub, FOLDER@sha256 of its files otherwise."""
    _check_folder(model)
    if not Path(model).is_dir():
        return f"{model}@{_commit(model, revision)}"
    files = sorted(path for pattern in DIGESTED for path in Path(model).glob(pattern))
    if not any(path.suffix == ".safetensors" for path in files):
        raise InputError(f"the folder {model} holds no safetensors file; convert the weights to safetensors")
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(f"{path.name}\0".encode() + hashlib.file_digest(file, "sha256").digest())
    return f"folder@{digest.hexdigest()}"


def render(tokenizer: "PreTrainedTokenizerBase", messages: Messages) -> str:
    """The conversation as text, ending where the assistant is to speak. Raises what the template raises."""
    text: str = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
    return text


def encode(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Tokens of templated text; the template has put its own special tokens in."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def encode_turn(tokenizer: "PreTrainedTokenizerBase", messages: Messages, response: str, max_length: int) -> Turn:
    """Tokens of a conversation and its answer, cut at `max_length`.

    The answer is what follows the generation prompt in the whole conversation, up to and with the end-of-turn token:
    template text after it (a line break, say) does not count. Where the tokens of the prompt are no prefix of those
    of the whole (a merge across the border, a template that rewrites the answer), prompt, answer and end of turn are
    encoded apart.
    """
    prompt = render(tokenizer, messages)
    prefix = encode(tokenizer, prompt)
    end = end_of_turn(tokenizer, tokenizer.name_or_path)
    turns = [*messages, {"role": "assistant", "content": response}]
    whole: str = tokenizer.apply_chat_template(turns, tokenize=False)
    ids = encode(tokenizer, whole)
    verbatim = whole.startswith(prompt + response) and ids[: len(prefix)] == prefix
    tail = ids[len(prefix) :]
    if verbatim and end in tail:
        last = len(tail) - 1 - tail[::-1].index(end)
        ids = prefix + tail[: last + 1]
    else:
        ids = prefix + encode(tokenizer, response) + [end]
    return Turn(ids=ids[:max_length], start=min(len(prefix), max_length), truncated=len(ids) > max_length)


def end_of_turn(tokenizer: "PreTrainedTokenizerBase", model: str) -> int:
    """The special token that the template writes after an answer: what a student must learn to say.

    It need not be the tokenizer's eos (Qwen2.5 base: the template says <|im_end|>, eos is <|endoftext|>).

    Raises:
        InputError: there is none, so generation could never learn to stop.
    """
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": CONTENT}]
    text: str = tokenizer.apply_chat_template(turns, tokenize=False)
    tail = text.rpartition(CONTENT)[2]
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    for token in encode(tokenizer, tail):
        if token in special:
            return int(token)
    raise InputError(
        f"the chat template of `{model}` ends an answer with {tail!r}, which holds no special token of its tokenizer, "
        "so a student could never learn to stop; give another template"
    )


def split_reasoning(text: str, prompt: str = "") -> tuple[str, str | None]:
    """Cut `<think>...</think>` off an answer: (answer, reasoning or None).

    Templates that open the block themselves leave only `</think>` in the answer; a block that is never closed was cut
    by the token limit, so all of it is reasoning and the answer is empty.
    """
    opened = text.lstrip().startswith("<think>") or prompt.rstrip().endswith("<think>")
    if not opened and "</think>" not in text:
        return text, None
    body = text.lstrip().removeprefix("<think>")
    reasoning, closed, answer = body.partition("</think>")
    return (answer.strip() if closed else ""), reasoning.strip()


@contextmanager
def no_bars(when: bool = True) -> Iterator[None]:
    """Without the progress bars of transformers; the project has its own."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled() and when
    if shown:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _check_folder(model: str) -> None:
    """A path that leads nowhere must not become a question to the Hub."""
    if model.startswith(("/", "./", "../", "~")) and not Path(model).is_dir():
        raise InputError(f"the model folder {model} does not exist; give a folder or the id of a Hub model")


def _commit(model: str, revision: str | None) -> str:
    """The commit that a revision (null: main) stands for now."""
    transformers = require("transformers", extra="models", feature="running a model")
    try:
        config: Any = transformers.AutoConfig.from_pretrained(model, revision=revision, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001  # unknown model, no network, broken config: the user's to mend
        raise EngineError(f"the model `{model}` cannot be found: {reason(error)}") from None
    return getattr(config, "_commit_hash", None) or revision or "main"


def read_template(path: str | None) -> str | None:
    """Text of a Jinja file; None: the tokenizer's own template is meant."""
    if path is None:
        return None
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the chat template {path} cannot be read: {reason(error)}") from None


def reason(error: Exception) -> str:
    """First line of a foreign error, for use in a sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
