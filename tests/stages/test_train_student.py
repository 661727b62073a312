"""`train_student`: what is trained on, what the student learns to stop on, what lies in the folder afterwards."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from rows import example

from persyn_hf.backends import chat
from persyn_hf.backends import loading as models
from persyn_hf.errors import EngineError, InputError, PersynError, RecipeError
from persyn_hf.recipe.roles import Student
from persyn_hf.recipe.strict import read_section
from persyn_hf.schemas import SFT
from persyn_hf.stage import Context
from persyn_hf.stages import train_student
from persyn_hf.stages.train_student import Settings


PAIRS = [("What is 1 and 2?", "The answer is 3."), ("Say hi", "hi there"), ("And é €5?", "1/2 of €5")]


class Watch:
    """Progress that remembers."""

    def __init__(self) -> None:
        self.total = self.done = 0

    def start(self, what: str, total: int, done: int = 0, work: float | None = None) -> None:
        self.total = total

    def advance(self, count: int = 1, work: float | None = None) -> None:
        self.done += count


def rows(pairs: Sequence[tuple[str, str]] = PAIRS) -> Dataset:
    return SFT.dataset([example(*pair, prompt_id=str(index)) for index, pair in enumerate(pairs)])


def context(folder: Path, model: Path | None, template: Path | None = None, **more: Any) -> Context:
    folder.mkdir(parents=True, exist_ok=True)
    student = Student(name="s", model=model and str(model), chat_template=template and str(template))
    return Context(seed=more.pop("seed", 0), work_dir=folder, student=student, **more)


QUICK = Settings(learning_rate=1e-2, epochs=40, batch_size=3, per_device_batch_size=3, warmup_steps=5, max_length=128)


@pytest.fixture(scope="module")
def trained(base_student: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Watch]:
    watch = Watch()
    where = context(tmp_path_factory.mktemp("train"), base_student, progress=watch)
    return train_student.run(QUICK, where, sft=rows()), watch


def test_loss_on_response_and_end_of_turn_only(base_student: Path) -> None:
    tokenizer = models.load_tokenizer(str(base_student))
    end = chat.end_of_turn(tokenizer, "s")
    assert tokenizer.convert_ids_to_tokens(end) == "<|end|>"
    examples, counts = train_student.tokenise(rows(), tokenizer, end, 256)
    assert counts == {"rows": 3}
    for tokens, (question, answer) in zip(examples, PAIRS, strict=True):
        prompt = tokenizer(f"<|user|>{question}<|end|>\n<|assistant|>", add_special_tokens=False)["input_ids"]
        response = tokenizer(answer, add_special_tokens=False)["input_ids"]
        assert tokens["input_ids"] == [*prompt, *response, end]
        assert tokens["labels"] == [-100] * len(prompt) + [*response, end]


def test_labels_are_those_of_trl(base_student: Path, tmp_path: Path) -> None:
    """TRL's own preparation gives the same labels; it also trains the line break that the template adds at the end."""
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    tokenizer = models.load_tokenizer(str(base_student))
    end = chat.end_of_turn(tokenizer, "s")
    tokenizer.pad_token = "<|pad|>"
    arguments = SFTConfig(
        output_dir=str(tmp_path), completion_only_loss=True, bf16=False, use_cpu=True, report_to="none"
    )
    model = AutoModelForCausalLM.from_pretrained(base_student)
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=rows().select_columns(["prompt", "completion"]),
        processing_class=tokenizer,
    )
    examples, _ = train_student.tokenise(rows(), tokenizer, end, 256)
    line_break = tokenizer("\n", add_special_tokens=False)["input_ids"]
    for ours, theirs in zip(examples, trainer.train_dataset, strict=True):
        assert theirs["labels"] == ours["labels"] + line_break


