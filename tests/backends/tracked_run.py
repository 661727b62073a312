"""`python tracked_run.py FOLDER`: a training that trackio and TensorBoard follow; says what trackio has kept of it."""

import json
import sys
from pathlib import Path

import sft_run
from trackio.sqlite_storage import SQLiteStorage

from persyn_hf.recipe.roles import Student
from persyn_hf.stage import Context
from persyn_hf.stages import train_student


folder = Path(sys.argv[1])
settings = train_student.Settings(**sft_run.CHANGES, report_to=("trackio", "tensorboard"))
student = Student(name="s", model=str(sft_run.STUDENT))
context = Context(seed=0, work_dir=folder, student=student, recipe="me/my-recipe", step="student-s-persyn")
result = train_student.run(settings, context, sft=sft_run.rows())
logs = SQLiteStorage.get_logs("me-my-recipe", "student-s-persyn")
losses = {log["train/global_step"]: log["train/loss"] for log in logs if "train/loss" in log}
said = {"tracked": result.metrics["tracked"], "curve": result.metrics["loss"], "losses": losses}
sys.stdout.write(f"\n{json.dumps(said)}\n")
