"""`persyn run` with teachers behind batch APIs: they wait together, or not at all, and what is sent counts as paid."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from batch_server import BatchServer, Line
from message_batch_server import MessageBatchServer
from openai_server import OpenAIServer
from rows import sums, write_lines

from persyn_hf.backends.engines.batch.notes import Notes
from persyn_hf.cli.main import main
from persyn_hf.store.local import Store


pytestmark = pytest.mark.heavy


def written(folder: Path, url: str, messages_url: str, **generate: Any) -> Path:
    """Write a recipe with two teachers behind batch APIs of either form, which answer 9 prompts twice."""
    write_lines(folder / "q.jsonl", sums(range(10, 19)))
    price = {"price": {"prompt": 1, "completion": 2}}
    values: dict[str, Any] = {
        "name": "batched",
        "until": "score",
        "teachers": [
            {"name": "big", "model": "m", "server": {"urls": [messages_url], "api": "anthropic"}, **price},
            {"name": "small", "model": "m", "server": {"urls": [url]}, **price},
        ],
        "students": [{"name": "s"}],
        "score": {"learnability": "none", "alpha": 0},
        "prompts": {
            "path": "./q.jsonl",
            "columns": {"prompt": "question", "reference": "answer"},
            "calibration": 6,
            "dev": 3,
        },
        "generate": {
            "engine": "batch",
            "samples": 2,
            "max_tokens": 50,
            "batch": {"poll_s": 0.1},
            "server": {"patience_s": 5},
            **generate,
        },
    }
    path = folder / "batched.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def go(recipe: Path, *options: str, command: str = "run") -> int:
    return main([command, str(recipe), "--store", str(recipe.parent / "store"), *options])


def notes(recipe: Path) -> Notes:
    return Notes.beside(Store(recipe.parent / "store").state_dir / "journal.sqlite")


def test_all_batches_are_sent_before_any_is_awaited(tmp_path: Path) -> None:
    """Each teacher's batch goes on until the other's is there: one after the other would never end."""
    with BatchServer() as small, MessageBatchServer() as big:

        def looks(number: int, path: str) -> None:
            small.looks = 0 if big.made else 10**6
            big.looks = 0 if small.batches else 10**6

        small.before = big.before = looks  # type: ignore[assignment]
        assert go(written(tmp_path, small.url, big.url)) == 0
        assert set(small.sent.values()) == {1} and len(small.sent) == 18
        assert sum(big.sent.values()) == 18 and len(big.made) == 1


def test_a_run_that_detaches_ends_and_a_later_one_collects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with BatchServer(looks=10**6) as small, MessageBatchServer(looks=10**6) as big:
        recipe = written(tmp_path, small.url, big.url)
        for _ in range(2):  # the second finds what the first has sent
            assert go(recipe, "--detach") == 0
            said = capsys.readouterr().out.strip().splitlines()[-1]
            assert re.fullmatch(
                r"under way: http://[\d.:]+/v1 has 18 requests of `big` in 1 batch; http://[\d.:]+/v1 has 18 requests "
                r"of `small` in 1 batch; collect their answers with: persyn run .*--detach",
                said,
            )
        assert main(["status", "--store", str(tmp_path / "store")]) == 0
        status = capsys.readouterr().out
        assert "ended, batches are under way (run the same command again to collect them)" in status
        assert "under way: http" in status and "msgbatch_1" in status and "batch_1" in status
        small.looks = 0  # one has ended: it is collected, and the other is left
        assert go(recipe, "--detach") == 0
        assert [note.payee for note in notes(recipe)] == ["big"]
        big.looks = 0
        assert go(recipe) == 0
        assert set(small.sent.values()) == {1} and len(big.made) == 1 and list(notes(recipe)) == []


def test_what_is_under_way_is_paid_for_also_for_a_changed_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with BatchServer(looks=10**6) as small, MessageBatchServer(looks=10**6) as big:
        recipe = written(tmp_path, small.url, big.url)
        assert go(recipe, "--detach", "--max-generations", "36") == 0
        capsys.readouterr()
        assert go(recipe, "--no-checks", command="plan") == 0
        table = [re.split(r"\s{2,}", line.strip()) for line in capsys.readouterr().out.splitlines()]
        assert ["big", "0", "18", "0"] in [row[:4] for row in table], table
        assert ["total", "0", "36", "0"] in [row[:4] for row in table]
        changed = ("--set", "generate.max_tokens=49", "--detach")
        assert go(recipe, *changed, "--max-generations", "36") == 3
        assert "--max-generations 36: this recipe has asked for 36, the next batch" in capsys.readouterr().err
        bound = sum(prompt * 1 + most * 2 for note in notes(recipe) for prompt, most in note.most) / 1e6
        assert go(recipe, *changed, "--max-cost", f"{bound * 1.001}") == 3
        assert f"has batches under way of up to {bound:.4g}, the next batch" in capsys.readouterr().err
        assert len(small.batches) == len(big.made) == 1
        small.looks = big.looks = 0
        assert go(recipe, "--max-generations", "36", "--max-cost", f"{bound * 1.001}") == 0, "collecting is free"


def test_another_engine_does_not_pay_for_what_is_under_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with BatchServer(looks=10**6) as small, MessageBatchServer() as big, OpenAIServer() as other:
        recipe = written(tmp_path, small.url, big.url)
        assert go(recipe, "--detach") == 0
        capsys.readouterr()
        at_once = ("--set", "generate.engine=server")
        for refused, url, options in (("big", small.url, at_once), ("small", other.url, ())):
            written(tmp_path, url, big.url)
            assert go(recipe, *options, "--no-checks", command="plan") == 0
            assert "18 answers of small are under way in batches that its engine does not collect" in " ".join(
                capsys.readouterr().out.split()
            )
            assert go(recipe, *options) == 2
            error = capsys.readouterr().err
            assert f"teacher `{refused}`: 18 of the answers that are missing are under way in batches at http" in error
            assert "collect them with `engine: batch` and that url, or remove /" in error
        assert (small.at_once, big.at_once, other.bodies) == (0, 0, [])
        for note in notes(recipe):
            notes(recipe).remove(note)
        written(tmp_path, small.url, big.url)
        assert go(recipe, *at_once) == 0
        assert (small.at_once, big.at_once) == (18, 18), "as the user wants it"


def test_a_later_sample_is_asked_only_where_none_was_right(tmp_path: Path) -> None:
    """Every first answer is right, so each batch holds one sample of each prompt."""

    def right(line: Line, times: int) -> Line:
        number = int(line["body"]["messages"][-1]["content"].split()[2])
        message = {"role": "assistant", "content": f"\\boxed{{{number + 2}}}"}
        body = {"choices": [{"finish_reason": "stop", "message": message}], "usage": {"completion_tokens": 3}}
        return {"custom_id": line["custom_id"], "response": {"status_code": 200, "body": body}}

    with BatchServer(outcome=right) as small:
        recipe = written(tmp_path, small.url, small.url, stop_when_correct=True)
        teachers = [{"name": name, "model": name, "server": {"urls": [small.url]}} for name in ("one", "two")]
        assert go(recipe, "--set", f"teachers={json.dumps(teachers)}") == 0
        assert len(small.sent) == 18 and len(small.batches) == 2
