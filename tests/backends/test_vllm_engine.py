"""The vLLM engine against a real server (the CPU build). Starting it takes most of the time, so tests share one."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from wide_heads import widen

from persyn_hf.backends import chat
from persyn_hf.backends import loading as models
from persyn_hf.backends.answers import Answer, Listed, Request, Sampling
from persyn_hf.backends.engines import Engine
from persyn_hf.backends.engines.settings import VllmSettings
from persyn_hf.backends.engines.transformers import TransformersEngine
from persyn_hf.backends.engines.vllm import VllmEngine
from persyn_hf.backends.engines.vllm_server import telling_lines
from persyn_hf.backends.judging.structured import response_format
from persyn_hf.backends.judging.verdicts import read_verdict, score_form
from persyn_hf.backends.thoughts import split_thoughts
from persyn_hf.errors import EngineError, RecipeError


GREEDY = Sampling(temperature=0.0, top_p=1.0, top_k=0, max_tokens=160, seed=5)
DRAWN = replace(GREEDY, temperature=1.0)
# On CPUs vLLM 0.32 dies of a drawn answer whose prompt it takes in two chunks ("CPU Generator does not use offset").
ARGS = ("--enforce-eager", "--no-enable-chunked-prefill", "--max-model-len", "256")
NEAR_TIE = 1e-3  # nats
needs_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")


@pytest.fixture(scope="module", autouse=True)
def small_cache() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
        yield


@pytest.fixture(scope="module")
def questions(root: Path) -> list[str]:
    lines = (root / "recipes" / "tiny" / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["question"] for line in lines]


@pytest.fixture(scope="module")
def engine(heavy: None, zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmEngine]:
    with open_engine(zoo / "llama-long", tmp_path_factory.mktemp("logs")) as opened:
        yield opened


def open_engine(model: Path, log_dir: Path, **settings: Any) -> VllmEngine:
    return VllmEngine(str(model), settings=VllmSettings(**{"args": ARGS} | settings), dtype="float32", log_dir=log_dir)


def ask(engine: Engine, question: str, sampling: Sampling = GREEDY) -> Request:
    return Request(
        prompt_id=question,
        model=engine.model,
        engine=engine.kind,
        sample_index=0,
        prompt=engine.prepare([{"role": "user", "content": question}]),
        sampling=sampling,
    )


def answer(engine: Engine, requests: list[Request]) -> dict[str, Answer]:
    """Answers by prompt; each request is answered once, under its own name."""
    answers = [found for batch in engine.generate(engine.plan(Listed(requests))) for found in batch]
    assert sorted(found.request.key for found in answers) == sorted(request.key for request in requests)
    return {found.request.prompt_id: found for found in answers}


def said(found: Answer) -> tuple[str, str, int, str | None]:
    return found.text, found.finish_reason, found.num_tokens, found.error


def check_equal(ours: VllmEngine, model: Path, questions: list[str], sampling: Sampling) -> None:
    """Greedy answers equal those of transformers; where they do not, the two tokens were as good as equally likely."""
    with TransformersEngine(str(model), dtype="float32", batch_tokens=20000) as reference:
        reference.context_length = ours.context_length  # type: ignore[misc]
        wanted = answer(reference, [ask(reference, question, sampling) for question in questions])
        found = answer(ours, [ask(ours, question, sampling) for question in questions])
        different = [question for question in questions if said(found[question]) != said(wanted[question])]
        for question in different:
            gap = first_gap(reference, wanted[question], found[question])
            assert gap < NEAR_TIE, f"{question}: {gap} nats between {found[question]} and {wanted[question]}"
    assert len(different) <= 0.01 * len(questions)
    assert all(found[q].num_prompt_tokens == wanted[q].request.prompt.num_tokens for q in questions)


def first_gap(engine: TransformersEngine, one: Answer, other: Answer) -> float:
    """Difference of the two log-probabilities at the first token in which two answers differ."""
    tokenizer, model = engine.tokenizer, engine._model()
    prompt = chat.encode(tokenizer, one.request.prompt.text)
    first, second = ([*chat.encode(tokenizer, a.text), tokenizer.eos_token_id] for a in (one, other))
    at = next(i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    with torch.no_grad():
        scores = model(torch.tensor([prompt + first[:at]])).logits[0, -1].log_softmax(-1)
    return abs(float(scores[first[at]] - scores[second[at]]))


def group_of(engine: VllmEngine) -> int:
    assert engine._server is not None and engine._server._kept is not None
    return engine._server._kept.group


def members(group: int) -> dict[int, str]:
    """Processes of a group that are alive, by their names."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name, _, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue
        state, _, pgrp = rest.split()[:3]
        if int(pgrp) == group and state != "Z":
            found[int(folder.name)] = name
    return found


def wait_until_gone(group: int, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while members(group):
        assert time.monotonic() < deadline, members(group)
        time.sleep(0.1)


def test_what_cannot_be_asked_starts_no_server(zoo: Path, tmp_path: Path) -> None:
    with open_engine(zoo / "llama-long", tmp_path) as engine:
        long = ask(engine, "9 " * 200)
        found = answer(engine, [ask(engine, " "), long])
        assert found[" "].error == "the prompt is empty"
        assert found[long.prompt_id].error == (
            f"the prompt has {long.prompt.num_tokens} tokens, the model's context is 256"
        )
        assert engine._server is None
    assert not list(tmp_path.iterdir())


def test_what_an_answer_depends_on_is_in_the_kind(zoo: Path, tmp_path: Path) -> None:
    plain = VllmEngine(str(zoo / "llama-long"), settings=VllmSettings(), log_dir=tmp_path)
    assert (plain.kind, plain.gpus, plain.context_length) == ("vllm/auto", 1, 512)
    wide = {"tensor_parallel_size": 4, "data_parallel_size": 2, "args": ("--pipeline-parallel-size=2", *ARGS)}
    engine = open_engine(zoo / "llama-long", tmp_path, **wide)
    assert engine.kind == " ".join(("vllm/float32 --pipeline-parallel-size=2", *ARGS))
    assert (engine.gpus, engine.context_length, engine.fixed_batches) == (16, 256, False)
    assert engine.model == plain.model == models.identify(str(zoo / "llama-long"))
    assert engine.params_b == pytest.approx(0.0006, rel=0.5)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--dtype", "half"), "`generate.vllm.args` holds '--dtype'; set `generate.dtype` instead"),
        (("-tp=2",), "`generate.vllm.args` holds '-tp=2'; set `generate.vllm.tensor_parallel_size` instead"),
        (
            ("--chat-template=x.jinja",),
            "`generate.vllm.args` holds '--chat-template=x.jinja', but the teacher's own template is applied before "
            "vLLM is asked; take it out, and change the template in the model's folder",
        ),
        (("--port", "80"), "`generate.vllm.args` holds '--port', which the engine sets itself; take it out"),
        (
            ("--max_model_len", "4k"),
            "`generate.vllm.args`: --max-model-len must be a plain number such as 4096, got '4k'",
        ),
    ],
)
def test_arguments_that_have_their_own_place(zoo: Path, tmp_path: Path, args: tuple[str, ...], message: str) -> None:
    with pytest.raises(RecipeError) as error:
        open_engine(zoo / "llama-long", tmp_path, args=args)
    assert str(error.value) == message


