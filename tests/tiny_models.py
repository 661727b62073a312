"""Very small models with random weights, of three architectures, and a byte-level tokenizer with a chat template."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any


PAD, START, END = "<|pad|>", "<|start|>", "<|end|>"
TEMPLATE = (  # ChatML's shape: template text (a line break) follows the end-of-turn token
    "{%- for message in messages -%}"
    "{%- if message['content'] == 'refuse' -%}{{- raise_exception('no') -}}{%- endif -%}"
    "{{- '<|start|>' + message['role'] + '\n' + message['content'] + '<|end|>\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|start|>assistant\n' -}}{%- endif -%}"
)


def build_tokenizer(
    template: str | None = TEMPLATE,
    *,
    special: Sequence[str] = (PAD, START, END),
    texts: Sequence[str] = ("user assistant What is the sum of 12 and 30? The answer is 42.\n\n",) * 8,
    vocab_size: int = 320,
    **named: Any,
) -> Any:
    """A byte-level BPE learnt from `texts`; named: `pad_token`, `eos_token` and others of the tokens in `special`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, **(named or {"pad_token": PAD, "eos_token": END}))
    tokenizer.chat_template = template
    return tokenizer


def build_model(architecture: str, seed: int = 0) -> Any:
    import torch
    import transformers

    tokenizer = build_tokenizer()
    common = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 256,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
    }
    configs = {
        "qwen2": lambda: transformers.Qwen2Config(**common),
        "llama": lambda: transformers.LlamaConfig(**common),
        "gemma2": lambda: transformers.Gemma2Config(**common, head_dim=16, final_logit_softcapping=2.0),
    }
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(configs[architecture]())
    with torch.no_grad():  # louder than at initialisation: logits that differ, ranks that mean something
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(6)
    return model.eval()


def save_model(folder: Path, architecture: str = "qwen2", seed: int = 0) -> Path:
    build_model(architecture, seed).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder
