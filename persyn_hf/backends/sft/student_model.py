"""Load the student for its training, and save it.

Two things that TRL leaves open are settled here: the token that ends a turn is found in the chat template and made the
one that generation stops on, and padding is another token.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from persyn_hf.backends import loading as models
from persyn_hf.backends.sft import Training


ADAPTER = "adapter"
ADAPTER_CONFIG = "adapter_config.json"
PAD_CANDIDATES = ("<|finetune_right_pad_id|>", "<pad>", "<|pad|>", "[PAD]", "<unk>", "<|endoftext|>")


def load(training: Training, dtype: models.Dtype) -> tuple[Any, Any]:
    """Load model and tokenizer, aligned, on the CPU; the trainer moves the model."""
    import torch

    torch.manual_seed(training.seed)  # embeddings of new tokens
    tokenizer = models.load_tokenizer(training.model, training.revision, training.chat_template)
    model = models.load_causal_lm(training.model, training.revision, dtype, "cpu")
    align(model, tokenizer, training.end)
    return model, tokenizer


def align(model: Any, tokenizer: Any, end: int) -> None:
    """Make generation stop on `end` and pad with another token, in the tokenizer and in both configs of the model."""
    before = model.generation_config.eos_token_id
    stops = before if isinstance(before, list) else [] if before is None else [before]
    former = tokenizer.eos_token
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
    vocabulary = tokenizer.get_vocab()
    if tokenizer.pad_token is None or tokenizer.pad_token_id == end:
        names = [name for name in (*PAD_CANDIDATES, former) if name in vocabulary and vocabulary[name] != end]
        tokenizer.add_special_tokens({"pad_token": names[0] if names else "<|pad|>"})
    if max(end, tokenizer.pad_token_id) >= model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer))
    rest = [token for token in stops if token != end]
    model.generation_config.eos_token_id = [end, *rest] if rest else end
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.config.get_text_config().eos_token_id = end
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id


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

    model, tokenizer = load(training, "auto")
    with models.no_bars():
        merged = peft.PeftModel.from_pretrained(model, str(folder / ADAPTER)).merge_and_unload()
        merged.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
