"""Scoring in the processes of `accelerate launch`: the same numbers, and nothing is lost, whoever is killed."""

import json
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from scoring_run import ENVIRONMENT, rewards

from persyn_hf.backends.scoring import likelihood
from persyn_hf.backends.scoring.launched import read_left
from persyn_hf.cli.main import main
from persyn_hf.errors import InputError
from persyn_hf.store.local import Store


PROMPTS, MANY = 300, 600  # so many that every kill finds it at work: two, and up to five
RUN = Path(__file__).parent / "scoring_run.py"


@pytest.fixture(scope="session")
def configs(heavy: None, root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Accelerate configs by number of processes."""
    one = tmp_path_factory.mktemp("accelerate") / "cpu-1.yaml"
    one.write_text("{distributed_type: 'NO', use_cpu: true, num_machines: 1, num_processes: 1, mixed_precision: 'no'}")
    return {"none": "none", "one": str(one), "two": str(root / "recipes" / "accelerate" / "cpu-2.yaml")}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    return rewards(tmp_path_factory.mktemp("undisturbed"), None, PROMPTS)


@pytest.fixture(scope="module")
def long_undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    return rewards(tmp_path_factory.mktemp("undisturbed"), None, MANY)


def assert_same(found: dict[str, list[Any]], expected: dict[str, list[Any]]) -> None:
    """Processes of accelerate have fewer threads than this one, which may change the last bits."""
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name] == (pytest.approx(values, rel=1e-6, abs=1e-5) if isinstance(values[0], float) else values)


def start(folder: Path, config: str, prompts: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, str(RUN), str(folder), config, str(prompts)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True, env=ENVIRONMENT)


def relatives(folder: Path) -> Iterator[tuple[psutil.Process, str]]:
    """Processes that work for a run in `folder`, with their command lines."""
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if str(folder) in line and process.status() != psutil.STATUS_ZOMBIE:
            yield process, line


def written(folder: Path) -> list[int]:
    """Rows whose values the processes of the newest launch have written."""
    lines = [line for path in folder.glob("*/measured-*.jsonl") for line in path.read_text().splitlines(keepends=True)]
    return [number for line in lines if line.endswith("\n") for number in json.loads(line)[0]]


def wait_until(condition: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def scored(folder: Path) -> int:
    """Values in the journal."""
    address = f"{(folder / 'journal.sqlite').as_uri()}?mode=ro"
    with suppress(sqlite3.OperationalError), closing(sqlite3.connect(address, uri=True)) as db:  # not founded yet
        return int(db.execute("SELECT count(*) FROM derived").fetchone()[0])
    return 0


def disturb(folder: Path, config: str, victim: str, rows: int, prompts: int = PROMPTS) -> tuple[list[int], str]:
    """Kill the run or a process of it, or interrupt it as Ctrl-C does, once so many rows are scored.

    Returns the rows that the processes of this run have written, and what the run said if it could.
    """
    process = start(folder, config, prompts)
    try:
        wait_until(lambda: process.poll() is not None or scored(folder) >= rows)
        assert process.poll() is None, "the run was over before the kill"
        if victim == "run":
            process.kill()
        elif victim == "interrupted":
            process.terminate()
        else:
            next(found for found, line in relatives(folder) if role(line) == victim).kill()
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    wait_until(lambda: not list(relatives(folder)), 30)
    return written(folder), said.decode()


def role(line: str) -> str:
    words = (("supervised.py", "keeper"), ("accelerate.commands.launch", "launcher"), ("scoring.worker", "worker"))
    return next((name for word, name in words if word in line), "run")


def finish(folder: Path, config: str, prompts: int = PROMPTS) -> tuple[list[int], dict[str, list[Any]]]:
    """Let the run come to its end; returns the rows written by its processes, and its rewards."""
    process = start(folder, config, prompts)
    _, said = process.communicate(timeout=250)
    assert (process.returncode, said.decode()) == (0, "")
    found: dict[str, list[Any]] = json.loads((folder / "rewards.json").read_text())
    return written(folder), found


@pytest.mark.ci
def test_killed_scoring_goes_on_where_it_was(
    tmp_path: Path, configs: dict[str, str], undisturbed: dict[str, list[Any]]
) -> None:
    first, said = disturb(tmp_path, configs["two"], "run", 20)
    assert said == ""
    second, said = disturb(tmp_path, configs["two"], "worker", len(first) + 20)
    assert said.startswith("EngineError: `accelerate launch` ended with status 1 while ")
    log = tmp_path / "likelihood" / "log"
    assert f"what was measured is kept: mend the cause and run again; its log {log} says:\n" in said
    assert re.search(r"\n    failed \(exitcode: -9\) local_rank: \d \(pid: \d+\) of binary: \S+\n$", said)
    third, found = finish(tmp_path, configs["two"])
    assert_same(found, undisturbed)
    assert sorted(first + second + third) == list(range(2 * PROMPTS))  # each once: only what was in flight was lost


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("processes", "victims"),
    [
        ("none", ("run", "interrupted", "run")),
        ("one", ("run", "worker", "launcher", "keeper", "interrupted")),
        ("two", ("launcher", "keeper", "run")),
        ("two", ("interrupted", "worker", "launcher")),
    ],
)
def test_whoever_is_killed_whenever(
    tmp_path: Path,
    configs: dict[str, str],
    long_undisturbed: dict[str, list[Any]],
    processes: str,
    victims: tuple[str, ...],
) -> None:
    rng, rows = random.Random(processes), []
    for victim in victims:
        before = len(rows) if processes != "none" else scored(tmp_path)
        written_now, said = disturb(tmp_path, configs[processes], victim, before + rng.randrange(1, 20), MANY)
        rows += written_now
        expected = {"run": "", "interrupted": "Traceback "}.get(victim, "EngineError: `accelerate launch` ended with ")
        assert said.startswith(expected), said
        assert (said == "") == (victim == "run"), said
    written_now, found = finish(tmp_path, configs[processes], MANY)
    assert_same(found, long_undisturbed)
    assert processes == "none" or sorted(rows + written_now) == list(range(2 * MANY))


@pytest.mark.slow
def test_two_runs_at_a_time(tmp_path: Path, configs: dict[str, str], undisturbed: dict[str, list[Any]]) -> None:
    folders = [tmp_path / "left", tmp_path / "right"]
    runs = []
    for folder in folders:
        folder.mkdir()
        runs.append(start(folder, configs["two"], PROMPTS))
    for folder, process in zip(folders, runs, strict=True):
        assert process.communicate(timeout=250)[1] == b""
        assert_same(json.loads((folder / "rewards.json").read_text()), undisturbed)


def test_a_fault_of_the_processes_is_the_sentence_it_would_be_without_them(
    tmp_path: Path, configs: dict[str, str], zoo: Path
) -> None:
    model = shutil.copytree(zoo / "qwen-student", tmp_path / "model")
    (model / "chat_template.jinja").unlink()
    said = []
    for name in ("none", "one"):
        config = None if name == "none" else configs[name]
        with pytest.raises(InputError) as fault:
            rewards(tmp_path / name, config, 2, model=str(model))
        said.append(str(fault.value))
    assert said[0] == said[1]
    assert said[0].startswith(f"the tokenizer of `{model}` has no chat template; use a chat model")


def test_what_a_killed_run_left_is_read_up_to_the_line_it_was_writing(tmp_path: Path) -> None:
    assert list(read_left(tmp_path)) == []
    turns = [{"role": "user", "content": "\ud83d"}]  # half of a surrogate pair
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps([turns, text]) + "\n" for text in "abcd"))
    (tmp_path / "task.json").write_text(json.dumps({"under": ["x", 1]}))
    assert list(read_left(tmp_path)) == []
    (tmp_path / "measured-0.jsonl").write_text("[[3, 1], [[0.1, 2], [0.5, 3]]]\n[[0], [[7")
    (tmp_path / "measured-1.jsonl").write_text("\0\0\n")  # a power cut
    assert list(read_left(tmp_path)) == [(["x", 1], (turns, "d"), [0.1, 2]), (["x", 1], (turns, "b"), [0.5, 3])]
    (tmp_path / "task.json").unlink()  # killed while the folder was emptied
    assert list(read_left(tmp_path)) == []


@pytest.mark.parametrize("name", ["cpu-2", "gpu-1", "gpu-4", "gpu-8"])
def test_the_configs_are_accelerates(root: Path, name: str) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(root / "recipes" / "accelerate" / f"{name}.yaml"))
    kind, processes = name.split("-")
    assert (config.num_processes, config.num_machines) == (int(processes), 1)
    assert (config.use_cpu, config.mixed_precision) == ((True, "no") if kind == "cpu" else (False, "bf16"))
    assert config.distributed_type == ("NO" if processes == "1" else "MULTI_GPU")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "cannot be read: ParserError: while parsing a flow node"),
        ("[1]", "cannot be read: AttributeError: 'list' object has no attribute 'get'"),
        ("{distributed_type: 'NO', prozesse: 2}", "cannot be read: ValueError: The config file at CONFIG had unknown"),
        (
            "{distributed_type: MULTI_GPU, num_processes: 8, num_machines: 2}",
            "names 2 machines, and answers are scored on one; set `num_machines: 1`",
        ),
        (
            "{distributed_type: MULTI_CPU, num_processes: 2, use_cpu: true}",
            "is of type MULTI_CPU, of which accelerate starts one process only unless MPI is configured; write "
            "`distributed_type: MULTI_GPU` and `use_cpu: true` for processes on the CPU",
        ),
    ],
)
def test_a_config_that_cannot_be_used_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(text)
    with pytest.raises(InputError) as fault:
        rewards(tmp_path, str(config), 2)
    assert str(fault.value).startswith(f"the accelerate config {config} {sentence.replace('CONFIG', str(config))}")


def recipe(folder: Path, zoo: Path, **score: Any) -> Path:
    (folder / "q.jsonl").write_text(
        "".join(json.dumps({"q": f"What is {a} + 2?", "a": str(a + 2)}) + "\n" for a in range(8))
    )
    values = {
        "name": "processes",
        "until": "score",
        "teachers": [{"name": name, "model": str(zoo / name)} for name in ("qwen-gen", "mistral-eq")],
        "students": [{"name": "s", "model": str(zoo / "qwen-student")}],
        "prompts": {"path": "./q.jsonl", "columns": {"prompt": "q", "reference": "a"}, "calibration": 6, "dev": 2},
        "generate": {"samples": 1, "max_tokens": 40},
        "score": score,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_a_run_with_processes_gives_the_digest_of_one_without(
    tmp_path: Path,
    zoo: Path,
    configs: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, plain, launched = str(recipe(tmp_path, zoo)), str(tmp_path / "plain"), str(tmp_path / "launched")
    assert main(["run", path, "--store", plain]) == 0
    monkeypatch.setattr(likelihood, "LikelihoodScorer", lambda *_, **__: pytest.fail("measured in this process"))
    with_two = ["run", path, "--set", f"score.accelerate={configs['two']}", "--store"]
    assert main([*with_two, launched]) == 0
    digests = [Store(Path(store)).get("local/processes-rewards-s@v1").digest for store in (plain, launched)]
    assert digests[0] == digests[1]
    capsys.readouterr()
    assert main([*with_two, plain]) == 0  # where it is measured is no part of the fingerprint
    assert "all steps are done: 0 run now, 4 reused" in capsys.readouterr().out


def test_refusals_at_the_command_line(
    tmp_path: Path, zoo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(recipe(tmp_path, zoo))
    run = ["run", path, "--store", str(tmp_path / "store")]

    def refuse(*more: str) -> str:
        assert main([*run, *more]) == 2
        return capsys.readouterr().err.removeprefix("error: ").strip()

    missing = tmp_path / "no" / "such.yaml"
    assert refuse("--set", f"score.accelerate={missing}") == (
        f"score.accelerate: {missing} does not exist; paths in a recipe count from that file, those of --set from the "
        "working directory"
    )
    assert refuse("--set", "score.accelerate=/a/b.yaml", "--set", "score.device=cuda:1") == (
        "score: `device: cuda:1` and `accelerate` contradict each other; leave `device` out, `accelerate` "
        "says where to measure"
    )
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert refuse() == (
        "`persyn run` was started as one of 2 processes (WORLD_SIZE=2); start it once, without `accelerate launch`, "
        "and name the config in the recipe: `score: {accelerate: FILE}`"
    )
    assert not (tmp_path / "store").exists()
