"""`persyn preview`: what it shows, and that a run pays for none of it again."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from openai_server import OpenAIServer, Response, completion
from rows import sums, write_lines

from persyn_hf.cli.main import main


ROWS = sums(range(10, 40))


def say(text: str, times: int) -> Response:
    """Right for even numbers, cut off for odd ones."""
    number = int(text.split()[2])
    if number % 2:
        return Response(body=completion("It goes on and", finish_reason="length"))
    return Response(body=completion(f"It is \\boxed{{{number + 2}}}.", reasoning="two more"))


@pytest.fixture
def server(heavy: None) -> Iterator[OpenAIServer]:
    with OpenAIServer(say, models=("big", "small")) as running:
        yield running


@pytest.fixture
def recipe(tmp_path: Path, zoo: Path, server: OpenAIServer) -> Path:
    write_lines(tmp_path / "q.jsonl", ROWS)
    values: dict[str, Any] = {
        "name": "looked",
        "until": "score",
        "teachers": [
            {"name": "big", "model": "big", "price": {"prompt": 1000, "completion": 1000}},
            {"name": "small", "model": "small", "samples": 3},
        ],
        "students": [{"name": "s", "model": str(zoo / "qwen-student")}],
        "prompts": {
            "path": "./q.jsonl",
            "columns": {"prompt": "question", "reference": "answer"},
            "calibration": 20,
            "dev": 10,
        },
        "generate": {"engine": "server", "samples": 2, "max_tokens": 50, "server": {"urls": [server.url]}},
    }
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def command(name: str, recipe: Path, *more: str) -> int:
    return main([name, str(recipe), "--store", str(recipe.parent / "store"), *more])


def test_answers_are_shown_and_not_paid_for_again(
    recipe: Path, server: OpenAIServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("preview", recipe, "-n", "4") == 0
    shown = capsys.readouterr().out
    assert len(server.bodies) == 2 * 4, "one sample of each teacher to each prompt"
    assert shown.count("prompt 4 of 4: What is ") == 1 and shown.count("reference: ") == 4
    right, cut = shown.count("right"), shown.count("cut off")
    assert right + cut == 8 and right % 2 == 0
    assert shown.count("thoughts: 8 characters") == right
    assert "0.01" in shown, "7 and 3 tokens at a thousandth each"
    assert "⟦" in shown and "<|end|>⟧" in shown, "what the student learns ends in its end of turn"
    before = len(server.bodies)
    assert command("preview", recipe, "-n", "4") == 0
    assert len(server.bodies) == before, "a second look costs nothing"
    capsys.readouterr()
    assert command("run", recipe) == 0
    assert len(server.bodies) == 30 * (2 + 3), "nor do these answers in the run"
    sent = [json.dumps(body, sort_keys=True) for body in server.bodies]
    assert len({*sent}) == len(sent)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"until": "prompts"}, "there is nothing to preview: no teacher is asked"),
        ({"prompts": {"dataset": "org/p"}}, "the prompts lie on the Hub and were not fetched yet; fetch them first"),
    ],
)
def test_what_cannot_be_shown_is_one_sentence(
    change: dict[str, Any], sentence: str, recipe: Path, server: OpenAIServer, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe.write_text(yaml.safe_dump(yaml.safe_load(recipe.read_text()) | change))
    assert command("preview", recipe) == 2
    assert sentence in capsys.readouterr().err
    assert server.bodies == []
