"""`persyn help` and `persyn schema`."""

import json

import pytest

from persyn_hf.cli.main import main
from persyn_hf.recipe.schema_file import read_schema


def told(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert main([*arguments]) == code
    shown = capsys.readouterr()
    return shown.err if code else shown.out


def test_one_setting_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, "help", "score.alpha").splitlines() == [
        "score.alpha: number, at least 0 and at most 1",
        "  The weight of learnability in the reward (Eq. 2). The paper: 0.4.",
        "  default: 0.4",
        "  runs anew when it is changed: `score`, `pair`, `train_router`, `assign` (pool), `generate` (pool), `score` "
        "(pool), `mix`, `train_student`, `evaluate`",
    ]
    assert "runs anew when it is changed: nothing" in told(capsys, "help", "train_student.save_steps")
    assert "default: none, it is needed" in told(capsys, "help", "name")


def test_sections_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    whole = told(capsys, "help")
    assert "  name (needed): The name of the experiment." in whole and "  score: The parts of a reward" in whole
    assert "score.alpha" not in whole
    section = told(capsys, "help", "score.reward_model")
    assert "score.reward_model.model (default: null)" in section and "score.alpha" not in section


def test_keys_are_found_as_errors_name_them_and_where_they_are_shared(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, "help", "teachers.0.server.urls").startswith("generate.server.urls: list of texts\n")
    assert told(capsys, "help", "train_router.candidates.1.tau").startswith("train_router.tau: number, above 0\n")
    assert "Its keys are those of `generate.server`." in told(capsys, "help", "teachers.server")


def test_a_command_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert "usage: persyn run" in told(capsys, "help", "run")


@pytest.mark.parametrize(
    ("what", "meant"),
    [
        ("score.alhpa", "`score.alpha`"),
        ("max_error_rate", "`generate.max_error_rate` or `score.judge.max_error_rate`"),
        ("train_student.tie", "`pair.tie`"),
        ("validat", "`validate`"),
    ],
)
def test_what_may_be_meant_is_named(capsys: pytest.CaptureFixture[str], what: str, meant: str) -> None:
    sentence = told(capsys, "help", what, code=2)
    assert sentence == (
        f"error: there is no setting, section or command `{what}`, did you mean {meant}?; see `persyn help`\n"
    )


def test_what_is_like_nothing_is_only_refused(capsys: pytest.CaptureFixture[str]) -> None:
    sentence = "error: there is no setting, section or command `§§§`; see `persyn help`\n"
    assert told(capsys, "help", "§§§", code=2) == sentence


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(told(capsys, "schema")) == read_schema()
