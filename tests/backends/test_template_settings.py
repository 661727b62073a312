"""What real chat templates can be told, and what a teacher is refused that its template does not read."""

from pathlib import Path

import pytest
from template_samples import tokenizer_of

from persyn_hf.backends import chat
from persyn_hf.backends.engines.local_prompts import known_kwargs, prepare
from persyn_hf.backends.engines.open_engine import open_engine
from persyn_hf.errors import RecipeError
from persyn_hf.recipe.roles import Teacher
from persyn_hf.stages.generate.settings import Settings, engine_options


ASKED = [{"role": "user", "content": "What is 2 + 2?"}]


@pytest.mark.parametrize(
    ("template", "known"),
    [
        ("qwen3", {"enable_thinking"}),
        ("smollm3", {"enable_thinking"}),
        ("glm-4.5", {"enable_thinking"}),
        ("granite-3.3", {"thinking"}),
        ("gpt-oss", {"reasoning_effort"}),
        ("llama-3.2", {"date_string"}),
    ],
)
def test_real_templates_say_what_they_can_be_told(template: str, known: set[str]) -> None:
    assert known <= (chat.settable(tokenizer_of(template)) or set())


def test_a_default_of_a_word_itself_can_be_told() -> None:
    tokenizer = tokenizer_of("chatml")
    tokenizer.chat_template = "{% set thinking = thinking | default(false) %}{% set own = 1 %}{{ own | default(2) }}"
    assert chat.settable(tokenizer) == {"thinking"}


@pytest.mark.parametrize("template", ["chatml", "llama-3", "phi-4", "mistral-v7", "qwen2.5", "gemma-3"])
def test_real_templates_that_can_be_told_nothing_of_thinking(template: str) -> None:
    with pytest.raises(RecipeError, match="names `enable_thinking`, which the chat template of `m` does not read"):
        known_kwargs(tokenizer_of(template), "m", {"enable_thinking": False})


def test_thoughts_are_turned_off_in_what_the_teacher_is_shown() -> None:
    tokenizer = tokenizer_of("qwen3")
    on, off = (prepare(tokenizer, ASKED, None, 4096, kwargs) for kwargs in ({}, {"enable_thinking": False}))
    assert not on.text.endswith("</think>\n\n") and off.text.endswith("<think>\n\n</think>\n\n")


def test_a_misspelt_word_is_told() -> None:
    with pytest.raises(RecipeError) as fault:
        known_kwargs(tokenizer_of("qwen3"), "Qwen/Qwen3-8B", {"enable_thinkin": False})
    assert str(fault.value) == (
        "`chat_template_kwargs` names `enable_thinkin`, which the chat template of `Qwen/Qwen3-8B` does not read (it "
        "reads enable_thinking); take it out, or name what it reads"
    )


def test_a_server_is_sent_what_its_template_is_told(tmp_path: Path) -> None:
    server = {"urls": ["http://localhost:1/v1"], "extra": {"chat_template_kwargs": {"a": 1}, "min_p": 0.1}}
    teacher = Teacher(name="t", model="m", server=server, chat_template_kwargs={"enable_thinking": False})
    options = engine_options(Settings(engine="server"), teacher)
    assert options["server"].extra == {"chat_template_kwargs": {"a": 1, "enable_thinking": False}, "min_p": 0.1}
    with open_engine(None, log_dir=tmp_path, state_dir=tmp_path, **options) as engine:
        assert "enable_thinking" in engine.kind, "it is part of a request's key"