LOG = """\
(APIServer pid=1) INFO 11-21 10:17:13 [api_utils.py:347] version 0.32.0
Loading safetensors checkpoint shards: 100% Completed | 1/1 [00:00<00:00, 128.34it/s]
/site-packages/vllm/dispatcher.py:138: FutureWarning: `reduce_op` is deprecated
  if hasattr(value, "__dict__"):
(EngineCore pid=2) ERROR 11-21 10:20:47 [core.py:1510] EngineCore failed to start.
(EngineCore pid=2) ERROR 11-21 10:20:47 [core.py:1510] Traceback (most recent call last):
(EngineCore pid=2) ERROR 11-21 10:20:47 [core.py:1510]   File "core.py", line 1482, in run_engine_core
(EngineCore pid=2) ERROR 11-21 10:20:47 [core.py:1510]     engine_core = EngineCoreProc(*args)
(EngineCore pid=2) ERROR 11-21 10:20:47 [core.py:1510] torch.OutOfMemoryError: CUDA out of memory. Tried 2 GiB.
(EngineCore pid=2) Traceback (most recent call last):
(EngineCore pid=2)   File "core.py", line 1482, in run_engine_core
(EngineCore pid=2) torch.OutOfMemoryError: CUDA out of memory. Tried 2 GiB.
(APIServer pid=1) pydantic_core.ValidationError: 1 validation error for ModelConfig
(APIServer pid=1)   Value error, too long
nanobind: leaked 514 functions!
 - leaked function "run"
"""


def test_the_lines_of_a_log_that_tell() -> None:
    assert telling_lines(LOG) == [
        "EngineCore failed to start.",
        "torch.OutOfMemoryError: CUDA out of memory. Tried 2 GiB.",
        "pydantic_core.ValidationError: 1 validation error for ModelConfig",
        "Value error, too long",
    ]
    quiet = [f"(APIServer pid=1) INFO 11-21 10:17:13 [a.py:1] {number}" for number in range(20)]
    assert telling_lines("\n".join(quiet)) == quiet[-15:]


@pytest.mark.ci
@pytest.mark.heavy
@needs_vllm
def test_a_start_that_fails_says_why(zoo: Path, tmp_path: Path) -> None:
    with open_engine(zoo / "llama-long", tmp_path, args=("--no-such-flag",)) as engine:
        with pytest.raises(EngineError) as error:
            answer(engine, [ask(engine, "What is 3 + 4?")])
        lines = str(error.value).splitlines()
        assert lines[0] == (
            f"the vLLM server of `{zoo / 'llama-long'}` ended with status 2 before it was ready; "
            f"mend what its log {engine._log} says:"
        )
        assert lines[-1] == "    api_server.py: error: unrecognized arguments: --no-such-flag"


@pytest.mark.heavy
@needs_vllm
def test_a_start_that_takes_too_long_is_ended(zoo: Path, tmp_path: Path) -> None:
    with open_engine(zoo / "llama-long", tmp_path, start_timeout_s=1) as engine:
        with pytest.raises(EngineError, match=r"was not ready in time \(`generate.vllm.start_timeout_s`: 1\); mend"):
            answer(engine, [ask(engine, "What is 3 + 4?")])
        assert not members(group_of(engine))


@needs_vllm
def test_greedy_answers_are_those_of_transformers(engine: VllmEngine, zoo: Path, questions: list[str]) -> None:
    check_equal(engine, zoo / "llama-long", questions[:100], GREEDY)


@needs_vllm
def test_an_answer_that_reaches_the_limit(engine: VllmEngine, zoo: Path, questions: list[str]) -> None:
    check_equal(engine, zoo / "llama-long", questions[:8], replace(GREEDY, max_tokens=7))
    found = answer(engine, [ask(engine, questions[0], replace(GREEDY, max_tokens=7))])[questions[0]]
    assert (found.finish_reason, found.num_tokens) == ("length", 7)


@needs_vllm
def test_drawn_answers_repeat_with_their_seed(engine: VllmEngine, questions: list[str]) -> None:
    seeds = [
        ask(engine, question, replace(DRAWN, seed=(1 << 63) - 1 - n)) for n, question in enumerate(questions[:20])
    ]
    first = {name: said(found) for name, found in answer(engine, seeds).items()}
    assert {name: said(found) for name, found in answer(engine, seeds[::-1]).items()} == first
    others = [replace(request, sampling=replace(DRAWN, seed=7)) for request in seeds]
    changed = [name for name, found in answer(engine, others).items() if said(found) != first[name]]
    assert len(changed) > 10
    only_best = answer(engine, [ask(engine, question, replace(DRAWN, top_k=1)) for question in questions[:5]])
    best = answer(engine, [ask(engine, question) for question in questions[:5]])
    assert [said(only_best[q]) for q in questions[:5]] == [said(best[q]) for q in questions[:5]]


