"""Load the student for its training, and save it.

Two things that TRL leaves open are settled here: the token that ends a turn is found in the chat template and made the
one that generation stops on, and padding is another token.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from persyn_hf.backends import chat
from persyn_hf.backends import loading as models
from persyn_hf.backends.sft import Training
from persyn_hf.errors import InputError, reason


ADAPTER = "adapter"
ADAPTER_CONFIG = "adapter_config.json"
SAMPLING = ("temperature", "top_p", "top_k", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")
BEAMS = ("early_stopping", "length_penalty")
PAD_CANDIDATES = ("<|finetune_right_pad_id|>", "<pad>", "<|pad|>", "[PAD]", "<unk>", "<|endoftext|>")


def load(training: Training, dtype: models.Dtype) -> tuple[Any, Any, list[int]]:
    """Load model and tokenizer, aligned, on the CPU, and list new tokens; the trainer moves the model."""
    import torch

    torch.manual_seed(training.seed)  # embeddings of new tokens
    tokenizer = models.load_tokenizer(training.model, training.revision, training.chat_template)
    model = models.load_causal_lm(training.model, training.revision, dtype, "cpu")
    return model, tokenizer, align(model, tokenizer, training.end)


def align(model: Any, tokenizer: Any, end: int) -> list[int]:
    """Make generation stop on `end` and pad with another token, in the tokenizer and in both configs of the model.

    Tokens that the template writes and the model does not know get embeddings; returned are these, which are to be
    trained. No token is kept from learning: a checkpoint whose pad token is its end of turn would mask its gradient.
    """
    before = model.generation_config.eos_token_id
    stops = before if isinstance(before, list) else [] if before is None else [before]
    former = tokenizer.eos_token
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
    vocabulary = tokenizer.get_vocab()
    if tokenizer.pad_token is None or tokenizer.pad_token_id == end:
        names = [name for name in (*PAD_CANDIDATES, former) if name in vocabulary and vocabulary[name] != end]
        tokenizer.add_special_tokens({"pad_token": names[0] if names else "<|pad|>"})
    known = model.get_input_embeddings().num_embeddings
    written = {end, *chat.encode(tokenizer, chat.apply(tokenizer, [*chat.QUESTION, chat.ANSWER]))}
    if max(*written, tokenizer.pad_token_id) >= known:
        model.resize_token_embeddings(len(tokenizer))
    model.get_input_embeddings().padding_idx = None
    rest = [token for token in stops if token != end]
    model.generation_config.eos_token_id = [end, *rest] if rest else end
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.config.get_text_config().eos_token_id = end
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    make_valid(model.generation_config, model.name_or_path)
    return sorted(token for token in written if token >= known)


def check_generation_config(model: str, revision: str | None) -> None:
    """Refuse a generation config that a trained student could not be saved with, before anything is trained."""
    from transformers import GenerationConfig

    try:
        config = GenerationConfig.from_pretrained(model, revision=revision)
    except OSError:  # it has none
        return
    make_valid(config, model)


def make_valid(config: Any, model: str) -> None:
    """Take from a generation config what has no effect and keeps it from being saved: `temperature` without sampling.

    Raises:
        InputError: it is invalid in another way.
    """
    try:
        config.validate(strict=True)
        return
    except ValueError:
        idle = () if config.do_sample else SAMPLING
        for name in idle if (config.num_beams or 1) > 1 else (*idle, *BEAMS):
            setattr(config, name, None)
    try:
        config.validate(strict=True)
    except ValueError as error:
        raise InputError(
            f"the generation_config.json of `{model}` is invalid, so a student trained from it could not be saved: "
            f"{reason(error)}; mend it"
        ) from None


def save(trainer: Any, tokenizer: Any, training: Training, folder: Path) -> None:
    """Save weights in the dtype that the student came in, configs and tokenizer; with LoRA the adapters alone.

    Every process calls this: sharded weights are gathered by all of them, and written by the first.
    """
    import torch

    model = trainer.accelerator.unwrap_model(trainer.model)
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not trainer.is_world_process_zero():
        return
    shutil.rmtree(folder, ignore_errors=True)
    if training.lora:
        model.save_pretrained(folder / ADAPTER, state_dict=weights, save_embedding_layers=False)
        _make_portable(folder / ADAPTER, training)
        return
    dtype = getattr(torch, training.stored_dtype)
    tied = model.all_tied_weights_keys
    kept = {name: tensor.to(dtype) for name, tensor in weights.items() if name not in tied}
    model.save_pretrained(folder, state_dict=kept)
    model.config.dtype = dtype
    model.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _make_portable(adapter: Path, training: Training) -> None:
    """Make equal adapters equal files: PEFT writes the path of a local model, and sets as they come."""
    path = adapter / ADAPTER_CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    config["target_modules"] = sorted(config["target_modules"])
    local = Path(training.model).is_dir()
    config["base_model_name_or_path"] = Path(training.model).name if local else training.model
    config["revision"] = training.revision
    path.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
    (adapter / "README.md").unlink(missing_ok=True)


def merge(training: Training, folder: Path) -> None:
    """Save the student with its adapters merged into `folder`, next to them, so that it loads as any model does."""
    import peft

    model, tokenizer, _ = load(training, "auto")
    with models.no_bars():
        merged = peft.PeftModel.from_pretrained(model, str(folder / ADAPTER)).merge_and_unload()
        merged.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
