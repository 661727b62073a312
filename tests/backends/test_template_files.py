"""Templates and tokenizers as checkpoints have them in their files: one text of a prompt, whatever wrote the file."""

import json
import shutil
from pathlib import Path

import pytest

from persyn_hf.backends import chat
from persyn_hf.backends import loading as models
from persyn_hf.errors import InputError


TEMPLATE = "{{- '<|user|>' + messages[0]['content'] + '<|end|>' -}}{%- if add_generation_prompt -%}A:{%- endif -%}"
ASK = [{"role": "user", "content": "What is 12 and 30?"}]


def in_config(folder: Path, template: object, **keys: object) -> None:
    """Write a template, and other keys, into a folder's tokenizer_config.json, as older checkpoints have it."""
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"chat_template": template} | keys), encoding="utf-8")


@pytest.mark.parametrize("place", ["file of the recipe", "file of the model", "config", "named"])
def test_line_ends_and_marks_of_windows_are_no_part_of_a_prompt(zoo: Path, tmp_path: Path, place: str) -> None:
    folder = Path(shutil.copytree(zoo / "qwen-student", tmp_path / "m"))
    own, text = folder / "chat_template.jinja", "\ufeff" + TEMPLATE.replace("{%- endif", "\r\n{%- endif") + "\r\n"
    given = None
    if place == "file of the model":
        own.write_bytes(text.encode())
    elif place == "file of the recipe":
        given = tmp_path / "t.jinja"
        given.write_bytes(text.encode())
    else:
        own.unlink()
        in_config(folder, text if place == "config" else [{"name": "default", "template": text}])
    made = models.load_tokenizer(str(folder), None, None if given is None else str(given))
    assert chat.render(made, ASK) == "<|user|>What is 12 and 30?<|end|>A:"


def test_of_several_templates_the_one_for_plain_chats_is_taken(zoo: Path, tmp_path: Path) -> None:
    """A file beside the config goes before what stands in it, as in transformers and vLLM."""
    folder = Path(shutil.copytree(zoo / "qwen-student", tmp_path / "m"))
    before = chat.render(models.load_tokenizer(str(folder)), ASK)
    in_config(folder, "{{ 'of the config' }}")
    assert chat.render(models.load_tokenizer(str(folder)), ASK) == before
    (folder / "chat_template.jinja").unlink()
    other = {"name": "tool_use", "template": "{{ 'tools' }}"}
    in_config(folder, [{"name": "default", "template": TEMPLATE}, other])
    assert chat.render(models.load_tokenizer(str(folder)), ASK).endswith("<|end|>A:")
    in_config(folder, [other])
    with pytest.raises(InputError, match="multiple chat templates with no default specified") as caught:
        chat.end_of_turn(models.load_tokenizer(str(folder)), "m")
    assert "\n" not in str(caught.value)


def test_a_tokenizer_that_adds_a_first_token_adds_none_to_what_a_template_wrote(zoo: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(zoo / "qwen-student", tmp_path / "m"))
    made = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    pad = made["added_tokens"][0]
    begin = {"SpecialToken": {"id": pad["content"], "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    known = {pad["content"]: {"id": pad["content"], "ids": [pad["id"]], "tokens": [pad["content"]]}}
    made["post_processor"] = {
        "type": "TemplateProcessing", "single": [begin, text], "pair": [begin, text, text], "special_tokens": known
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(made), encoding="utf-8")
    plain, adds = (models.load_tokenizer(str(path)) for path in (zoo / "qwen-student", folder))
    assert adds("42")["input_ids"] == [pad["id"], *plain("42")["input_ids"]]
    (wanted,), (found,) = (chat.encode_turns(one, [(ASK, "42")], 100) for one in (plain, adds))
    assert (found.ids.tolist(), found.start) == (wanted.ids.tolist(), wanted.start)
