"""What is said of an artifact once it is stored."""

from types import SimpleNamespace
from typing import Any

from persyn_hf.runner.messages import hints


def test_a_teachers_own_limit_is_named_where_its_answers_are_cut_off() -> None:
    """`generate.max_tokens` would change nothing of it."""
    line = {"errors": 0.0, "truncated": 0.5}
    manifest = SimpleNamespace(
        counts={},
        settings={"engine": "server", "max_tokens": 60},
        teachers=[{"name": "own", "max_tokens": 8}, {"name": "other"}],
        metrics={"teachers": {"own": line, "other": line}},
    )
    artifact: Any = SimpleNamespace(kind="responses", manifest=manifest)
    own, other = hints(artifact)
    assert "`own` are cut off at 8 tokens" in own
    assert own.endswith("--rerun truncated and `max_tokens: 32` at the teacher")
    assert "`other` are cut off at 60" in other and other.endswith("--set generate.max_tokens=240")
