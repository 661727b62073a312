"""`persyn run` with a server that counts no tokens, before and after a tokenizer of its model is named."""

from pathlib import Path

import pytest
from openai_server import OpenAIServer, Response, completion
from test_server_runs import recipe, server  # noqa: F401  # fixtures

from persyn_hf.cli.main import main
from persyn_hf.store.local import Store


pytestmark = pytest.mark.heavy


def test_without_usage_a_limit_on_money_is_kept_once_a_tokenizer_is_named(
    recipe: Path,  # noqa: F811
    server: OpenAIServer,  # noqa: F811
    zoo: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What was answered before the tokenizer was named is counted, too, and not asked again."""
    said = completion("It is \\boxed{4}.")
    del said["usage"]
    server.behaviour = lambda text, times: Response(body=said)
    store = recipe.parent / "store"
    quick = ["--max-cost", "1", "--set", "until=generate", "--set", "prompts.calibration=5", "--set", "prompts.dev=5"]
    assert main(["run", str(recipe), "--store", str(store), *quick]) == 2
    assert "name the tokenizer of its model" in capsys.readouterr().err
    assert 1 <= len(server.bodies) < 40
    named = ["--set", f"generate.server.tokenizer={zoo / 'qwen-student'}"]
    assert main(["run", str(recipe), "--store", str(store), *quick, *named]) == 0
    shown = capsys.readouterr()
    assert "counted by a tokenizer here (~)" in shown.out + shown.err
    assert len(server.bodies) == 40
    found = Store(store).get("local/served-responses@v1")
    rows = list(Store(store).read_dataset(found))
    assert all(row["num_tokens"] > 5 and row["num_prompt_tokens"] > 5 for row in rows)
    assert (found.manifest.counts["counted_here"], "uncounted" in found.manifest.counts) == (40, False)
    line = found.manifest.cost["teachers"]["big"]
    paid = sum(row["num_prompt_tokens"] + 2 * row["num_tokens"] for row in rows if row["teacher"] == "big") / 1e6
    assert line["money"] == pytest.approx(paid)
    assert "~ " in (found.path / "README.md").read_text(encoding="utf-8")
    assert main(["status", "--store", str(store)]) == 0
    assert "the tokens of 40 answers were counted here" in " ".join(capsys.readouterr().out.split())
