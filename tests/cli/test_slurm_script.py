"""`persyn slurm` writes a script that sbatch and bash take, and says what runs where."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from slurm_cluster import RealSlurm, StandIn, run, why_not

from persyn_hf.cli import slurm
from persyn_hf.cli.main import main


RECIPE = """\
name: study
teachers: [{name: small, model: x/a}, {name: large, model: x/b, vllm: {tensor_parallel_size: 4}}]
students: [{name: s, model: x/s}]
prompts: {path: ./prompts.jsonl, calibration: 20, dev: 10, pool: 10}
generate: {engine: vllm}
strategies: [persyn]
train_student: {batch_size: 96, per_device_batch_size: 2}
"""
TWO_BY_EIGHT = {"kind": "slurm", "replicas": 2, "gpus_per_replica": 8}


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "1 + 1?", "reference": "2"}\n' * 40)
    path = tmp_path / "my recipe.yaml"
    path.write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return path


def wrote(recipe: Path, *options: str) -> str:
    out = recipe.parent / "job.sh"
    assert main(["slurm", str(recipe), "--nodes", "2", "--out", str(out), "--force", *options]) == 0
    checked = subprocess.run(["bash", "-n", str(out)], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")
    return out.read_text()


def words_of_run(text: str) -> list[str]:
    """The command line of the driver."""
    (line,) = re.findall(r"\n\n(.*?) &\nrun=", text, re.DOTALL)
    return shlex.split(line.replace("\\\n", ""))


def sets(text: str) -> dict[str, Any]:
    words = words_of_run(text)
    found = [words[at + 1].partition("=") for at, word in enumerate(words) if word == "--set"]
    return {key: yaml.safe_load(value) for key, _, value in found}


def test_the_script(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ("--gpus-per-node", "8", "--time", "1-12:00:00", "--partition", "gpu", "--account", "lab")
    text = wrote(recipe, *more, "--sbatch=--qos=high", "--set", "score.alpha=0.3", "--store", "there")
    directives = [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH ")]
    assert directives == [
        "--job-name=persyn-study",
        "--nodes=2",
        "--ntasks-per-node=1",
        "--gres=gpu:8",
        "--exclusive",
        "--mem=0",
        "--time=1-12:00:00",
        "--partition=gpu",
        "--account=lab",
        "--qos=high",
        "--signal=B:USR1@300",
        "--requeue",
        "--open-mode=append",
        f"--chdir={recipe.parent}",
        "--output=persyn-study-%j.log",
    ]
    assert text.startswith("#!/bin/bash\n#SBATCH "), "sbatch reads no further than the first command"
    assert words_of_run(text)[:9] == [
        *(sys.executable, "-m", "persyn_hf.cli", "run", str(recipe)),
        *("--store", str(recipe.parent / "there"), "--journal", "${TMPDIR:-/tmp}"),
    ]
    assert sets(text) == {
        "score.alpha": 0.3,
        "generate.executor": TWO_BY_EIGHT,
        "score.executor": TWO_BY_EIGHT,
        "train_router.executor": TWO_BY_EIGHT,
        "assign.executor": TWO_BY_EIGHT,
        "train_student.executor": TWO_BY_EIGHT,
    }
    said = capsys.readouterr().out
    assert "job.sh: 2 nodes with 8 GPUs each\n" in said
    assert "  generate: a vLLM server on each of 2 nodes, one teacher after the other\n" in said
    assert "look at it, then submit it: sbatch " in said


def test_stages_that_have_no_use_for_nodes(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cheap = ("--set", "train_router.kind=ridge", "--set", "generate.engine=transformers", "--journal", "none")
    text = wrote(recipe, *cheap, "--set", "train_student.batch_size=6")
    found = sets(text)
    assert {key for key in found if key.endswith("executor")} == {"score.executor", "train_student.executor"}
    assert found["score.executor"] == {"kind": "slurm", "replicas": 2}
    assert found["train_student.executor"] == {"kind": "slurm", "replicas": 1}, "3 x 2 does not divide by 2 nodes"
    assert "--journal" not in words_of_run(text)
    assert "generate: on the first node, by transformers; `generate.engine: vllm`" in capsys.readouterr().out


EVALUATE = "evaluate={tasks: [{name: t, path: prompts.jsonl, columns: {question: prompt, answer: reference}}]%s}"


def test_an_evaluation_uses_the_nodes(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more, expected, says in (
        ("", TWO_BY_EIGHT, "evaluate: 2 x 8 processes"),
        (", engine: vllm", TWO_BY_EIGHT, "evaluate: a vLLM server on each of 2 nodes, one student after the other"),
        (", engine: vllm, livebench: {path: /lb}", None, "evaluate: on the first node, as LiveBench asks one server"),
    ):
        text = wrote(recipe, "--gpus-per-node", "8", "--set", EVALUATE % more)
        assert sets(text).get("evaluate.executor") == expected
        assert f"  {says}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--time", "soon"), "error: --time must be as sbatch takes it, such as 24:00:00 or 2-12, got 'soon'"),
        (("--partition", "a b"), "error: an option of sbatch must be one word, such as --qos=high, got "),
        (("--sbatch=--x\n#SBATCH --y",), "error: an option of sbatch must be one word, such as --qos=high, got "),
        (("--sbatch=qos",), "error: an option of sbatch must be one word, such as --qos=high, got 'qos'"),
        (
            ("--gpus-per-node", "6"),
            "error: `generate.executor.gpus_per_replica` is 6, and a server of the teacher large uses 4 (tensor x "
            "pipeline x data parallel size); set `vllm` sizes that make 6",
        ),
        (
            ("--gpus-per-node", "8", "--set", EVALUATE % ", engine: vllm, vllm: {tensor_parallel_size: 3}"),
            "error: `evaluate.executor.gpus_per_replica` is 8, and a server of the student uses 6 (tensor x pipeline "
            "x data parallel size); set `vllm` sizes that make 8",
        ),
        (("--set", "score.nonsense=1"), "error: score: unknown key `nonsense`"),
    ],
)
def test_what_is_refused(
    recipe: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    assert main(["slurm", str(recipe), "--nodes", "2", "--out", "job.sh", *options]) == 2
    assert message in capsys.readouterr().err
    assert not Path("job.sh").exists()


def test_a_script_that_is_there_stays(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrote(recipe)
    assert main(["slurm", str(recipe), "--nodes", "2", "--out", "job.sh"]) == 2
    assert capsys.readouterr().err == (
        "error: job.sh is there already; name another file with --out, or overwrite it with --force\n"
    )


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say(recipe: Path) -> None:
    wrote(recipe)
    done = subprocess.run(["shellcheck", "job.sh"], capture_output=True, text=True)
    assert done.stdout == ""


def test_every_variable_is_quoted(recipe: Path) -> None:
    """The rule of shellcheck that matters here, SC2086: an unquoted variable is cut at blanks."""
    code = [line for line in wrote(recipe).splitlines() if line and not line.startswith("#")]
    bare = [line for line in code if re.search(r"\$", re.sub(r"'[^']*'|\"[^\"]*\"|\$\?|\$!", "", line))]
    assert bare == []


# What stands in for the driver: it has the batch script told that time is over, as Slurm does, and ends by SIGTERM
# with 130 as `persyn run` does; when it runs again, it ends well.
DRIVER = """
import os, signal, sys, time
from pathlib import Path

