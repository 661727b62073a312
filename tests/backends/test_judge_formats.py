"""The forms of structured output that judges of each engine are asked for."""

from pathlib import Path
from typing import Any

import pytest
from tiny_models import save_model

from persyn_hf.backends.judging.opening import asked_formats
from persyn_hf.backends.judging.settings import JudgeSettings
from persyn_hf.recipe.strict import read_section


AT = {"urls": ["http://localhost:1/v1"]}


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({"server": AT}, ("json_schema", "json_object", "none")),
        ({"server": AT, "response_format": "json_object"}, ("json_object",)),
        ({"server": {**AT, "extra": {"response_format": None}}}, ("none",)),
        ({"engine": "vllm"}, ("json_schema",)),
        ({"engine": "vllm", "response_format": "none"}, ("none",)),
        ({"engine": "transformers"}, ("none",)),
    ],
)
def test_a_server_may_refuse_a_form_and_our_own_vllm_knows_it(
    tmp_path: Path, given: dict[str, Any], asked: tuple[str, ...]
) -> None:
    model = str(save_model(tmp_path)) if "engine" in given else "m"
    settings: JudgeSettings = read_section(JudgeSettings, {"model": model, **given}, "score.judge")
    assert asked_formats(settings, settings) == asked


def test_a_template_that_opens_the_thoughts_leaves_no_room_for_a_form(tmp_path: Path) -> None:
    folder = save_model(tmp_path)
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text() + "{% if add_generation_prompt %}<think>\n{% endif %}")
    for form, asked in (("auto", "none"), ("json_schema", "json_schema")):
        given = {"model": str(folder), "engine": "vllm", "response_format": form}
        settings: JudgeSettings = read_section(JudgeSettings, given, "score.judge")
        assert asked_formats(settings, settings) == (asked,)
