"""What a user gets for bad input: one sentence on stderr, exit code 2, no traceback, nothing half-written."""

import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import persyn_hf
from persyn_hf.cli.main import main


QUESTIONS = [{"question": f"What is {a} + {a % 7 + 2}?", "answer": str(a + a % 7 + 2)} for a in range(10, 40)]


@pytest.fixture
def recipe(tmp_path: Path, zoo: Path) -> Path:
    """A recipe over two teachers of the zoo and 30 questions, up to the responses of the calibration prompts."""
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    values = {
        "name": "bad",
        "until": "score",
        "teachers": [{"name": n, "model": str(zoo / n), "family": "x"} for n in ("qwen-gen", "mistral-eq")],
        "students": [{"name": "s", "model": str(zoo / "qwen-student")}],
        "prompts": {
            "path": "./q.jsonl",
            "columns": {"prompt": "question", "reference": "answer"},
            "references": "math",
            "calibration": 6,
            "dev": 2,
        },
        "generate": {"samples": 1, "max_tokens": 40},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def run(capsys: pytest.CaptureFixture[str], recipe: Path, *extra: str) -> str:
    """Run the recipe, expect exit code 2 and one line of stderr; return it."""
    code = main(["run", str(recipe), "--store", str(recipe.parent / "store"), *extra])
    captured = capsys.readouterr()
    assert code == 2, captured.out
    assert "Traceback" not in captured.err
    assert captured.err.count("\n") == 1, captured.err
    return captured.err.strip()


def stored(recipe: Path) -> list[str]:
    return sorted(p.name for p in (recipe.parent / "store").glob("*--*"))


def test_a_wrong_column_of_a_test_file_is_told_before_anything_is_paid_for(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = recipe.parent / "q.jsonl"
    task = json.dumps({"name": "t", "path": str(file), "columns": {"question": "frage"}})
    changes = ["--set", "until=null", "--set", "strategies=[mix]", "--set", f"evaluate.tasks=[{task}]"]
    said = run(capsys, recipe, *changes)
    assert said.startswith(f"error: {file} has no column `frage`")
    assert main(["plan", str(recipe), "--store", str(recipe.parent / "store"), *changes]) == 2
    assert stored(recipe) == []


def test_recipe_faults(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "unknown key `seeed`, did you mean `seed`?" in run(capsys, recipe, "--set", "seeed=1")
    assert "generate.samples: input should be a valid integer, got 'two'" in run(
        capsys, recipe, "--set", "generate.samples=two"
    )
    assert not stored(recipe)


def test_missing_files(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = run(capsys, recipe, "--set", "prompts.path=/no/such/q.jsonl")
    assert message == (
        "error: prompts.path: /no/such/q.jsonl does not exist; paths in a recipe count from that file, those of "
        "--set from the working directory"
    )
    assert "does not exist" in run(capsys, recipe.parent / "none.yaml")
    students = "students=[{name: s, model: /no/such/model}]"
    assert "s.model: /no/such/model does not exist" in run(capsys, recipe, "--set", students)
    assert not stored(recipe)


def test_a_pinned_input_that_is_not_there_is_named_before_anything_runs(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = run(capsys, recipe, "--set", "inputs={responses: x/y@v1}")
    assert message.startswith("error: x/y@v1 is not in the store ")
    assert not stored(recipe)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no rows; `prompts` needs at least one"),
        ([{"text": "x"}], "q.jsonl has no column `question` for `columns.prompt` (known: text)\n"),
        (
            [{"problem": "1 + 1", "solution": "2"}],
            "has no column `question` for `columns.prompt`, did you mean `problem`? (known: problem, solution); write "
            "`prompts: {columns: {prompt: problem}}`",
        ),
        (
            [{"questions": "1 + 1", "prompt": "2"}],
            "did you mean `questions`? (known: questions, prompt); write `prompts: {columns: {prompt: questions}}`",
        ),
        (
            [{"question": "1 + 1", "target": "2"}],
            "has no column `answer` for `columns.reference`, did you mean `target`? (known: question, target); write "
            "`prompts: {columns: {reference: target}}`",
        ),
        (QUESTIONS[:3], "gives 3 usable prompts, but `calibration` 6, `dev` 2 ask for 8"),
    ],
)
def test_prompt_files(
    recipe: Path, capsys: pytest.CaptureFixture[str], rows: list[dict[str, str]], message: str
) -> None:
    (recipe.parent / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert message.rstrip("\n") in (said := run(capsys, recipe))
    assert not message.endswith("\n") or said.endswith(message.rstrip("\n"))
    assert not stored(recipe)


def test_duplicates_empty_and_unparsable_prompts_are_dropped_and_counted(recipe: Path) -> None:
    from persyn_hf.store.local import Store

    rows = [
        *QUESTIONS,
        QUESTIONS[0],
        {"question": "  ", "answer": "1"},
        {"question": 7, "answer": "1"},
        {"question": "Is it?", "answer": "no number \\frac{"},
    ]
    (recipe.parent / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    store = recipe.parent / "store"
    assert main(["run", str(recipe), "--store", str(store), "--set", "until=prompts"]) == 0
    counts = Store(store).get("local/bad-prompts@v1").manifest.counts
    assert counts["read"] == len(rows)
    assert counts["duplicates"] == 1
    assert counts["empty"] == 1
    assert counts["not_text"] == 1
    assert counts["reference_unparsable"] == 1
    assert counts["rows"] == len(QUESTIONS)


@pytest.mark.parametrize("missing", ["tokenizer", "chat_template"])
def test_student_without_tokenizer_or_template(
    recipe: Path, capsys: pytest.CaptureFixture[str], zoo: Path, missing: str
) -> None:
    broken = recipe.parent / "student"
    shutil.copytree(zoo / "qwen-student", broken)
    for file in broken.glob("tokenizer*" if missing == "tokenizer" else "chat_template*"):
        file.unlink()
    message = run(capsys, recipe, "--set", f"students=[{{name: s, model: {broken}}}]")
    assert missing.replace("_", " ") in message
    assert str(broken) in message
    assert "models--local--bad" not in stored(recipe)


def test_store_that_cannot_be_written(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (recipe.parent / "file").write_text("not a folder")
    code = main(["run", str(recipe), "--store", str(recipe.parent / "file" / "store")])
    message = capsys.readouterr().err
    assert code == 2
    assert "Traceback" not in message
    assert "store" in message


@pytest.mark.heavy
def test_full_disk(recipe: Path) -> None:
    """A limit on the size of files stands for the full disk; the kernel answers writes with an error all the same."""
    store = recipe.parent / "store"
    done = subprocess.run(
        [sys.executable, "-m", "persyn_hf.cli", "run", str(recipe), "--store", str(store)],
        capture_output=True,
        text=True,
        preexec_fn=lambda: (
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)),
        ),
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert main(["run", str(recipe), "--store", str(store), "--set", "until=prompts"]) == 0, "room again: it goes on"


@pytest.mark.parametrize("name", ["*.parquet", "persyn.json", "README.md"])
def test_damaged_artifact_is_found_before_reuse(recipe: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    store = recipe.parent / "store"
    assert main(["run", str(recipe), "--store", str(store), "--set", "until=prompts"]) == 0
    capsys.readouterr()
    blob = next((store / "datasets--local--bad-prompts" / "snapshots").rglob(name)).resolve()
    blob.chmod(0o644)
    data = bytearray(blob.read_bytes())
    data[0 if name == "persyn.json" else len(data) // 2] ^= 1  # elsewhere a manifest may no longer be found: made anew
    blob.write_bytes(bytes(data))
    message = run(capsys, recipe)
    assert "local/bad-prompts@v1" in message
    assert name.strip("*") in message
    assert main(["artifacts", "verify", "local/bad-prompts@v1", "--store", str(store)]) == 2
    assert name.strip("*") in capsys.readouterr().err


def test_tag_with_other_content(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = str(recipe.parent / "store")
    pinned = ["--set", "until=prompts", "--set", "version=v1"]
    assert main(["run", str(recipe), "--store", store, *pinned]) == 0
    capsys.readouterr()
    message = run(capsys, recipe, *pinned, "--set", "seed=5")
    assert "local/bad-prompts@v1 already holds digest" in message
    assert "name another `version`" in message
    assert main(["run", str(recipe), "--store", store, "--set", "until=prompts", "--set", "seed=5"]) == 0
    assert "local/bad-prompts@v2" in capsys.readouterr().out, "without a version the next free one is taken"


@pytest.mark.heavy
def test_too_little_memory_is_told_before_a_library_spins(recipe: Path) -> None:
    command = 'ulimit -v 500000; exec "$@"'
    cli = [sys.executable, "-m", "persyn_hf.cli", "run", str(recipe), "--store", str(recipe.parent / "store")]
    ended = subprocess.run(["bash", "-c", command, "x", *cli], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert "memory that a process may allocate is 512 MB" in ended.stderr and ended.stderr.count("\n") == 1


@pytest.mark.heavy
def test_second_run_and_control_c(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, longer = recipe.parent / "store", ["--set", "generate.samples=20"]
    command = [sys.executable, "-m", "persyn_hf.cli", "run", str(recipe), "--store", str(store), *longer]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a background job ignores it
    )
    for _ in range(1200):  # until it generates
        status = store / ".persyn" / "status.json"
        if process.poll() is not None or (status.exists() and '"generate' in status.read_text()):
            break
        time.sleep(0.05)
    assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGSTOP)  # else it may be done before the second run is told
    message = run(capsys, recipe)
    assert str(process.pid) in message, "the second run is told who holds the store"
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert errors.startswith("interrupted: what was answered and finished is kept; go on with: persyn run")
    assert main(["run", str(recipe), "--store", str(store), *longer]) == 0, "and it does go on"


@pytest.mark.parametrize("command", [["run", "x.yaml", "--st", "a=b"], ["artifacts", "ls", "--sto", "x"], ["--vers"]])
def test_options_are_taken_by_their_whole_names_only(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 2
    assert "unrecognized arguments: --" in capsys.readouterr().err


@pytest.mark.parametrize("serves", [True, False])
def test_a_server_that_is_ended_says_nothing_of_going_on(
    serves: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["space"] if serves else ["artifacts", "ls"]

    def ended(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    place = "persyn_hf.space.collection.open_shelf" if serves else "persyn_hf.store.local.Store.artifacts"
    monkeypatch.setattr(place, ended)
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert main([*command, "--store", str(tmp_path)]) == 130
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ("go on with" in capsys.readouterr().err) is not serves


@pytest.mark.parametrize("name", ["leer.csv", "leer.jsonl"])
def test_an_empty_file_has_nothing_to_route(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    router = persyn_hf.train_router(
        [
            {"prompt": f"{word} {number}", "teacher": teacher, "reward": float((word == "sum") == (teacher == "a"))}
            for number in range(12)
            for word in ("sum", "poem")
            for teacher in "ab"
        ]
    )
    router.save(tmp_path / "router")
    (tmp_path / name).write_text("\n")
    assert main(["route", str(tmp_path / "router"), str(tmp_path / name)]) == 2
    assert f"{name} is empty: it holds no rows" in capsys.readouterr().err
    assert main(["route", str(tmp_path / "nix"), str(tmp_path / name)]) == 2
    assert f"the folder {tmp_path / 'nix'} does not exist" in capsys.readouterr().err
