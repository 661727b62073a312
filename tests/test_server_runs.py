"""`persyn run` with teachers behind servers: what a user sees when they behave and when they do not."""

import json
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from openai_server import OpenAIServer, Response, completion
from rows import sums, write_lines

from persyn_hf.cli.main import main
from persyn_hf.schemas import prompt_id
from persyn_hf.store.local import Store


pytestmark = pytest.mark.heavy


KEY = "sk-very-secret-1234"
ROWS = sums(range(10, 40))


def good(text: str, times: int) -> Response:
    """Right for even numbers, wrong for odd ones."""
    number = int(text.split()[2])
    return Response(body=completion(f"It is \\boxed{{{number + 2 + number % 2}}}.", reasoning="let me see"))


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(good, models=("big", "small")) as running:
        yield running


@pytest.fixture
def recipe(tmp_path: Path, zoo: Path, server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MY_KEY", KEY)
    write_lines(tmp_path / "q.jsonl", ROWS)
    values: dict[str, Any] = {
        "name": "served",
        "until": "score",
        "teachers": [{"name": n, "model": n, "price": {"prompt": 1, "completion": 2}} for n in ("big", "small")],
        "students": [{"name": "s", "model": str(zoo / "qwen-student")}],
        "prompts": {
            "path": "./q.jsonl",
            "columns": {"prompt": "question", "reference": "answer"},
            "calibration": 20,
            "dev": 10,
        },
        "generate": {
            "engine": "server",
            "samples": 2,
            "max_tokens": 50,
            "server": {"urls": [server.url], "api_key_env": "MY_KEY", "timeout_s": 1, "attempts": 2, "patience_s": 1},
        },
    }
    path = tmp_path / "served.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def go(recipe: Path, capsys: pytest.CaptureFixture[str], *sets: str) -> tuple[int, str]:
    arguments = [part for text in sets for part in ("--set", text)]
    code = main(["run", str(recipe), "--store", str(recipe.parent / "store"), *arguments])
    errors = capsys.readouterr().err.strip()
    assert "Traceback" not in errors
    assert KEY not in errors
    return code, errors


def fails(recipe: Path, capsys: pytest.CaptureFixture[str], *sets: str) -> str:
    code, errors = go(recipe, capsys, *sets)
    assert code == 2
    assert len(errors.splitlines()) == 1, errors
    return errors


def responses(recipe: Path, tag: str = "v1") -> list[dict[str, Any]]:
    store = Store(recipe.parent / "store")
    return list(store.read_dataset(store.get(f"local/served-responses@{tag}")))


def test_answers_reasoning_and_cost_arrive_and_the_key_stays_out(
    recipe: Path, server: OpenAIServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert go(recipe, capsys)[0] == 0
    assert len(server.bodies) == 2 * 30 * 2
    assert {headers["authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
    rows = responses(recipe)
    assert {row["reasoning"] for row in rows} == {"let me see"}
    assert sum(row["is_correct"] for row in rows) == 60
    assert {(row["num_prompt_tokens"], row["num_tokens"]) for row in rows} == {(7, 3)}
    store = Store(recipe.parent / "store")
    cost = store.get("local/served-responses@v1").manifest.cost
    assert cost["teachers"]["big"]["money"] == pytest.approx(60 * (7 * 1 + 3 * 2) / 1e6)
    assert cost["total"]["requests"] == 120
    for file in (recipe.parent / "store").rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert KEY.encode() not in content, file
            assert str(server.port).encode() not in content or "journal" in file.name, f"{file} names the server"


def test_teachers_of_one_recipe_may_differ_in_engine_and_server(
    recipe: Path, zoo: Path, server: OpenAIServer, capsys: pytest.CaptureFixture[str]
) -> None:
    def upper(text: str, times: int) -> Response:
        return Response(body=completion("OTHER 7"))

    with OpenAIServer(upper, models=("elsewhere",)) as other:
        teachers = [
            {"name": "big", "model": "big"},
            {"name": "elsewhere", "model": "elsewhere", "server": {"urls": [other.url], "api_key_env": None}},
            {"name": "here", "model": str(zoo / "gemma-terse"), "engine": "transformers"},
        ]
        sets = (f"teachers={json.dumps(teachers)}", "prompts.calibration=5", "prompts.dev=1")
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("MY_KEY")
            assert "MY_KEY, which is not set or empty" in fails(recipe, capsys, *sets)
            assert not other.bodies, "told before another teacher has spent anything"
        assert go(recipe, capsys, *sets)[0] == 0
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("MY_KEY")
            again = (*sets, "generate.verify=none", "score.alpha=1")  # another artifact of the same answers
            assert go(recipe, capsys, *again)[0] == 0, "what is journalled needs no key"
        assert all("authorization" not in headers for headers in other.headers)
    rows = responses(recipe)
    assert {row["response"] for row in rows if row["teacher"] == "elsewhere"} == {"OTHER 7"}
    assert len([row for row in rows if row["teacher"] == "here" and row["status"] == "ok"]) == 12


def test_faults_that_no_request_gets_past_stop_the_run(
    recipe: Path, server: OpenAIServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.behaviour = lambda text, times: Response(status=401, body={"error": {"message": f"bad key {KEY}"}})
    assert "check the key in the environment variable MY_KEY" in fails(recipe, capsys)
    monkeypatch.delenv("MY_KEY")
    assert fails(recipe, capsys) == (
        "error: `generate.server.api_key_env` names the environment variable MY_KEY, which is not set or empty; "
        "set it: export MY_KEY=..."
    )
    monkeypatch.setenv("MY_KEY", KEY)
    server.behaviour = lambda text, times: Response(status=404, body={"error": {"message": "no such model"}})
    teachers = 'teachers=[{"name": "huge", "model": "huge"}, {"name": "small", "model": "small"}]'
    assert "has no model `huge`; set the teacher's `model` to one that it has: big, small" in fails(
        recipe, capsys, teachers
    )
    server.stop()
    assert "start the server or mend its url, then run again: what has been answered is kept" in fails(recipe, capsys)
    server.start()
    server.behaviour = good
    assert go(recipe, capsys)[0] == 0, "mended, it goes on"
    missing = fails(recipe, capsys, "generate.server={}")
    assert missing.startswith("error: the teacher `big` is to be asked at a server, but no url is given; set")


BAD = {
    "What is 17 + 2?": (
        Response(body=b"<html>sign in</html>", headers={"content-type": "text/html"}),
        "is no chat completion",
    ),
    "What is 18 + 2?": (Response(body=b'{"choices": [{"mess'), "is no chat completion"),
    "What is 19 + 2?": (Response(seconds=5), "no answer within 1 s (attempts: 2)"),
    "What is 20 + 2?": (Response(body=completion("")), "the answer is empty"),
    "What is 21 + 2?": (Response(status=400, body={"error": {"message": "too long"}}), "HTTP 400: too long"),
    "What is 22 + 2?": (Response(body=b'\xff\xfe{"choices": []}'), "is no chat completion"),
}


def test_faults_of_one_row_are_that_rows_and_a_rerun_asks_only_for_it(
    recipe: Path, server: OpenAIServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.behaviour = lambda text, times: BAD[text][0] if text in BAD else good(text, times)
    assert go(recipe, capsys)[0] == 0
    rows = responses(recipe)
    failed = [row for row in rows if row["status"] == "error"]
    reasons = {prompt_id([{"role": "user", "content": text}]): reason for text, (_, reason) in BAD.items()}
    assert Counter(row["prompt_id"] for row in failed) == dict.fromkeys(reasons, 4)
    assert all(reasons[row["prompt_id"]] in row["error"] for row in failed)
    assert all(row["response"] == "" and not row["selected"] for row in failed)
    server.behaviour = good
    server.bodies.clear()
    code = main(["run", str(recipe), "--store", str(recipe.parent / "store"), "--rerun", "errors"])
    assert code == 0
    assert Counter(body["messages"][-1]["content"] for body in server.bodies) == dict.fromkeys(BAD, 4)
    assert {row["status"] for row in responses(recipe, "v2")} == {"ok"}
    before = [row for row in rows if row["status"] == "ok"]
    kept = {(r["teacher"], r["prompt_id"], r["sample_index"]): r["response"] for r in responses(recipe, "v2")}
    assert all(kept[r["teacher"], r["prompt_id"], r["sample_index"]] == r["response"] for r in before)


def test_too_many_failed_rows_stop_the_run(
    recipe: Path, server: OpenAIServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.behaviour = lambda text, times: Response(status=422, body={"detail": "no"})
    message = fails(recipe, capsys)
    assert re.fullmatch(
        r"error: teacher `big`: \d+ of 60 responses failed, the bound `generate.max_error_rate` is 0.5; "
        r"\d+ times: HTTP 422: no. Mend the cause and run again with --rerun errors, or raise the bound",
        message,
    )


def test_status_tells_of_a_run_from_elsewhere_and_after_a_kill(
    recipe: Path, server: OpenAIServer, capsys: pytest.CaptureFixture[str]
) -> None:
    def slow(text: str, times: int) -> Response:
        if text.startswith("What is 11 "):
            return Response(status=400, body={"error": {"message": "not that one"}})
        return Response(body=good(text, times).body, seconds=0.5)

    server.behaviour = slow
    store = recipe.parent / "store"
    command = [sys.executable, "-m", "persyn_hf.cli", "run", str(recipe), "--store", str(store)]
    limited = ["--set", "generate.server.max_concurrency=4", "--set", "generate.server.concurrency=4"]
    process = subprocess.Popen([*command, *limited], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    status = ["status", "--store", str(store)]
    deadline, shown = time.monotonic() + 60, ""
    while time.monotonic() < deadline and not re.search(r"big +[1-5]\d +60 .* 2\s", shown):
        time.sleep(0.3)
        if (store / ".persyn" / "status.json").exists():
            assert main(status) == 0
            shown = capsys.readouterr().out
    assert f"local/served: running, process {process.pid}, last sign " in shown
    assert "\nbig: 2 x HTTP 400: not that one\n" in shown
    lines = {line.split()[0]: line.split() for line in shown.splitlines() if line.strip()}
    assert 0 < int(lines["big"][1]) < 60 and lines["small"][1:3] == ["0", "60"]
    process.kill()
    process.communicate()
    assert main(status) == 0
    shown = capsys.readouterr().out
    assert "local/served: killed (run the same command again to go on)" in shown
    paid = next(line.split() for line in shown.split("Paid for by")[1].splitlines() if line.strip().startswith("big"))
    answered = int(paid[1]) - 2
    assert answered > 0 and paid[2:4] == [str(7 * answered), str(3 * answered)]
    server.bodies.clear()
    assert main(["run", str(recipe), "--store", str(store)]) == 0
    # Some twice, where a busy machine takes more than the second after which the recipe has the client try again.
    asked = {(body["model"], body["messages"][-1]["content"], body["seed"]) for body in server.bodies}
    assert len(asked) == 120 - answered - 2, "what was journalled is not asked again"


def test_a_run_warns_of_answers_that_cannot_be_trained_on(
    recipe: Path, server: OpenAIServer, capsys: pytest.CaptureFixture[str]
) -> None:
    def behave(text: str, times: int) -> Response:
        if text.startswith("What is 17 "):
            return Response(status=400, body={"error": {"message": "no"}})
        return Response(body=completion("never ending", finish_reason="length"))

    server.behaviour = behave
    assert main(["run", str(recipe), "--store", str(recipe.parent / "store")]) == 0
    said = capsys.readouterr().out
    assert "warning: 3% of the answers of `big` failed; ask them again: --rerun errors" in said
    assert (
        "warning: 100% of the answers of `small` are cut off at 50 tokens and will not be trained on; ask them again: "
        "--rerun truncated --set generate.max_tokens=200"
    ) in said


def test_sigterm_ends_like_ctrl_c(recipe: Path, server: OpenAIServer) -> None:
    server.behaviour = lambda text, times: Response(body=good(text, times).body, seconds=0.5)
    store = recipe.parent / "store"
    command = [sys.executable, "-m", "persyn_hf.cli", "run", str(recipe), "--store", str(store)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not server.bodies and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors.startswith("interrupted: what was answered and finished is kept; go on with: persyn run")
