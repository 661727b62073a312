"""What the tests of all routers share."""

from pathlib import Path

import pytest
from corpora import SHARED, TOPICS
from tiny_models import build_tokenizer


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that wait for one another make tiny models and arrays slow on busy cores."""
    import torch
    from threadpoolctl import threadpool_limits

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def backbone(heavy: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2 of hidden size 32, randomly initialised, without pad token; a byte-level BPE learnt from the corpus."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    words = ["user", "assistant", *TOPICS[0], *TOPICS[1], *SHARED]
    fast = build_tokenizer(
        CHATML,
        special=special,
        texts=[f"{word} {word}" for word in words] * 5,
        vocab_size=400,
        eos_token=special[0],
        additional_special_tokens=special[1:],
    )
    folder = tmp_path_factory.mktemp("backbone")
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder
