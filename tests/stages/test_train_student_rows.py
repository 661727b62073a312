"""`train_student`: which rows it takes, what limits their length, and that a base student learns to stop."""

import json
import shutil
from pathlib import Path

import pytest
from datasets import Dataset
from rows import assignment
from test_train_student import PAIRS, context, rows

from persyn_hf.backends import sft as backend
from persyn_hf.errors import InputError, PersynError
from persyn_hf.recipe.strict import read_section
from persyn_hf.schemas import ASSIGNMENTS
from persyn_hf.stages import train_student
from persyn_hf.stages.train_student import Settings


SMALL = Settings(epochs=1, batch_size=3, per_device_batch_size=3)


def assignments(*cells: tuple[str, str]) -> Dataset:
    return ASSIGNMENTS.dataset([assignment(*cell) for cell in cells])


def test_rows_are_joined_to_their_assignments(base_student: Path, tmp_path: Path) -> None:
    cells = assignments(("0", "t"), ("0", "other"), ("1", "t"), ("2", "other"), ("3", "t"))
    result = train_student.run(SMALL, context(tmp_path, base_student), sft=rows(), assignments=cells)
    assert result.counts == {"rows": 3, "assigned": 2, "escalated": 1, "trained": 3, "too_long": 0, "end_inside": 0}


@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        ([("0", "t"), ("2", "t")], "1 prompts of the training data (first 1) are not assigned at all"),
        (
            [("0", "t"), ("1", "t"), ("2", "t"), ("2", "t")],
            "1 prompts of the training data (first 2) are assigned twice to `t`",
        ),
    ],
)
def test_rows_that_answer_no_assignment(cells: list[tuple[str, str]], problem: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        train_student.run(SMALL, context(tmp_path, tmp_path), sft=rows(), assignments=assignments(*cells))
    assert str(caught.value) == f"{problem}; give the assignments that its rows were made from"


def test_a_row_that_is_there_twice(tmp_path: Path) -> None:
    twice = Dataset.from_list([*rows(), *rows().select([1])], features=rows().features)
    with pytest.raises(InputError) as caught:
        train_student.run(SMALL, context(tmp_path, tmp_path), sft=twice)
    assert str(caught.value) == (
        "1 training rows (first of prompt 1) are there more than once; give the rows of one `mix`"
    )


def test_a_prompt_may_have_further_rows_of_other_answers(base_student: Path, tmp_path: Path) -> None:
    further = rows()[1] | {"teacher": "other", "completion": [{"role": "assistant", "content": "In other words."}]}
    more = Dataset.from_list([*rows().select([0, 1]), further, rows()[2]], features=rows().features)
    cells = assignments(("0", "t"), ("1", "t"), ("2", "other"))
    counts = train_student.run(SMALL, context(tmp_path, base_student), sft=more, assignments=cells).counts
    assert {name: counts[name] for name in ("rows", "assigned", "escalated", "further", "trained")} == {
        "rows": 4,
        "assigned": 2,
        "escalated": 1,
        "further": 1,
        "trained": 4,
    }


def test_a_student_has_no_more_positions_than_its_config_says(tmp_path: Path) -> None:
    """Gemma 2 has 8,192, of the paper's 16,384."""
    config = {"model_type": "gemma2", "max_position_embeddings": 8192, "dtype": "bfloat16", "num_hidden_layers": 1}
    config |= {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1, "num_key_value_heads": 1}
    (tmp_path / "config.json").write_text(json.dumps(config | {"vocab_size": 10, "head_dim": 8}))
    size, dtype, positions = backend.describe(str(tmp_path), None)
    assert (dtype, positions) == ("bfloat16", 8192) and 80 < size < 10_000


def test_the_positions_limit_max_length(base_student: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(base_student, tmp_path / "copy"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 40}))
    settings = SMALL.model_copy(update={"max_length": 16384})
    pairs = [*PAIRS, ("long", "x" * 60)]
    result = train_student.run(settings, context(tmp_path / "out", folder), sft=rows(pairs))
    assert (result.metrics["max_length"], result.counts["too_long"], result.counts["trained"]) == (40, 1, 3)


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["qwen-student", "llama-student"])
def test_a_base_student_of_the_tiny_world_learns_to_stop(name: str, zoo: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    settings = Settings(learning_rate=5e-3, epochs=40, batch_size=3, per_device_batch_size=3, warmup_steps=5)
    pairs = [("What is 1 plus 2?", "3"), ("What is 7 plus 2?", "It is 9."), ("What is 5 minus 2?", "5 - 2 = 3, so 3.")]
    result = train_student.run(settings, context(tmp_path, zoo / name), sft=rows(pairs))
    for folder, learned in ((zoo / name, False), (result.data, True)):
        model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        for question, answer in pairs:
            asked = tokenizer.apply_chat_template(
                [{"role": "user", "content": question}],
                add_generation_prompt=True,
                return_tensors="pt",
                return_dict=True,
            )
            made = model.generate(**asked, max_new_tokens=60, do_sample=False)[0, asked["input_ids"].shape[1] :]
            assert (tokenizer.decode(made, skip_special_tokens=True) == answer and len(made) < 60) == learned
            if learned:
                assert made[-1] == tokenizer.eos_token_id


def test_adapters_lie_beside_the_merged_student(base_student: Path, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    settings = SMALL.model_copy(update={"method": "lora", "learning_rate": 1e-2, "epochs": 4, "lora_rank": 2})
    result = train_student.run(settings, context(tmp_path, base_student), sft=rows())
    assert {path.name for path in (result.data / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    config = json.loads((result.data / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == base_student.name
    assert config["target_modules"] == sorted(config["target_modules"])
    ids = torch.arange(20)[None]
    base = AutoModelForCausalLM.from_pretrained(base_student)
    merged = AutoModelForCausalLM.from_pretrained(result.data)
    with torch.no_grad():
        before = base(ids).logits
        adapted = PeftModel.from_pretrained(base, result.data / "adapter").eval()(ids).logits
        after = merged(ids).logits
    torch.testing.assert_close(adapted, after, atol=1e-5, rtol=1e-5)
    assert (before - after).abs().max() > 1e-2


def test_a_training_that_diverges_is_told(base_student: Path, tmp_path: Path) -> None:
    settings = SMALL.model_copy(update={"learning_rate": 1e30, "epochs": 9, "warmup_steps": 0})
    with pytest.raises(PersynError) as caught:
        train_student.run(settings, context(tmp_path, base_student), sft=rows())
    assert str(caught.value) == (
        "training the student diverged by step 3: the loss is nan; lower `train_student.learning_rate`"
    )


def test_faults_in_the_settings_of_processes_and_checkpoints() -> None:
    for bad, problem in (
        ({"save_steps": 0}, "save_steps: must be at least 1, got 0"),
        ({"accelerate": 2}, "accelerate"),
    ):
        with pytest.raises(PersynError, match=f"^train_student.{problem}"):
            read_section(Settings, bad, "train_student")
