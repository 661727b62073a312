"""The zoo with attention heads of 32, the smallest that vLLM's CPU build knows: the same functions, padded with zeros.

Rotary embeddings turn pairs (i, i + d/2) by base^(-2i/d), so the padded head keeps the pairs and takes the base that
gives the old frequencies; queries grow by what the scale 1/sqrt(d) loses. vLLM's Qwen2 reads no head size of its own,
so there the hidden states are padded too, and the RMS norms are corrected for the larger mean.
"""

import math
from pathlib import Path
from typing import Any


WIDTH = 32


def widen(source: Path, folder: Path) -> Path:
    """Write the widened model of `source` to `folder`."""
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(source)
    config = model.config
    before, hidden = config.head_dim, config.hidden_size
    values = config.to_dict() | {"head_dim": WIDTH}
    base = config.rope_parameters["rope_theta"] ** (WIDTH / before)
    values["rope_parameters"] = config.rope_parameters | {"rope_theta": base}
    qwen = config.model_type == "qwen2"
    if qwen:
        values["hidden_size"] = WIDTH * config.num_attention_heads
        values["rms_norm_eps"] = config.rms_norm_eps * hidden / values["hidden_size"]
    grow = 1.0 if config.model_type == "gemma2" else math.sqrt(WIDTH / before)  # gemma2 has a scale of its own
    half = before // 2
    kept = torch.tensor([*range(half), *range(WIDTH // 2, WIDTH // 2 + half)])

    def heads(weight: Any, scale: float = 1.0) -> Any:
        """Pad the first axis head by head."""
        number = weight.shape[0] // before
        wide = torch.zeros(number, WIDTH, *weight.shape[1:])
        wide[:, kept] = weight.view(number, before, *weight.shape[1:]) * scale
        return wide.flatten(0, 1)

    wide = transformers.AutoModelForCausalLM.from_config(type(config)(**values))
    state = wide.state_dict()
    for name, weight in model.state_dict().items():
        if ".q_proj." in name:
            weight = heads(weight, grow)
        elif ".k_proj." in name or ".v_proj." in name:
            weight = heads(weight)
        elif ".o_proj." in name:
            weight = heads(weight.T).T
        elif qwen and "norm" in name:
            weight = weight * math.sqrt(hidden / values["hidden_size"])
        padded = torch.zeros_like(state[name])
        padded[tuple(slice(size) for size in weight.shape)] = weight
        state[name] = padded
    wide.load_state_dict(state)
    wide.generation_config = model.generation_config
    wide.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder
