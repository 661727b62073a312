"""What trackers get of the training of a router that is a language model: real ones, each in a folder of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from persyn_hf.backends import tracking
from persyn_hf.errors import RecipeError
from persyn_hf.recipe.strict import read_section
from persyn_hf.stages import train_router


ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
CONFIG = "compute_environment: LOCAL_MACHINE\ndistributed_type: 'NO'\nnum_processes: 1\nuse_cpu: true\n"


@pytest.mark.parametrize("is_launched", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_trackio_and_tensorboard_get_the_curve_of_a_router(
    heavy: None, backbone: Path, tmp_path: Path, *, is_launched: bool
) -> None:
    (tmp_path / "accelerate.yaml").write_text(CONFIG)
    launched = [str(tmp_path / "accelerate.yaml")] if is_launched else []
    program = Path(__file__).with_name("tracked_router.py")
    command = [sys.executable, str(program), str(tmp_path / "work"), str(backbone), *launched]
    environment = ENVIRONMENT | {"TRACKIO_DIR": str(tmp_path / "trackio")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["tracked"] == {"by": ["trackio", "tensorboard"], "project": "me/my-recipe", "run": "router-small"}
    losses = [log["train/loss"] for log in said["logs"] if "train/loss" in log]
    assert len(losses) == said["training"]["steps"]
    history, steps = said["training"]["history"], said["training"]["steps"] // 2
    assert [line["train_loss"] for line in history] == pytest.approx([fmean(losses[:steps]), fmean(losses[steps:])])
    regrets = [log["train/regret"] for log in said["logs"] if "train/regret" in log]
    assert regrets == pytest.approx([line["regret"] for line in history])
    events = list((tmp_path / "runs" / "me-my-recipe" / "router-small").glob("events.*"))
    assert events and events[0].stat().st_size > 0


def test_a_tracker_of_routers_that_is_not_installed_is_told_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match="`train_router.report_to` names wandb, whose package is not installed"):
        train_router.check_files(train_router.Settings(report_to=("wandb",)))


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"kind": "ridge"}, "kind `ridge`"),
        ({"kind": "auto"}, "kind `auto`"),
        ({"method": "frozen"}, "`method: frozen`"),
        ({"extend": "me/router@v1"}, "`extend`"),
    ],
)
def test_what_has_no_training_to_follow_is_refused(values: dict[str, Any], found: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read_section(train_router.Settings, {**values, "report_to": ["trackio"]}, "train_router")
    assert str(caught.value) == (
        f"train_router: `report_to` follows the training of an `llm` router, full or by LoRA, and {found} has none to "
        "follow; leave it out"
    )


def test_a_candidate_of_auto_has_no_tracker_of_its_own() -> None:
    candidate = {"kind": "llm", "backbone": "a/b", "report_to": ["trackio"]}
    with pytest.raises(RecipeError, match="unknown key `report_to`"):
        read_section(train_router.Settings, {"kind": "auto", "candidates": [candidate]}, "train_router")
