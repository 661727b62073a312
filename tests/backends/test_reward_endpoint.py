"""Reward models behind a server: a real vLLM (the CPU build), and one that does on demand what bad servers do."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from classify_server import ClassifyServer, classification
from openai_server import Response
from tiny_rewards import ENDING, ROWS, conversation, save_reward_model

from persyn_hf.backends.engines.vllm_server import VllmServer
from persyn_hf.backends.scoring import score_rows
from persyn_hf.backends.scoring.measure import measure
from persyn_hf.backends.scoring.reward_endpoint import judge
from persyn_hf.backends.scoring.reward_model import RewardScorer
from persyn_hf.errors import EngineError, RecipeError
from persyn_hf.recipe.strict import read_section
from persyn_hf.stage import Silent
from persyn_hf.stages.score.settings import RewardServer


needs_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
TOO_LONG = "This model's maximum context length is {} tokens. However, your prompt contains at least 129 input tokens"


def settings(url: str, **values: Any) -> RewardServer:
    return RewardServer(urls=(url,), **({"timeout_s": 60, "attempts": 2, "patience_s": 5} | values))


def scores(
    server: RewardServer, rows: Any = ROWS, max_length: int = 128, model: str = "rm"
) -> dict[int, float | None]:
    return {
        number: value
        for numbers, values in judge(model, server, rows, max_length=max_length)
        for number, (value,) in zip(numbers, values, strict=True)
    }


@pytest.fixture(scope="module")
def dated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model of heads of 32, which vLLM knows, with the date in its template as Llama 3.2 has it."""
    date = (
        "{%- if not date_string is defined -%}{%- set date_string = strftime_now('%d %b %Y') -%}{%- endif -%}"
        "{{- '<|start|>' + date_string -}}"
    )
    return save_reward_model(tmp_path_factory.mktemp("dated"), template=date + ENDING, head_dim=32)


