"""How wide lines are where the output is no terminal."""

import pytest

from persyn_hf.console import new_console


@pytest.mark.parametrize(("columns", "width"), [("70", 70), (None, 120), ("", 120), ("wide", 120)])
def test_the_width_of_the_environment_is_kept(
    columns: str | None, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    assert new_console().width == width