if Path("begun").exists():
    sys.exit(0)
Path("begun").touch()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
os.kill(os.getppid(), getattr(signal, sys.argv[1]))
time.sleep(30)
sys.exit(7)
"""


def job(folder: Path, name: str) -> str:
    (folder / "driver.py").write_text(DRIVER)
    line = f"{shlex.quote(sys.executable)} driver.py {name}"
    return slurm.SCRIPT.format(directives="#SBATCH --requeue", command="persyn slurm", out="job.sh", run=line)


def test_the_end_of_the_time_puts_the_job_back_into_the_queue(tmp_path: Path) -> None:
    cluster = StandIn(tmp_path / "stand-in")
    done = run(cluster, job(tmp_path, "SIGUSR1"), tmp_path)
    assert (done.code, done.output) == (130, "requeue 7\n")
    assert run(cluster, job(tmp_path, "SIGUSR1"), tmp_path) == (0, "")


def test_a_job_that_is_cancelled_stays_ended(tmp_path: Path) -> None:
    assert run(StandIn(tmp_path / "stand-in"), job(tmp_path, "SIGTERM"), tmp_path) == (130, "")


@pytest.mark.skipif(bool(why_not()), reason=f"the real Slurm is not tried: {why_not()}")
@pytest.mark.slow
def test_slurm_starts_the_job_again(heavy: None, tmp_path: Path) -> None:
    """It does so two minutes later."""
    cluster = RealSlurm()
    try:
        assert run(cluster, job(tmp_path, "SIGUSR1"), tmp_path).code == 0
        assert (tmp_path / "begun").exists()
    finally:
        cluster.close()


def test_a_run_outside_of_a_job_ends_before_anything_is_paid(
    heavy: None, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    executor = "score.executor={kind: slurm, replicas: 2}"
    recipe, store = root / "recipes" / "tiny" / "smoke.yaml", tmp_path / "store"
    assert main(["run", str(recipe), "--store", str(store), "--set", executor]) == 2
    said = capsys.readouterr().err
    assert "error: `score.executor` is of kind slurm, and this process runs in no Slurm job (SLURM_JOB_ID is" in said
    assert not list(store.glob("datasets--*")) and not (store / ".persyn" / "journal.sqlite").exists()
