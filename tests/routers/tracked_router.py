"""`python tracked_router.py FOLDER BACKBONE [ACCELERATE]`: a router whose training trackio and TensorBoard follow.

Says what trackio has kept of it.
"""

import json
import sys
from pathlib import Path

from corpora import TEACHERS
from test_llm_stage import data
from trackio.sqlite_storage import SQLiteStorage

from persyn_hf.recipe.roles import Teacher
from persyn_hf.stage import Context
from persyn_hf.stages import train_router


if __name__ == "__main__":
    folder, backbone, *accelerate = sys.argv[1:]
    values = {"kind": "llm", "backbone": backbone, "learning_rate": 3e-3, "epochs": 2, "batch_size": 16}
    own = {"accelerate": accelerate[0]} if accelerate else {"device": "cpu"}
    settings = train_router.Settings(**values, **own, report_to=("trackio", "tensorboard"))
    teachers = tuple(Teacher(name=name) for name in TEACHERS)
    Path(folder).mkdir()
    context = Context(seed=0, work_dir=Path(folder), teachers=teachers, recipe="me/my-recipe", step="router-small")
    result = train_router.run(settings, context, **data())
    logs = SQLiteStorage.get_logs("me-my-recipe", "router-small")
    said = {"tracked": result.metrics["tracked"], "training": result.metrics["training"]}
    said["logs"] = [{name: value for name, value in log.items() if name != "timestamp"} for log in logs]
    sys.stdout.write(f"\n{json.dumps(said)}\n")
