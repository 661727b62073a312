"""A chat template of others is tried in a child process with bounds before it is used."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import template_samples as samples

from persyn_hf.backends import chat, loading, template_trial
from persyn_hf.backends.routers import RouterSettings
from persyn_hf.backends.routers.features import Embeddings
from persyn_hf.backends.routers.llm_model import new


WHILE = "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}"
END = "{% endfor %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        (WHILE + END, "takes more than 1 seconds of processor time"),
        ("{{ 7 ** (7 ** 99) }}", "takes more than 1 seconds of processor time"),
        ("{% macro f(n) %}{{ f(n - 1) }}{{ f(n - 1) }}{% endmacro %}{{ f(300) }}", None),  # Python ends it
        ("{{ 'x' * 2 * 10 ** 9 }}", "takes more than 1 GiB of memory"),
        ("{% for a in range(9) %}{{ 'x' * 999999 }}{% endfor %}", "writes more than 1,000,000 letters"),
        ("{% if not add_generation_prompt %}{{ 'x' * 1000001 }}{% endif %}", "writes more than 1,000,000 letters"),
        ("{% if messages[0].role == 'system' %}{{ 'x' * 1000001 }}{% endif %}", "writes more than 1,000,000 letters"),
        ("{% if '<think>' in messages[-1].content %}{{ 'x' * 1000001 }}{% endif %}", "writes more than"),
        ("{{ bos_token * 1000001 }}", "writes more than 1,000,000 letters"),
        ("{{ 'x' * 1000000 }}", None),
        ("{% for m in messages %}{% break %}{% endfor %}{{ raise_exception('no') }}", None),
        (
            "{% generation %}{{ messages | tojson(indent=2) }}{% endgeneration %}{{ 'x' * 1000001 }}",
            "writes more than",
        ),
        ("{{ strftime_now('%Y') }}{{ 'x' * 1000001 }}", "writes more than 1,000,000 letters"),
        ("{% if %}", None),  # whoever applies it says so
        ("\udcff", None),
    ],
)
def test_a_template_without_bounds_is_refused(
    template: str, fault: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template_trial, "SECONDS", 1)
    if fault is None:
        template_trial.check_bounded(template, {"bos_token": "b"}, "m", "take another")
        return
    with pytest.raises(
        template_trial.InputError,
        match=f"the chat template of `m` {fault}.* for a conversation of a few words; take another",
    ):
        template_trial.check_bounded(template, {"bos_token": "b"}, "m", "take another")


@pytest.mark.parametrize("name", sorted(samples.TOKENS))
def test_it_is_rendered_as_transformers_does(name: str) -> None:
    made: Any = samples.tokenizer_of(name)
    template = template_trial._environment().from_string(made.chat_template)
    for turns in template_trial.CONVERSATIONS:
        try:
            expected = chat.render(made, turns)
        except Exception as error:  # noqa: BLE001  # as templates do
            with pytest.raises(type(error)):
                template.render(messages=turns, add_generation_prompt=True, **made.special_tokens_map)
            continue
        given = {"strftime_now": chat.DATE.strftime, "tools": None, "documents": None, "add_generation_prompt": True}
        assert template.render(messages=turns, **(made.special_tokens_map | given)) == expected


@pytest.mark.heavy
def test_every_model_that_is_asked_or_taught_has_passed(tmp_path: Path, zoo: Path) -> None:
    model, bad = str(zoo / "qwen-student"), tmp_path / "bad.jinja"
    bad.write_text("{{ 'x' * 10 ** 9 }}")
    assert loading.load_tokenizer(model).chat_template
    with pytest.raises(template_trial.InputError, match=r"give a student its own under `students`"):
        loading.load_tokenizer(model, None, str(bad))


def test_an_encoder_and_a_backbone_have_passed(tmp_path: Path, zoo: Path) -> None:
    folder = shutil.copytree(zoo / "qwen-student", tmp_path / "encoder")
    (folder / "chat_template.jinja").write_text("{{ 'x' * 1000001 }}")
    with pytest.raises(template_trial.InputError, match=r"writes more than.*; take another encoder"):
        Embeddings(str(folder), None, 64, "cpu")
    with pytest.raises(template_trial.InputError, match=r"writes more than.*; take another backbone or router"):
        new(RouterSettings(kind="llm", backbone=str(folder)), ("a", "b"), None)


def test_the_child_imports_nothing_heavy() -> None:
    code = (
        "import sys, persyn_hf.backends.template_trial as t; t._environment()\n"
        "print({'torch', 'transformers', 'numpy', 'pydantic'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