@needs_vllm
def test_bad_and_tight_rows_leave_their_neighbours_alone(engine: VllmEngine, questions: list[str]) -> None:
    alone = answer(engine, [ask(engine, question) for question in questions[:4]])
    tight = ask(
        engine, "Find the largest number in the list 1, 2, " + "33, " * 40 + "5.", replace(GREEDY, max_tokens=999)
    )
    left = 256 - tight.prompt.num_tokens
    assert 0 < left < 150
    bad = [ask(engine, ""), ask(engine, "9 " * 200)]
    good = [ask(engine, question) for question in questions[:4]]
    found = answer(engine, [good[0], bad[0], good[1], tight, bad[1], *good[2:]])
    assert [said(found[question]) for question in questions[:4]] == [
        said(alone[question]) for question in questions[:4]
    ]
    assert [found[request.prompt_id].finish_reason for request in bad] == ["error", "error"]
    assert found[tight.prompt_id].error is None
    assert 0 < found[tight.prompt_id].num_tokens <= left
    assert found[tight.prompt_id].request == tight


@pytest.mark.ci
@needs_vllm
def test_a_crash_in_the_middle_loses_nothing(engine: VllmEngine, questions: list[str]) -> None:
    requests = [ask(engine, question, DRAWN) for question in questions[:120]]
    answers: list[Answer] = []
    before = group_of(engine)
    url = engine._server.url if engine._server else ""
    for batch in engine.generate(engine.plan(Listed(requests))):
        if not answers:
            pid = next(
                pid for pid, name in members(before).items() if name == "VLLM::EngineCor"
            )  # the kernel's 15 letters
            os.kill(pid, signal.SIGKILL)
        answers += batch
    assert sorted(found.request.key for found in answers) == sorted(request.key for request in requests)
    assert {found.error for found in answers} == {None}
    assert not members(before)
    assert group_of(engine) != before
    assert engine._server and engine._server.url == url


@needs_vllm
def test_nothing_is_left_after_close(engine: VllmEngine) -> None:
    group = group_of(engine)
    assert len(members(group)) >= 3  # server, engine, worker
    engine.close()
    assert not members(group)
    engine.close()


USER = """
import os, signal, sys
from pathlib import Path
from persyn_hf.backends.answers import Request, Sampling
from persyn_hf.backends.engines.settings import VllmSettings
from persyn_hf.backends.engines.vllm import VllmEngine
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs start with it ignored
folder, model = Path(sys.argv[1]), sys.argv[2]
settings = VllmSettings(args=("--enforce-eager", "--no-enable-chunked-prefill", "--max-model-len", "256"))
sampling = Sampling(temperature=1.0, top_p=1.0, top_k=0, max_tokens=200, seed=5)
with VllmEngine(model, settings=settings, dtype="float32", log_dir=folder) as engine:
    prompt = engine.prepare([{"role": "user", "content": "What is 3 + 4?"}])
    requests = (
        Request(prompt_id=str(n), model="m", engine="e", sample_index=0, prompt=prompt, sampling=sampling)
        for n in range(10**6)
    )
    for _ in engine.generate([request] for request in requests):
        (folder / "group").write_text(str(engine._server._kept.group))
"""


@needs_vllm
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["llama-long", "qwen-gen", "mistral-eq", "gemma-md"])
def test_every_architecture_answers_as_under_transformers(
    zoo: Path, questions: list[str], tmp_path: Path, name: str
) -> None:
    """The zoo's own answers; but for llama-long, vLLM gets the models with their heads padded."""
    model = zoo / name if name == "llama-long" else widen(zoo / name, tmp_path / name)
    with open_engine(model, tmp_path) as engine:
        check_equal(engine, zoo / name, questions[:500], GREEDY)


