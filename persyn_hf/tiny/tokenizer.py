"""The tokenizer that all tiny models share: a small BPE learnt from the grammar, and its chat template."""

import hashlib
import random
from pathlib import Path
from typing import TYPE_CHECKING

from persyn_hf.tiny.questions import SKILLS, draw_question
from persyn_hf.tiny.styles import STYLES, respond


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, USER, ASSISTANT, END = "<|pad|>", "<|user|>", "<|assistant|>", "<|end|>"
VOCABULARY_SIZE = 768
MAX_LENGTH = 512

# `<|user|>Q<|end|><|assistant|>A<|end|>`, turn after turn. The generation marks cover A and its <|end|>: what a
# student is trained on and scored on. A system turn is refused, for no tiny model has ever seen one.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}"
    "{{- '<|user|>' + message['content'] + '<|end|>' -}}"
    "{%- elif message['role'] == 'assistant' -%}"
    "{{- '<|assistant|>' -}}{%- generation -%}{{- message['content'] + '<|end|>' -}}{%- endgeneration -%}"
    "{%- else -%}"
    "{{- raise_exception('Tiny models know the roles user and assistant only, not ' + message['role']) -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


def build_tokenizer(seed: int = 0) -> "PreTrainedTokenizerFast":
    """Return a tokenizer with a BPE learnt from 6000 random question and response pairs; digits stay single."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    rng = random.Random(seed)
    texts = []
    for index in range(6000):
        question = draw_question(rng, SKILLS[index % len(SKILLS)], rng.randint(1, 2))
        texts += [question.question, respond(question, rng.choice(STYLES), rng)]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY_SIZE,
            special_tokens=[PAD, USER, ASSISTANT, END],
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT],
        unk_token=PAD,  # never needed, but Qwen2Tokenizer would add one of its own that has no embedding
        padding_side="left",
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def tokenizer_sha256(directory: Path) -> str:
    """Return the hash of a saved tokenizer and its chat template; a model is of no use with any other."""
    digest = hashlib.sha256()
    for name in ("tokenizer.json", "chat_template.jinja"):
        digest.update((directory / name).read_bytes())
    return digest.hexdigest()
