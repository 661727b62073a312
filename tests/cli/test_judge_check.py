"""`persyn judge-check` with a real server: what is measured, what is asked, what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from openai_server import OpenAIServer, Response, completion
from rows import write_lines

from persyn_hf.cli.main import main


ROWS: list[dict[str, Any]] = [
    {"prompt": f"Name {n} things.", "response": "x" * length, "human": length >= 5, "score": length}
    for n in range(10)
    for length in (2, 7, 9)
]


def by_length(text: str, times: int) -> Response:
    """It is wrong about answers of nine letters."""
    length = len(text.split("<answer>\n")[1].split("\n</answer>")[0])
    return Response(body=completion(json.dumps({"score": {2: 2, 7: 8, 9: 3}[length]})))


def write(folder: Path, url: str, **judge: Any) -> Path:
    values = {
        "name": "checked",
        "teachers": [{"name": "a", "model": "a"}, {"name": "b", "model": "b"}],
        "students": [{"name": "s"}],
        "strategies": ["persyn"],
        "until": "score",
        "generate": {"engine": "server", "server": {"urls": [url]}},
        "prompts": {"path": "./known.jsonl", "columns": {"prompt": "prompt"}},
        "score": {
            "quality": "judge",
            "learnability": "none",
            "alpha": 0,
            "judge": {"model": "m", "server": {"urls": [url], "attempts": 1}, **judge},
        },
    }
    write_lines(folder / "known.jsonl", ROWS)
    (folder / "my.yaml").write_text(yaml.safe_dump(values))
    return folder / "my.yaml"


def check(recipe: Path, *more: str, code: int = 0) -> None:
    arguments = [str(recipe), str(recipe.parent / "known.jsonl"), "--store", str(recipe.parent / "store"), *more]
    assert main(["judge-check", *arguments]) == code


def test_right_and_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with OpenAIServer(by_length) as server:
        recipe = write(tmp_path, server.url)
        check(recipe, "--verdict", "human")
        shown = capsys.readouterr().out
        assert len(server.bodies) == 30
        # Right are 7 and 9 letters: the judge says 8 and 3, above all that are wrong (2); 3 is below the middle, 5.5.
        for line in ("right order 1.000 1.000 to 1.000", "accuracy 0.667 0.667 to 0.667", "Cohen's kappa 0.400"):
            assert line in " ".join(shown.split()), shown
        assert "30 of 30 answers have a verdict" in " ".join(shown.split())
        check(recipe, "--verdict", "score")
        assert len(server.bodies) == 30, "the journal has them"
        shown = " ".join(capsys.readouterr().out.split())
        # Of 2 < 7 < 9 the judge swaps the last two: two of three pairs, whatever the prompts.
        assert "right order 0.667" in shown
        assert "Kendall's tau-b 0.333" in shown
        assert "accuracy" not in shown
        check(recipe, "--verdict", "score", "--rows", "6")
        assert "6 of 6 answers have a verdict; fewer than 50" in " ".join(capsys.readouterr().out.split())


def test_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def first(text: str, times: int) -> Response:
        return Response(body=completion('{"winner": "A"}'))

    with OpenAIServer(first) as server:
        check(write(tmp_path, server.url, mode="pairwise"), "--verdict", "score")
        assert len(server.bodies) == 60
    shown = " ".join(capsys.readouterr().out.split())
    assert "right order 0.500 0.500 to 0.500" in shown
    assert "m: both orders agree in 0% of 30 pairs" in shown


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--verdict", "humn"), "has no column `humn`, did you mean `human`?"),
        (("--response", "answer"), "has no column `answer`"),
        (("--max-cost", "1"), "--max-cost needs the price of every teacher and judge"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], sentence: str
) -> None:
    with OpenAIServer(by_length) as server:
        check(write(tmp_path, server.url), *more, code=2)
        assert not server.bodies
    assert sentence in capsys.readouterr().err


def test_rows_without_a_verdict_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with OpenAIServer(by_length) as server:
        recipe = write(tmp_path, server.url)
        rows = [
            *ROWS,
            {"prompt": "P", "response": "xx", "human": "maybe"},
            {"prompt": "P", "response": "", "human": 1},
        ]
        write_lines(tmp_path / "known.jsonl", rows)
        check(recipe, "--verdict", "human")
        assert "2 rows hold no prompt, answer or verdict" in " ".join(capsys.readouterr().out.split())
        write_lines(tmp_path / "known.jsonl", rows[-2:])
        check(recipe, "--verdict", "human", code=2)
        assert "none of its 2 rows has a prompt, an answer and a verdict" in capsys.readouterr().err
        check(recipe, "--set", "score.quality=correct", "--set", "score.judge=null", code=2)
        assert "the recipe has no judge to check" in capsys.readouterr().err