def test_student_learns_to_answer_and_to_stop(trained: tuple[Any, Watch]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    result, _ = trained
    model = AutoModelForCausalLM.from_pretrained(result.data)
    tokenizer = AutoTokenizer.from_pretrained(result.data)
    assert tokenizer.eos_token == "<|end|>"
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert model.generation_config.eos_token_id[0] == tokenizer.eos_token_id
    assert model.config.eos_token_id == tokenizer.eos_token_id
    for question, answer in PAIRS:
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        out = model.generate(**prompt, max_new_tokens=60, do_sample=False)[0, prompt["input_ids"].shape[1] :]
        assert tokenizer.decode(out) == answer + "<|end|>"


def test_folder_holds_weights_and_tokenizer_only(trained: tuple[Any, Watch]) -> None:
    result, _ = trained
    names = {path.name for path in result.data.rglob("*")}
    assert names == {
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert {path.name for path in result.data.parent.iterdir()} == {"student", "student-checkpoints-1"}


def test_result_says_what_was_done(trained: tuple[Any, Watch]) -> None:
    result, watch = trained
    assert result.counts == {
        "rows": 3, "trained": 3, "too_long": 0, "end_inside": 0,
    }  # fmt: skip
    metrics = result.metrics
    assert (metrics["steps"], watch.total, watch.done) == (40, 40, 40)
    assert metrics["loss"][0][1] > 3 > 0.2 > metrics["final_loss"]
    assert metrics["method"] == "full"
    assert metrics["trained_tokens"] < metrics["tokens"]
    assert result.cost["flops"] == 6 * metrics["parameters"] * metrics["tokens"] * 40


def test_same_seed_same_weights(base_student: Path, tmp_path: Path) -> None:
    """A fresh start gives the same weights bit for bit, over what a killed run left; another seed gives others."""
    settings = Settings(learning_rate=1e-2, epochs=2, batch_size=2, per_device_batch_size=1, warmup_steps=0)
    (tmp_path / "b" / "student").mkdir(parents=True)
    (tmp_path / "b" / "student" / "left.bin").write_text("from a killed run")
    weights, losses = [], []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        result = train_student.run(settings, context(tmp_path / name, base_student, seed=seed), sft=rows(PAIRS * 3))
        assert not (result.data / "left.bin").exists()
        weights.append((result.data / "model.safetensors").read_bytes())
        losses.append(result.metrics["loss"])
    assert weights[0] == weights[1] != weights[2]
    assert losses[0] == losses[1]


def test_lora_is_merged(base_student: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    settings = Settings(method="lora", lora_rank=2, lora_alpha=4, epochs=2, batch_size=3, per_device_batch_size=3)
    result = train_student.run(settings, context(tmp_path, base_student), sft=rows())
    before, after = load_file(base_student / "model.safetensors"), load_file(result.data / "model.safetensors")
    assert result.metrics["method"] == "lora"
    assert result.metrics["learning_rate"] == 1e-4
    assert before.keys() == after.keys()
    changed = {name.split(".")[-2] for name in before if not before[name].equal(after[name])}
    assert changed == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_weights_are_saved_in_the_dtype_they_came_in(base_student: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    folder = Path(shutil.copytree(base_student, tmp_path / "copy"))
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    settings = Settings(epochs=1, batch_size=3, per_device_batch_size=3)
    result = train_student.run(settings, context(tmp_path / "out", folder), sft=rows())
    assert {weight.dtype for weight in load_file(result.data / "model.safetensors").values()} == {torch.bfloat16}


def test_rows_that_do_not_fit_are_left_out_and_counted(base_student: Path, tmp_path: Path) -> None:
    pairs = [*PAIRS, ("long", "x" * 300), ("early", "stop<|end|>now")]
    settings = Settings(epochs=1, batch_size=3, per_device_batch_size=3)
    result = train_student.run(settings, context(tmp_path, base_student), sft=rows(pairs))
    assert result.metrics["max_length"] == 256  # the student has no more positions
    assert {key: count for key, count in result.counts.items() if count} == {
        "rows": 5, "trained": 3, "too_long": 1, "end_inside": 1,
    }  # fmt: skip
    settings = Settings(max_length=4)
    with pytest.raises(InputError, match=r"none of the 3 training rows can be used \(too_long 3\); too_long counts"):
        train_student.run(settings, context(tmp_path, base_student), sft=rows())


def test_pad_is_never_the_end_of_turn(base_student: Path, tmp_path: Path) -> None:
    """Open-r1's issue 492: with pad == eos the end of turn is masked and the student never stops."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = Path(shutil.copytree(base_student, tmp_path / "copy"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = tokenizer.pad_token = "<|end|>"
    tokenizer.save_pretrained(folder)
    settings = Settings(epochs=1, batch_size=3, per_device_batch_size=3)
    result = train_student.run(settings, context(tmp_path / "out", folder), sft=rows())
    tokenizer = AutoTokenizer.from_pretrained(result.data)
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|end|>", "<|pad|>")
    assert AutoModelForCausalLM.from_pretrained(result.data).generation_config.pad_token_id == tokenizer.pad_token_id


def test_template_from_a_file(base_student: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(base_student, tmp_path / "copy"))
    template = tmp_path / "chat.jinja"
    (folder / "chat_template.jinja").rename(template)
    with pytest.raises(InputError) as error:
        train_student.run(Settings(), context(tmp_path / "out", folder), sft=rows())
    assert str(error.value) == (
        f"the tokenizer of `{folder}` has no chat template; use a chat model, or give a student its own under "
        "`students`: `chat_template: FILE.jinja`"
    )
    settings = Settings(epochs=1, batch_size=3, per_device_batch_size=3)
    result = train_student.run(settings, context(tmp_path / "out", folder, template), sft=rows())
    assert (result.data / "chat_template.jinja").read_text() == template.read_text()
    template.write_text("{% for message in messages %}{{ message['content'] }}\n{% endfor %}")
    with pytest.raises(InputError, match=r"ends an answer with '\\n', which holds no special token"):
        train_student.run(settings, context(tmp_path / "out", folder, template), sft=rows())
    with pytest.raises(InputError, match="the chat template nowhere.jinja cannot be read"):
        train_student.run(settings, context(tmp_path / "out", folder, Path("nowhere.jinja")), sft=rows())


def test_student_that_cannot_be_loaded(base_student: Path, tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    for method in ("full", "auto"):
        with pytest.raises(InputError, match=f"the model folder {missing} does not exist"):
            train_student.run(Settings(method=method), context(tmp_path / "out", missing), sft=rows())
    folder = Path(shutil.copytree(base_student, tmp_path / "copy"))
    (folder / "model.safetensors").rename(folder / "elsewhere")
    with pytest.raises(EngineError, match=f"the model `{folder}` cannot be loaded: .*safetensors") as error:
        train_student.run(Settings(), context(tmp_path / "out", folder), sft=rows())
    assert "\n" not in str(error.value)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=f"the tokenizer of `{folder}` cannot be loaded: "):
        train_student.run(Settings(), context(tmp_path / "out", folder), sft=rows())


def test_no_student_no_rows_wrong_settings(base_student: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="needs a student with a `model`, found none"):
        train_student.run(Settings(), context(tmp_path, None), sft=rows())
    with pytest.raises(InputError, match="the training data holds no rows"):
        train_student.run(Settings(), context(tmp_path, base_student), sft=rows().select([]))
    with pytest.raises(
        RecipeError, match=r"must be a multiple of `per_device_batch_size` x processes = 2 x 1 = 2, got 3"
    ):
        settings = Settings(batch_size=3, per_device_batch_size=2)
        train_student.run(settings, context(tmp_path, base_student), sft=rows())
    for bad in ({"epochs": 0}, {"methd": "full"}, {"learning_rate": -1.0}, {"dtype": "float16"}):
        with pytest.raises(PersynError, match="^train_student"):
            read_section(Settings, bad, "train_student")


def test_accumulation_gives_the_same_step(base_student: Path, tmp_path: Path) -> None:
    """3 x 1 examples are one step of 3: the loss is the mean over all trained tokens, not a mean of means."""
    losses = []
    for size in (1, 3):
        settings = Settings(epochs=2, batch_size=3, per_device_batch_size=size, learning_rate=1e-2, warmup_steps=0)
        where = context(tmp_path / str(size), base_student)
        losses.append([loss for _, loss in train_student.run(settings, where, sft=rows()).metrics["loss"]])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
