"""`train_student`: tokens of real checkpoints that are not learnt, configs that keep a student from being saved."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_train_student import context, rows
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from persyn_hf.backends.sft.student_model import make_valid
from persyn_hf.errors import InputError
from persyn_hf.stages import train_student
from persyn_hf.stages.train_student import Settings


QUICK = Settings(epochs=2, batch_size=3, per_device_batch_size=3, learning_rate=1e-2, warmup_steps=0)
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def train(folder: Path, student: Path, settings: Settings = QUICK) -> dict[str, torch.Tensor]:
    result = train_student.run(settings, context(folder, student), sft=rows())
    assert isinstance(result.data, Path)
    return load_file(result.data / "model.safetensors")


@pytest.mark.parametrize("pad", ["<|pad|>", "<|end|>"], ids=["of its own", "the end of turn"])
def test_the_end_of_turn_is_learnt_whatever_pads(base_student: Path, tmp_path: Path, pad: str) -> None:
    folder = Path(shutil.copytree(base_student, tmp_path / "copy"))
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    tokenizer.pad_token = pad
    tokenizer.save_pretrained(folder)
    model.config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    before = model.get_input_embeddings().weight.detach().clone()
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    after = train(tmp_path / "out", folder)["model.embed_tokens.weight"]
    assert (after - before)[end].abs().max() > 1e-3


@pytest.fixture
def chatml(base_student: Path, tmp_path: Path) -> Path:
    """A student whose tokenizer has ChatML's tokens, which its model has no embeddings for."""
    folder = Path(shutil.copytree(base_student, tmp_path / "chatml"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("tied", [False, True], ids=["head of its own", "tied head"])
def test_lora_trains_the_rows_of_new_tokens_and_no_other(chatml: Path, tmp_path: Path, tied: bool) -> None:
    model = AutoModelForCausalLM.from_pretrained(chatml)
    known = model.get_input_embeddings().num_embeddings
    model.config.tie_word_embeddings = tied
    model.tie_weights()
    model.save_pretrained(chatml)
    lora = QUICK.model_copy(update={"method": "lora", "lora_rank": 2, "lora_alpha": 4})
    still = lora.model_copy(update={"learning_rate": 1e-30})
    trained, made = train(tmp_path / "trained", chatml, lora), train(tmp_path / "still", chatml, still)
    tables = ["model.embed_tokens.weight"] if tied else ["model.embed_tokens.weight", "lm_head.weight"]
    for name in tables:
        moved = (trained[name] - made[name]).abs().amax(1)
        assert (moved[known : known + 2] > 1e-3).all()  # <|im_start|> and <|im_end|>
        assert (moved[:known] == 0).all()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "trained" / "student")
    assert tokenizer.eos_token == "<|im_end|>"
    assert len(trained["model.embed_tokens.weight"]) == len(tokenizer)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_settings_of_sampling_without_sampling_do_not_cost_the_student(
    base_student: Path, tmp_path: Path, method: Any
) -> None:
    """As in Llama 2's checkpoint; transformers refuses to save it."""
    folder = Path(shutil.copytree(base_student, tmp_path / "copy"))
    given = {"do_sample": False, "temperature": 0.6, "top_p": 0.9, "length_penalty": 2.0, "max_length": 100}
    (folder / "generation_config.json").write_text(json.dumps(given))
    train(tmp_path / "out", folder, QUICK.model_copy(update={"method": method}))
    saved = GenerationConfig.from_pretrained(tmp_path / "out" / "student")
    assert (saved.temperature, saved.top_p, saved.length_penalty) == (None, None, None)
    assert saved.max_length == 100


def test_settings_of_sampling_with_sampling_stay() -> None:
    config = GenerationConfig(do_sample=True, temperature=0.6, top_p=0.9)
    make_valid(config, "m")
    assert (config.temperature, config.top_p) == (0.6, 0.9)


def test_a_generation_config_that_is_wrong_otherwise_is_one_sentence() -> None:
    config = GenerationConfig()
    config.num_return_sequences = 3
    with pytest.raises(
        InputError, match=r"the generation_config.json of `m` is invalid, .*num_return_sequences.*; mend it"
    ):
        make_valid(config, "m")
