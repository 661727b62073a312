"""A tiny untrained student with a byte-level tokenizer, made once per session."""

from pathlib import Path

import pytest
from tiny_models import build_tokenizer


CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'assistant' -%}"
    "<|assistant|>{% generation %}{{ message['content'] }}<|end|>{% endgeneration %}{{ '\\n' }}"
    "{%- else -%}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{{ '\\n' }}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"
)
SPECIAL = ["<|pad|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"]


def make_student(folder: Path, **special: str) -> Path:
    """A random Llama of 2 layers; `eos_token` is <|endoftext|>, as in base models, unless `special` says otherwise."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    named = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"} | special
    texts = ["What is the sum of 1 and 2? The answer is 3."]
    tokenizer = build_tokenizer(CHAT_TEMPLATE, special=SPECIAL, texts=texts, vocab_size=300, **named)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def base_student(heavy: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_student(tmp_path_factory.mktemp("base") / "student")
