"""What tokenizers and configs show of a recipe's models: told by `validate --models`, refused before any answer."""

import json
import shutil
from pathlib import Path

import pytest
from test_bad_input import QUESTIONS, recipe, run, stored
from transformers import AutoTokenizer

from persyn_hf.cli.main import main


__all__ = ["recipe"]  # a fixture

TURN = "{%- for m in messages -%}{{- '<|' + m['role'] + '|>' + m['content'] + '<|end|>' -}}{%- endfor -%}"
WHOLE = TURN + "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
CLOSED = WHOLE.replace("'<|assistant|>'", "'<|assistant|><think>\\n\\n</think>\\n\\n'")
POOL, FLAGS = ("qwen-gen", "mistral-eq"), ("false", "true")
ANSWERED = ["responses", "rewards"]


def student(recipe: Path, zoo: Path, template: str) -> str:
    """`--set` of a student with another template."""
    path = recipe.parent / "student.jinja"
    path.write_text(template, encoding="utf-8")
    return f"students=[{{name: s, model: {zoo / 'qwen-student'}, chat_template: {path}}}]"


def answered(recipe: Path) -> list[str]:
    return [name for name in stored(recipe) if any(word in name for word in ANSWERED)]


def test_validate_says_what_every_template_does(recipe: Path, zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "--models", str(recipe)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == [
        "  student s ends a prompt with '<|end|><|assistant|>' and an answer with <|end|>; plain answers kept; "
        "thoughts kept; system turns refused (TemplateError: Tiny models know the roles user and assistant only, "
        "not system)",
        *(
            f"  teacher {name} ends a prompt with '<|end|><|assistant|>' and an answer with <|end|>; system turns "
            "refused (TemplateError: Tiny models know the roles user and assistant only, not system)"
            for name in POOL
        ),
    ]


@pytest.mark.parametrize(
    ("template", "word"),
    [
        (TURN, "generation prompt"),
        ("{{ messages[0]['content'] }}", "leaves the answer out"),
        ("{{ 1 / 0 }}", "applied"),
    ],
)
def test_a_template_that_a_student_cannot_learn_with_is_refused_first(
    recipe: Path, zoo: Path, capsys: pytest.CaptureFixture[str], template: str, word: str
) -> None:
    assert word in run(capsys, recipe, "--set", student(recipe, zoo, template))
    assert not stored(recipe)


def changed(zoo: Path, folder: Path, **keys: object) -> Path:
    """A teacher whose config.json has other values."""
    shutil.copytree(zoo / "qwen-gen", folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))
    return folder


@pytest.mark.parametrize(
    ("teacher", "words"),
    [
        (
            "system_prompt: Be terse.",
            "does not take the teacher's `system_prompt`, system turns are refused (",
        ),
        ("model: nobody/nothing", "the tokenizer of `nobody/nothing` cannot be loaded: "),
        ("model: nobody/nothing", "; check its id, the network and, where its authors grant access, `hf auth login`"),
        ("model: OWN", "is code of its own, which is not run; take a model that transformers knows"),
        ("model: GGUF", "holds no safetensors file; convert the weights to safetensors"),
    ],
)
def test_a_teacher_that_cannot_be_asked_is_refused_first(
    recipe: Path, zoo: Path, capsys: pytest.CaptureFixture[str], teacher: str, words: str
) -> None:
    own = changed(zoo, recipe.parent / "own", model_type="odd", auto_map={"AutoConfig": "odd.Odd"})
    gguf = recipe.parent / "gguf"
    gguf.mkdir()
    (gguf / "model.Q4_K_M.gguf").write_bytes(b"GGUF")
    keys = teacher.replace("OWN", str(own)).replace("GGUF", str(gguf))
    model = "" if "model:" in keys else f", model: {zoo / 'qwen-gen'}"
    pool = f"teachers=[{{name: a, model: {zoo / 'mistral-eq'}}}, {{name: b{model}, {keys}}}]"
    assert words in run(capsys, recipe, "--set", pool)
    assert not stored(recipe)


def test_a_closed_block_is_refused_where_a_teacher_reasons(
    recipe: Path, zoo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = [f"{{name: {name}, model: {zoo / name}, long_cot: {flag}}}" for name, flag in zip(POOL, FLAGS, strict=True)]
    thinker = f"teachers=[{', '.join(pool)}]"
    told = run(capsys, recipe, "--set", student(recipe, zoo, CLOSED), "--set", thinker)
    assert "student `s` closes the thinking block" in told
    assert "teacher `mistral-eq` reasons" in told
    assert not stored(recipe)


def test_prompts_with_turns_that_a_student_refuses_are_counted_before_teachers_are_asked(
    recipe: Path, zoo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"question": [{"role": "user", "content": row["question"]}], "answer": row["answer"]} for row in QUESTIONS]
    for row in rows[:3]:
        row["question"].insert(0, {"role": "system", "content": "Be terse."})
    (recipe.parent / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "refuses 3 of the prompts, those with the turns system, user" in run(capsys, recipe)
    assert not answered(recipe)


def test_tokens_without_embeddings_are_refused_where_answers_are_scored(
    recipe: Path, zoo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(zoo / "qwen-student", recipe.parent / "student"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|close|>"]})
    tokenizer.chat_template = WHOLE.replace("<|end|>", "<|close|>")
    tokenizer.save_pretrained(folder)
    told = run(capsys, recipe, "--set", f"students=[{{name: s, model: {folder}}}]")
    assert "writes <|close|>" in told
    assert "embeddings" in told
    assert not stored(recipe)


@pytest.mark.parametrize("name", ["mistral-eq", "qwen-gen"])
def test_a_teacher_without_a_tokenizer_is_named_before_another_one_is_asked(
    recipe: Path, zoo: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Of a Qwen2, transformers makes up a tokenizer that knows one word."""
    folder = Path(shutil.copytree(zoo / name, recipe.parent / "teacher"))
    (folder / "tokenizer.json").unlink()
    pool = f"teachers=[{{name: a, model: {zoo / 'llama-long'}}}, {{name: b, model: {folder}}}]"
    told = run(capsys, recipe, "--set", pool)
    assert f"the tokenizer of `{folder}` " in told
    assert "tokenizer.json" in told
    assert not stored(recipe)


def test_a_teacher_that_writes_nothing_after_an_answer_stops_by_its_generation_config(recipe: Path, zoo: Path) -> None:
    """As GLM-4: what begins the next turn ends an answer."""
    folder = Path(shutil.copytree(zoo / "qwen-gen", recipe.parent / "glm"))
    template = WHOLE.replace("+ '<|end|>'", "+ ('<|end|>' if m['role'] == 'user' else '')")
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    store = recipe.parent / "store"
    pool = f"teachers=[{{name: glm, model: {folder}}}, {{name: b, model: {zoo / 'mistral-eq'}}}]"
    assert main(["run", str(recipe), "--store", str(store), "--set", pool]) == 0
    assert answered(recipe)


def test_a_teacher_is_not_named_like_the_config_that_datasets_loads_by_default(
    recipe: Path, zoo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = run(capsys, recipe, "--set", f"teachers=[{{name: default, model: {zoo / 'qwen-gen'}}}]")
    assert "must not be `default`" in told
