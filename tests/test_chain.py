"""The whole chain on the tiny world: every stage with its real models, killed, resumed, verified, damaged."""

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from smoke_run import TEACHERS, command

from persyn_hf.cli.main import main
from persyn_hf.store.local import Store


def digests(store: Path) -> dict[str, str]:
    return {f"{item.repo}@{item.tag}": item.digest for item in Store(store).artifacts()}


@pytest.fixture(scope="module")
def undisturbed(finished: tuple[Path, float], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A copy of the finished store, which may be damaged, and the seconds that the run took."""
    store = shutil.copytree(finished[0], tmp_path_factory.mktemp("undisturbed") / "store", symlinks=True)
    return store, finished[1]


def test_the_chain_ends_in_evaluated_students(
    undisturbed: tuple[Path, float], capsys: pytest.CaptureFixture[str]
) -> None:
    store = undisturbed[0]
    names = {ref.split("@")[0].removeprefix("tiny/smoke-") for ref in digests(store)}
    for strategy in ("persyn", "oracle", "car"):
        for kind in ("assignments", "responses", "sft", "student", "evaluation"):
            assert f"{kind}-qwen-student-{strategy}" in names
    sft = Store(store).get("tiny/smoke-sft-qwen-student-persyn@v1")
    assert sft.manifest.counts["rows"] <= 12 + 6, "calibration and pool, one teacher each"
    assert main(["run", *command(store)[1:]]) == 0
    assert "all steps are done: 0 run now, 25 reused" in capsys.readouterr().out, "a second run reuses everything"


def test_loading_as_a_stranger_would(undisturbed: tuple[Path, float]) -> None:
    from datasets import load_dataset
    from huggingface_hub import snapshot_download

    from persyn_hf import load_artifact

    store = undisturbed[0]
    folder = snapshot_download(
        "tiny/smoke-responses", repo_type="dataset", revision="v1", cache_dir=store, local_files_only=True
    )
    theirs = load_dataset(folder, "qwen-gen", split="dev", cache_dir=str(store.parent / "cache"))
    ours = load_artifact("tiny/smoke-responses@v1", config="qwen-gen", split="dev", store=store)
    assert theirs.to_list() == ours.to_list()
    assert len(ours) == 6 * 2


def test_one_changed_byte_anywhere_fails_verification_by_name(
    undisturbed: tuple[Path, float], capsys: pytest.CaptureFixture[str]
) -> None:
    store, last = undisturbed[0], "tiny/smoke-evaluation-qwen-student-persyn@v1"
    assert main(["artifacts", "verify", last, "--store", str(store)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("tiny/smoke-prompts@v1" in line for line in lines), "it walks to the prompts"
    rng = random.Random(0)
    chain = [line.split()[1].split("@")[0].replace("/", "--") for line in lines if line.startswith("ok ")]
    files = [file for name in chain for file in store.glob(f"*--{name}/snapshots/*/**/*") if file.is_file()]
    assert len(files) > 40
    for file in rng.sample(files, 25):
        blob = file.resolve()
        original = blob.read_bytes()
        blob.chmod(0o644)
        place = rng.randrange(len(original))
        blob.write_bytes(original[:place] + bytes([original[place] ^ 1]) + original[place + 1 :])
        assert main(["artifacts", "verify", last, "--store", str(store)]) == 2, file
        message = capsys.readouterr().err
        assert file.name in message, (file, message)
        blob.write_bytes(original)
    assert main(["artifacts", "verify", last, "--store", str(store)]) == 0


@pytest.mark.parametrize(
    "kills",
    [pytest.param(2, marks=pytest.mark.ci), pytest.param(20, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])],
)
def test_killed_at_random_moments_the_chain_ends_with_the_same_digests(
    undisturbed: tuple[Path, float], tmp_path: Path, kills: int
) -> None:
    expected, seconds = digests(undisturbed[0]), undisturbed[1]
    store, rng = tmp_path / "store", random.Random(kills)
    arguments = [sys.executable, "-m", "persyn_hf.cli", *command(store)]
    for _ in range(kills):
        process = subprocess.Popen(
            arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
        try:
            process.wait(timeout=rng.uniform(1.0, max(4.0, seconds * (0.9 if kills < 10 else 0.5))))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        _, errors = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), errors.decode()
    subprocess.run(arguments, check=True, capture_output=True)
    assert digests(store) == expected


def test_report_says_what_the_artifacts_hold(
    undisturbed: tuple[Path, float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = undisturbed[0]
    arguments = ["report", *command(store)[1:], "--out", str(tmp_path)]
    assert main(arguments) == 0
    rows = {
        table: {line.split(",")[0]: line for line in (tmp_path / f"{table}-qwen-student.csv").read_text().splitlines()}
        for table in ("allocation", "routers", "cost")
    }
    results = [line.split(",") for line in (tmp_path / "results.csv").read_text().splitlines()]
    matrix, everything = 12 * len(TEACHERS) * 2, (12 + 6) * len(TEACHERS) * 2
    assert rows["cost"]["persyn"].startswith(f"persyn,{matrix},{6 * 2},{matrix + 6 * 2},{everything}")
    assert rows["cost"]["oracle"].endswith(f"{everything},{everything},1")
    persyn = Store(store).read_dataset(Store(store).get("tiny/smoke-assignments-qwen-student-persyn@v1"), split="pool")
    share = sum(teacher == "qwen-gen" for teacher in persyn["teacher"]) / len(persyn)
    assert float(rows["allocation"]["qwen-gen"].split(",")[1]) == pytest.approx(share)
    text = (tmp_path / "report.md").read_text()
    assert f"| qwen-gen | {share:.1%} |" in text and f"| {everything} | {everything} | 1.0x |" in text
    items = Store(store).read_dataset(Store(store).get("tiny/smoke-evaluation-qwen-student-persyn@v1"))
    (accuracy,) = (float(cells[3]) for cells in results if cells[1] == "persyn")
    assert accuracy == pytest.approx(sum(items["is_correct"]) / len(items))
    assert any(
        line.split(" | ")[1] == "persyn" and line.split(" | ")[3].startswith(f"{100 * accuracy:.1f} [")
        for line in text.splitlines()
        if line.count(" | ") >= 3
    )
    for figure in ("allocation-qwen-student.png", "strategies-qwen-student.svg", "report.md"):
        assert (tmp_path / figure).stat().st_size > 500
    assert main([*arguments, "--set", "strategies=[persyn, mix]"]) == 0
    said = capsys.readouterr().out
    assert "not in the report, for these steps have not run with these settings: assignments-qwen-student-mix" in said
    assert main([*arguments, "--set", "seed=1"]) == 2
    assert (
        "nothing of" in (said := capsys.readouterr().err) and "was made by other settings: repeat their --set" in said
    )
    assert main(["plan", *arguments[1:-2]]) == 0
    assert "Answers that `persyn run` will pay for" not in capsys.readouterr().out


def test_status_list_and_show(undisturbed: tuple[Path, float], capsys: pytest.CaptureFixture[str]) -> None:
    store = ["--store", str(undisturbed[0])]
    assert main(["status", *store]) == 0
    assert capsys.readouterr().out.startswith("tiny/smoke: finished, process ")
    assert main(["artifacts", "ls", *store]) == 0
    assert "tiny/smoke-router-qwen-student@v1" in capsys.readouterr().out
    assert main(["artifacts", "show", "tiny/smoke-student-qwen-student-car@v1", *store]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert "tiny/smoke-student-qwen-student-car@v1" in shown[0]
    assert any(line.lstrip("│├└─ ").startswith("tiny/smoke-prompts@v1  prompts") for line in shown)
    assert main(["artifacts", "show", "tiny/smoke-student-qwen-student-cra@v1", *store]) == 2
    assert "did you mean tiny/smoke-student-qwen-student-car@v1?" in capsys.readouterr().err


def test_status_before_any_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--store", str(tmp_path / "none")]) == 1
    assert "no run was started on the store" in capsys.readouterr().out
