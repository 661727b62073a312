"""Load models and tokenizers: offline first, without remote code, and from safetensors only."""

import ctypes
import gc
import hashlib
import re
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from persyn_hf.backends.template_trial import check_bounded
from persyn_hf.errors import EngineError, InputError, reason, require


if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

Dtype = Literal["auto", "float32", "bfloat16"]

DIGESTED = ("*.safetensors", "*.json", "*.jinja", "*.model")  # weights, configs, tokenizer, template
TEMPLATE_ADVICE = "use a chat model, or give a student its own under `students`: `chat_template: FILE.jinja`"
MARK = "\ufeff"
LETTERS = "a b c d e f g h i j k l m n o p q r s t u v w x y z 0 1 2 3 4 5 6 7 8 9"
OWN_CODE = re.compile("trust_remote_code|custom code")
TINY = 5e6  # parameters
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, KEPT_BYTES = -1, -3, 1 << 30  # of malloc.h


def read_tokenizer(model: str, revision: str | None, name: str, kind: str) -> "PreTrainedTokenizerBase":
    """Load a tokenizer and refuse one that reads no text; errors call its model by `name` and `kind`."""
    transformers = require("transformers", extra="models", feature="running a model")
    _check_folder(model)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(model, revision=revision, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001  # a broken tokenizer file raises anything; all of it is the user's to mend
        raise InputError(_sentence("tokenizer", name, model, error)) from None
    ids = tokenizer(LETTERS, add_special_tokens=False)["input_ids"]
    if not set(ids) - {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}:
        raise InputError(f"the tokenizer of {name} knows no tokens; {kind} needs its tokenizer.json")
    return tokenizer


def load_tokenizer(
    model: str, revision: str | None = None, chat_template: str | None = None, *, advice: str = TEMPLATE_ADVICE
) -> "PreTrainedTokenizerBase":
    """Load a tokenizer with a chat template (its own, or the Jinja file given) and an end-of-sequence token.

    Raises:
        InputError: it cannot be loaded, knows no tokens, or has no template, or one without bounds.
    """
    tokenizer = read_tokenizer(model, revision, f"`{model}`", "the model")
    if chat_template is not None:
        tokenizer.chat_template = read_template(chat_template)
    tokenizer.chat_template = _without_mark(tokenizer.chat_template)
    if not check_template(tokenizer, model, advice):
        raise InputError(f"the tokenizer of `{model}` has no chat template; {advice}")
    if tokenizer.eos_token_id is None:
        raise InputError(f"the tokenizer of `{model}` names no eos_token; set it in tokenizer_config.json")
    return tokenizer


def check_config(model: str, revision: str | None, where: str) -> None:
    """Refuse a model, named by the setting `where`, whose config cannot be loaded.

    Raises:
        InputError: names the setting and the model.
    """
    try:
        read_config(model, revision)
    except InputError as error:
        raise InputError(f"`{where}`: {error}") from None


def check_template(tokenizer: "PreTrainedTokenizerBase", model: str, advice: str) -> bool:
    """Tell whether a tokenizer has a chat template, and refuse one without bounds, before it is used.

    Args:
        model: the name of its model, for the message.
        advice: what to do about it, for the message.
    """
    template = tokenizer.chat_template
    template = template.get("default") if isinstance(template, dict) else template  # some have several, by name
    if template:
        check_bounded(template, tokenizer.special_tokens_map, model, advice)
    return bool(tokenizer.chat_template)


def read_config(model: str, revision: str | None) -> "PretrainedConfig":
    """Load a model's config.

    Raises:
        InputError: there is none, it cannot be read, or it needs code of the model's own.
    """
    transformers = require("transformers", extra="models", feature="running a model")
    _check_folder(model)
    try:
        found: PretrainedConfig = transformers.AutoConfig.from_pretrained(
            model, revision=revision, trust_remote_code=False
        )
    except Exception as error:  # noqa: BLE001  # as above
        raise InputError(_sentence("config", f"`{model}`", model, error)) from None
    return found


def num_embeddings(model: str, revision: str | None) -> int:
    """Rows of a model's table of embeddings, as its config says."""
    return int(read_config(model, revision).get_text_config().vocab_size)


def load_causal_lm(model: str, revision: str | None, dtype: Dtype, device: str) -> "PreTrainedModel":
    """Load a causal language model for inference, on `device` (auto: the first GPU, else the CPU)."""
    return load_model("AutoModelForCausalLM", model, revision, dtype, device)


def load_model(
    auto: str, model: str, revision: str | None, dtype: Dtype, device: str, *, advice: str = "take another checkpoint"
) -> "PreTrainedModel":
    """Load a model by the class `auto` of transformers, for inference.

    Weights that the checkpoint does not hold are refused: transformers would make them up.
    """
    torch = require("torch", extra="models", feature="running a model")
    transformers = require("transformers", extra="models", feature="running a model")
    _check_folder(model)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        with no_bars(when=Path(model).is_dir()):  # a download keeps its own
            loaded, report = getattr(transformers, auto).from_pretrained(
                model,
                revision=revision,
                dtype=dtype if dtype == "auto" else getattr(torch, dtype),
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        loaded = loaded.to(device).eval()
        if getattr(loaded.config.get_text_config(), "attn_logit_softcapping", None) is not None:
            loaded.set_attn_implementation("eager")  # Gemma 2: SDPA leaves the soft cap of its attention out
    except Exception as error:  # noqa: BLE001  # as above; also out of memory
        raise EngineError(f"the model `{model}` cannot be loaded: {reason(error)}") from None
    if report["missing_keys"]:
        lacking = ", ".join(sorted(report["missing_keys"])[:5])
        raise EngineError(f"the checkpoint of `{model}` lacks {lacking} of {type(loaded).__name__}; {advice}")
    return loaded


def keep_freed_memory() -> None:
    """Have glibc keep freed memory for the next tensor instead of returning it to the kernel: for generation on a CPU.

    A KV cache grows by being copied at every step; getting its pages anew each time takes half of the time there
    (measured in bench/generation.py: 2.1 times as fast). Scoring and training gain nothing by it, and their tensors of
    ever other sizes would scatter over ever more memory: scoring 10,000 answers by SmolLM2-135M took 5 GB.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # musl has none
        libc.mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def release(model: "weakref.ref[PreTrainedModel] | None") -> None:
    """Give the memory of a model that nobody needs any more back to its device."""
    import torch

    if model is not None and model() is not None:  # in a cycle; else half a second is saved
        gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def suitable_batch(model: "PreTrainedModel") -> int:
    """Return the tokens of one forward pass, padding included, that suit the model's device.

    The 2,048 of a CPU are twice as fast there as 16,384 (bench/learnability.py).
    """
    return 2048 if model.device.type == "cpu" else 16384


@contextmanager
def suitable_threads(model: "PreTrainedModel") -> Iterator[None]:
    """Use one CPU thread for a very small model, where several would wait for one another, and restore it after."""
    import torch

    before = torch.get_num_threads()
    if model.device.type == "cpu" and model.num_parameters() < TINY:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check_weights(model: str) -> None:
    """Refuse a local folder without safetensors; what a model of the Hub has is found when it is loaded."""
    if Path(model).is_dir() and not any(Path(model).glob("*.safetensors")):
        raise InputError(f"the folder {model} holds no safetensors file; convert the weights to safetensors")


def identify(model: str, revision: str | None = None) -> str:
    """Name a model by its content: MODEL@COMMIT for a Hub model, folder@SHA256 of the files for a local one."""
    _check_folder(model)
    if not Path(model).is_dir():
        return f"{model}@{_commit(model, revision)}"
    check_weights(model)
    files = sorted(path for pattern in DIGESTED for path in Path(model).glob(pattern))
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(f"{path.name}\0".encode() + hashlib.file_digest(file, "sha256").digest())
    return f"folder@{digest.hexdigest()}"


@contextmanager
def no_bars(when: bool = True) -> Iterator[None]:
    """Hide the progress bars of transformers, since the project has its own."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled() and when
    if shown:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def no_logs() -> Iterator[None]:
    """Hide progress bars and warnings of transformers, such as that a head is new where it is meant to be."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with no_bars():
            yield
    finally:
        logging.set_verbosity(level)


def _sentence(what: str, name: str, model: str, error: Exception) -> str:
    """Say why a model's tokenizer or config cannot be loaded, and what to do."""
    if OWN_CODE.search(str(error)):
        return f"the {what} of {name} is code of its own, which is not run; take a model that transformers knows"
    if not Path(model).is_dir():
        advice = "check its id, the network and, where its authors grant access, `hf auth login`"
    elif what == "tokenizer" and not (Path(model) / "tokenizer.json").exists():
        advice = "the folder has no tokenizer.json (a GGUF file alone is not enough): save the tokenizer there"
    else:
        advice = "mend or replace the file"
    return f"the {what} of {name} cannot be loaded: {reason(error).rstrip('.: ')}; {advice}"


def _without_mark(template: "str | dict[str, str]") -> "str | dict[str, str]":
    """Remove the byte order mark that editors of Windows write: it would stand at the start of every prompt."""
    if isinstance(template, dict):
        return {name: text.removeprefix(MARK) for name, text in template.items()}
    return template.removeprefix(MARK) if template else template


def _check_folder(model: str) -> None:
    """Refuse a path to no folder, which would otherwise become a question to the Hub."""
    if model.startswith(("/", "./", "../", "~")) and not Path(model).is_dir():
        raise InputError(f"the model folder {model} does not exist; give a folder or the id of a Hub model")


def find_commit(model: str, revision: str | None) -> str | None:
    """Look up the commit of a revision (None: main) on the Hub or, offline, in its cache; None where it is unknown."""
    transformers = require("transformers", extra="models", feature="running a model")
    commit: str | None = getattr(transformers.utils.hub.resolve_revision(model, revision), "resolved", None)
    return commit


def _commit(model: str, revision: str | None) -> str:
    transformers = require("transformers", extra="models", feature="running a model")
    commit = find_commit(model, revision)
    if commit is not None:
        return commit
    try:
        transformers.AutoConfig.from_pretrained(model, revision=revision, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001  # unknown model, no network, broken config: the user's to mend
        raise EngineError(f"the model `{model}` cannot be found: {reason(error)}") from None
    return revision or "main"


def read_template(path: str | None) -> str | None:
    """Read the text of a Jinja file; None stands for the tokenizer's own template, and is returned as it is."""
    if path is None:
        return None
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the chat template {path} cannot be read: {reason(error)}") from None
