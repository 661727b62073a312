"""What trackers get of a training: real ones, each in a folder of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import sft_run

from persyn_hf.backends import tracking
from persyn_hf.errors import RecipeError
from persyn_hf.stages import train_student


def test_trackio_and_tensorboard_get_the_curve_of_the_loss(heavy: None, tmp_path: Path) -> None:
    program = Path(__file__).with_name("tracked_run.py")
    environment = sft_run.ENVIRONMENT | {"TRACKIO_DIR": str(tmp_path / "trackio")}
    command = [sys.executable, str(program), str(tmp_path / "work")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["tracked"] == {
        "by": ["trackio", "tensorboard"],
        "project": "me/my-recipe",
        "run": "student-s-persyn",
    }
    assert len(said["curve"]) == sft_run.STEPS
    assert said["losses"] == {str(step): pytest.approx(loss) for step, loss in said["curve"]}
    events = list((tmp_path / "runs" / "me-my-recipe" / "student-s-persyn").glob("events.*"))
    assert events and events[0].stat().st_size > 0


def test_without_trackers_nothing_is_reported() -> None:
    assert tracking.arguments(tracking.Tracked((), "me/x", "s")) == {"report_to": "none"}


def test_a_tracker_that_is_not_installed_is_told_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None if name == "wandb" else object())
    with pytest.raises(RecipeError) as fault:
        train_student.check_files(train_student.Settings(report_to=("trackio", "wandb")))
    assert str(fault.value) == (
        "`train_student.report_to` names wandb, whose package is not installed; pip install wandb, or leave it out"
    )
    with pytest.raises(ValueError, match="trackio"):
        train_student.Settings(report_to=("mlflow",))


def test_tensorboards_folder_may_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(tracking.FOLDER, "/elsewhere")
    assert tracking.arguments(tracking.Tracked(("tensorboard",), "me/x", "s"))["project"] == "me-x"
    assert os.environ[tracking.FOLDER] == "/elsewhere"