def with_special(source: Path, folder: Path, spelled: dict[str, str]) -> Path:
    """A copy of a model that says special tokens, spelled like the values, where it said the keys."""
    shutil.copytree(source, folder)
    path = folder / "tokenizer.json"
    made = json.loads(path.read_text(encoding="utf-8"))
    model = made["model"]
    model["vocab"] = {spelled.get(token, token): number for token, number in model["vocab"].items()}
    model["merges"] = [pair for pair in model["merges"] if not {*pair, "".join(pair)} & spelled.keys()]
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    made["added_tokens"] += [{"id": model["vocab"][token], "content": token, **plain} for token in spelled.values()]
    path.write_text(json.dumps(made), encoding="utf-8")
    return folder


@needs_vllm
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_thoughts_behind_special_tokens_are_kept_as_under_transformers(
    zoo: Path, questions: list[str], tmp_path: Path
) -> None:
    """Both drop other special tokens, and both see the date that our template prints, not the server's."""
    spelled = {"First": "<think>", "So": "</think>", "Wait": "<|odd|>"}
    model = with_special(zoo / "llama-long", tmp_path / "special", spelled)
    template = model / "chat_template.jinja"
    other_day = "'<|user|>' + ('' if strftime_now('%Y') == '2024' else 'Today is another day. ')"
    text = template.read_text(encoding="utf-8")
    assert "'<|user|>'" in text
    template.write_text(text.replace("'<|user|>'", other_day), encoding="utf-8")
    with open_engine(model, tmp_path) as engine:
        check_equal(engine, model, questions[:40], GREEDY)
        found = answer(engine, [ask(engine, question) for question in questions[:40]])
    split = [split_thoughts(one.text) for one in found.values()]
    assert sum(thoughts is not None for _, thoughts in split) > 20
    assert not any("<|odd|>" in one.text or "Wait" in one.text for one in found.values())


@needs_vllm
@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_no_server_outlives_its_user(zoo: Path, tmp_path: Path, end: signal.Signals) -> None:
    user = subprocess.Popen(
        [sys.executable, "-c", USER, str(tmp_path), str(zoo / "llama-long")], start_new_session=True
    )
    try:
        deadline = time.monotonic() + 200
        while not (tmp_path / "group").exists():
            assert user.poll() is None and time.monotonic() < deadline
            time.sleep(0.5)
        group = int((tmp_path / "group").read_text())
        assert len(members(group)) >= 3
        user.send_signal(end)
        user.wait(30)
        wait_until_gone(group)
    finally:
        user.kill()


@needs_vllm
@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="the model that crashes does so on CPUs only")
def test_a_server_that_keeps_dying_ends_the_run(zoo: Path, tmp_path: Path) -> None:
    with open_engine(zoo / "qwen-gen", tmp_path, max_restarts=0) as engine:
        with pytest.raises(EngineError) as error:
            answer(engine, [ask(engine, "What is 3 + 4?")])
    lines = str(error.value).splitlines()
    assert "died and `generate.vllm.max_restarts` (0) is used up; mend what its log" in lines[0]
    assert "    RuntimeError: Unsupported CPU attention configuration: head_dim=24 isa=1 kv_cache_idx=0" in lines


@needs_vllm
def test_answers_are_held_to_a_form_from_their_first_token(heavy: None, zoo: Path, tmp_path: Path) -> None:
    form = response_format("json_schema", "pointwise", (1, 10), with_reason=False)
    free = open_engine(zoo / "llama-long", tmp_path)
    with VllmEngine(
        str(zoo / "llama-long"),
        settings=VllmSettings(args=list(ARGS)),
        dtype="float32",
        response_format=form,
        log_dir=tmp_path,
    ) as engine:
        assert engine.kind != free.kind, "the journal tells replies in a form from others"
        asked = [ask(engine, question, sampling) for question in ("1 + 1?", "Why?") for sampling in (GREEDY, DRAWN)]
        replies = [found for batch in engine.generate(engine.plan(Listed(asked))) for found in batch]
    assert len(replies) == 4
    for found in replies:
        assert read_verdict(found.text, score_form(1, 10), is_cut=False).value in range(1, 11), found
        assert list(json.loads(found.text)) == ["score"]