@pytest.fixture(scope="module")
def vllm(heavy: None, dated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    arguments = ["--model", str(dated), "--served-model-name", "rm", "--runner", "pooling", "--dtype", "float32"]
    arguments += ["--enforce-eager", "--max-model-len", "128"]
    log = tmp_path_factory.mktemp("logs") / "vllm.log"
    server = VllmServer("rm", arguments, stage="generate", log=log, start_timeout_s=250, max_restarts=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
        try:
            server.start()
            yield server.url
        finally:
            server.stop()


@needs_vllm
@pytest.mark.slow
def test_vllm_gives_the_scores_of_transformers(vllm: str, dated: Path) -> None:
    rows = [*ROWS, *[(conversation(f"What is {n} and 1?"), f"It is {n + 1}. " * (n % 5)) for n in range(40)]]
    scorer = RewardScorer(str(dated), max_length=128, dtype="float32")
    own = {
        number: value
        for numbers, values in score_rows(scorer, rows, batch_tokens=2000)
        for number, (value,) in zip(numbers, values, strict=True)
    }
    assert None not in own.values()
    found = scores(settings(vllm), rows)
    assert sorted(found) == sorted(own)
    assert [found[number] for number in own] == pytest.approx(list(own.values()), abs=1e-3)
    assert len({round(value or 0, 2) for value in own.values()}) > 20
    # The limit is the same one: on a row's length to the token, and on what the server cannot take at all.
    lengths = [len(turn.ids) for turn in scorer.encode(ROWS)]
    limit = sorted(lengths)[-2]
    cut = scores(settings(vllm), ROWS, max_length=limit)
    assert [number for number, value in cut.items() if value is None] == [lengths.index(max(lengths))]
    assert scores(settings(vllm), [(conversation("x"), "9 " * 200)]) == {0: None}


@needs_vllm
@pytest.mark.slow
def test_vllm_refuses_in_sentences(vllm: str) -> None:
    assert error_of(settings(vllm), [(conversation("x"), "9 " * 200)], max_length=16384) == (
        "the server of the reward model `rm` takes 128 tokens, less than `score.reward_model.max_length`, 16384; set "
        "it to 128, or start the server with a larger --max-model-len"
    )
    assert error_of(settings(vllm), model="another") == (
        f"{vllm} has no model `another`; set `score.reward_model.model` to one that it has: rm"
    )
    assert error_of(settings(vllm), [(conversation("refuse"), "no")]) == (
        "no score from the reward model `rm`: HTTP 400: no; mend it and run again: what has been judged is kept"
    )


def bad(status: int, message: str) -> Response:
    return Response(status=status, body={"error": {"message": message, "code": status}})


@pytest.fixture
def server() -> Iterator[ClassifyServer]:
    with ClassifyServer(lambda text, times: classification(float(len(text))), models=("rm",)) as started:
        yield started


def error_of(connection: RewardServer, rows: Any = ROWS, max_length: int = 128, model: str = "rm") -> str:
    with pytest.raises((EngineError, RecipeError)) as error:
        scores(connection, rows, max_length, model)
    return str(error.value)


def test_what_is_sent(server: ClassifyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "s3cret")
    for url in (server.url, server.url.removesuffix("/v1"), server.url.removesuffix("/v1") + "/classify"):
        found = scores(settings(url, api_key_env="JUDGE_KEY"))
        assert found == {number: len(answer) for number, (_, answer) in enumerate(ROWS)}
    assert {headers["authorization"] for headers in server.headers} == {"Bearer s3cret"}
    sent = next(body for body in server.bodies if body["messages"][-1]["content"] == ROWS[0][1])
    assert sent == {
        "model": "rm",
        "messages": [*ROWS[0][0], {"role": "assistant", "content": "The answer is 42."}],
        "use_activation": False,
        "add_special_tokens": False,
        "chat_template_kwargs": {"date_string": "26 Jul 2024"},
    }


def test_many_in_flight_and_none_without_a_key(server: ClassifyServer) -> None:
    server.behaviour = lambda text, times: Response(body=classification(1.5).body, seconds=0.2)
    rows = [(conversation("x"), str(number)) for number in range(24)]
    assert scores(settings(server.url, concurrency=8, max_concurrency=8), rows) == dict.fromkeys(range(24), 1.5)
    assert server.most_in_flight == 8
    assert not any("authorization" in headers for headers in server.headers)


def test_trouble_that_passes_is_waited_for(server: ClassifyServer) -> None:
    turns = {1: bad(429, "busy"), 2: bad(500, "oops")}
    server.behaviour = lambda text, times: turns.get(times, classification(0.25)) if text == "a" else classification(1)
    assert scores(settings(server.url), [(conversation("x"), "a"), (conversation("x"), "b")]) == {0: 0.25, 1: 1.0}
    assert server.times == {"a": 3, "b": 1}


def test_an_answer_that_is_too_long_is_null(server: ClassifyServer) -> None:
    replies = {"just": classification(1.0, tokens=128), "over": classification(2.0, tokens=129)}
    replies["far"] = bad(400, TOO_LONG.format(128))
    server.behaviour = lambda text, times: replies[text]
    rows = [(conversation("x"), text) for text in replies]
    assert scores(settings(server.url), rows) == {0: 1.0, 1: None, 2: None}


@pytest.mark.parametrize(
    ("response", "sentence"),
    [
        (
            bad(401, "wrong key"),
            "{url} refuses access (HTTP 401: wrong key); where it wants a key, let "
            "`score.reward_model.server.api_key_env` name the variable that holds it",
        ),
        (
            Response(status=404, body={"detail": "Not Found"}),
            "{url} does not answer for the model `rm` (HTTP 404: Not Found) at {root}/classify; check "
            "`score.reward_model.model`, and that it is vLLM with a reward model, started with `--runner pooling`",
        ),
        (
            bad(500, "oops"),
            "no score from the reward model `rm`: HTTP 500: oops (attempts: 2); mend it and run again: what has been "
            "judged is kept",
        ),
        (
            classification(float("nan")),
            "no score from the reward model `rm`: the server's answer is no classification (its score is no "
            "number) (attempts: 2); mend it and run again: what has been judged is kept",
        ),
        (
            Response(),
            "no score from the reward model `rm`: the server's answer is no classification (it has no `probs` or "
            "no usage) (attempts: 2); mend it and run again: what has been judged is kept",
        ),
        (
            classification(0.2, 0.8),
            "{url} gives 2 numbers per answer for the model `rm`, one is needed; serve a reward model there, such as "
            "Skywork/Skywork-Reward-V2-Llama-3.1-8B",
        ),
    ],
)
def test_what_ends_the_run(server: ClassifyServer, response: Response, sentence: str) -> None:
    server.behaviour = lambda text, times: response
    assert error_of(settings(server.url), ROWS[:1]) == sentence.format(
        url=server.url, root=server.url.removesuffix("/v1")
    )


def test_a_server_that_is_away(server: ClassifyServer) -> None:
    server.stop()
    assert error_of(settings(server.url, patience_s=0)) == (
        f"no answers from {server.url} (All connection attempts failed) within `patience_s` = 0 s; start the server "
        "or mend its url, then run again: what has been answered is kept"
    )


def test_settings_that_cannot_be_meant(server: ClassifyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_KEY_HERE", raising=False)
    assert error_of(settings(server.url, api_key_env="NO_KEY_HERE")) == (
        "`score.reward_model.server.api_key_env` names the environment variable NO_KEY_HERE, which is not set or "
        "empty; set it: export NO_KEY_HERE=..."
    )
    assert error_of(settings("http://")) == (
        "`score.reward_model.server.urls`: found 'http://', an address such as http://localhost:8000/v1 is needed"
    )
    with pytest.raises(RecipeError) as error:
        read_section(RewardServer, {"extra": {"seed": 1}}, "score.reward_model.server")
    assert "extra" in str(error.value)
    assert not server.bodies


def test_what_has_been_judged_is_kept(server: ClassifyServer, tmp_path: Path) -> None:
    rows = [(conversation("x"), text) for text in ("one", "three", "bad")]
    good = server.behaviour
    server.behaviour = lambda text, times: bad(400, "no") if text == "bad" else good(text, times)
    connection = settings(server.url, concurrency=1, max_concurrency=1)

    def run() -> list[list[Any]]:
        return measure(
            rows,
            ["reward server"],
            tmp_path / "journal.sqlite",
            Silent(),
            "judge",
            lambda todo, skip: judge("rm", connection, todo, skip, max_length=128),
            planned=tmp_path / "planned",
        )

    with pytest.raises(EngineError):
        run()
    server.behaviour = good
    assert run() == [[3.0], [5.0], [3.0]]
    assert server.times == {"one": 1, "three": 1, "bad": 2}
    assert json.dumps(run()) == "[[3.0], [5.0], [3.0]]"
    assert len(server.bodies) == 4
