"""The command `persyn slurm`: write a batch script with which a whole recipe runs in one Slurm job."""

import argparse
import json
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persyn_hf.cli.options import add_command, add_recipe, open_recipe, open_store, positive
from persyn_hf.console import say
from persyn_hf.errors import PersynError


WARN_S = 300  # before the time limit: the driver ends in order, and the journal goes to the store
JOURNAL = "${TMPDIR:-/tmp}"
TIME = re.compile(r"\d+|\d+:\d{2}(:\d{2})?|\d+-\d{1,2}(:\d{2}){0,2}")  # as sbatch reads it
LINE = re.compile(r"[\x21-\x7e]+")
SCRIPT = """\
#!/bin/bash
{directives}
# Written by: {command}
# One job for the whole recipe: the driver on the first node, vLLM, scoring, training and evaluation on all by srun.
# Submit it, and submit it again to go on after any end: sbatch {out}
set -u
again=
trap 'kill -TERM "$run" 2>/dev/null' TERM             # preempted or cancelled: the driver ends in order
trap 'again=yes; kill -TERM "$run" 2>/dev/null' USR1  # the time is nearly over: this job goes back into the queue

{run} &
run=$!
while wait "$run"; code=$?; kill -0 "$run" 2>/dev/null; do :; done  # a signal cuts `wait` short
wait "$run"; code=$?
if [ -n "$again" ] && [ "$code" -eq 130 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$code"
"""


@dataclass(frozen=True)
class Placed:
    """What a stage gets of the job: an override of the recipe (None: nothing), and that in words."""

    override: str | None
    says: str


def add(commands: Any) -> None:
    """Add the command to the subparsers `commands`."""
    text = "write a batch script with which a whole recipe runs in one Slurm job: vLLM, scoring, training on its nodes"
    examples = ("my.yaml --nodes 4 --gpus-per-node 8 --time 24:00:00 --partition gpu --account lab",)
    command = add_command(commands, "slurm", _slurm, text, *examples)
    add_recipe(command)
    command.add_argument("--nodes", type=positive(int), required=True, metavar="N", help="nodes of the job")
    command.add_argument("--gpus-per-node", type=positive(int), metavar="M", help="GPUs of a node (default: none)")
    command.add_argument("--time", help="limit of the job, as sbatch takes it: 24:00:00")
    command.add_argument("--partition", help="of the job")
    command.add_argument("--account", help="that pays for the job")
    text = "a further line for sbatch, repeatable: --sbatch=--qos=high"
    command.add_argument("--sbatch", action="append", default=[], metavar="OPTION", help=text)
    text = "disk of the first node that the journal is kept on during the run; `none`: in the store (default: $TMPDIR)"
    command.add_argument("--journal", default=JOURNAL, metavar="FOLDER", help=text)
    command.add_argument("--out", type=Path, metavar="FILE", help="default: the recipe's name with .slurm.sh")
    command.add_argument("--force", action="store_true", help="overwrite the script, where it is there")


def _slurm(arguments: argparse.Namespace) -> int:
    from persyn_hf.runner.executors import check_processes
    from persyn_hf.runner.plan import make_plan

    recipe = open_recipe(arguments)
    out: Path = arguments.out or Path(f"{recipe.name}.slurm.sh")
    if out.exists() and not arguments.force:
        raise PersynError(f"{out} is there already; name another file with --out, or overwrite it with --force")
    directives = list(_directives(arguments, recipe.name))
    placed = list(place(make_plan(recipe), arguments.nodes, arguments.gpus_per_node or 0))
    sets = [*arguments.set, *(one.override for one in placed if one.override)]
    arguments.set = sets
    for step in make_plan(open_recipe(arguments)):
        check_processes(step)
    words = [sys.executable, "-m", "persyn_hf.cli", "run", _path(arguments.recipe)]
    words += ["--store", str(open_store(arguments).root)]
    words += [word for name in sorted(set(arguments.rerun)) for word in ("--rerun", name)]
    lines = [shlex.join(words)]
    if arguments.journal != "none":
        given = arguments.journal
        lines.append(f'--journal "{JOURNAL}"' if given == JOURNAL else f"--journal {shlex.quote(given)}")
    lines += [f"--set {shlex.quote(override)}" for override in sets]
    text = SCRIPT.format(
        directives="\n".join(f"#SBATCH {line}" for line in directives),
        command=_one_line(shlex.join(["persyn", *sys.argv[1:]])),
        out=shlex.quote(str(out)),
        run=" \\\n    ".join(lines),
    )
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise PersynError(f"{out} cannot be written: {error.strerror}; name another file with --out") from None
    gpus = f" with {arguments.gpus_per_node} GPUs each" if arguments.gpus_per_node else ", without GPUs"
    say(f"wrote {out}: {arguments.nodes} nodes{gpus}")
    for line in dict.fromkeys(one.says for one in placed):
        say(f"  {line}")
    say(f"look at it, then submit it: sbatch {out}; after any end, the same goes on")
    return 0


def place(steps: Sequence[Any], nodes: int, gpus: int) -> Iterator[Placed]:
    """Yield what every stage that uses models gets of `nodes` nodes with `gpus` GPUs each; its own executor stays.

    Raises:
        RecipeError: GPUs of a node that one teacher's vLLM cannot use all.
    """
    seen: set[str] = set()
    for step in steps:
        settings, stage = step.settings, step.stage
        if stage in seen or not hasattr(settings, "executor"):
            continue
        seen.add(stage)
        if settings.executor is not None:
            yield Placed(None, f"{stage}: as its `executor` in the recipe says")
        elif stage == "generate":
            yield _generation(steps, nodes, gpus)
        elif stage == "train_student":
            yield _training(settings, nodes, gpus)
        elif stage == "evaluate":
            yield _evaluation(settings, nodes, gpus)
        elif _uses_models(stage, settings, steps):
            yield _on(stage, nodes, gpus)


def _on(stage: str, nodes: int, gpus: int) -> Placed:
    executor = {"kind": "slurm", "replicas": nodes} | ({"gpus_per_replica": gpus} if gpus else {})
    return Placed(f"{stage}.executor={json.dumps(executor)}", f"{stage}: {nodes} x {gpus or 1} processes")


def _generation(steps: Sequence[Any], nodes: int, gpus: int) -> Placed:
    """Place the teachers: vLLM on every node; other engines stay where they are."""
    from persyn_hf.backends.engines.settings import ExecutorSettings
    from persyn_hf.backends.engines.slurm_servers import fill_replica
    from persyn_hf.stages.generate.settings import engine_options

    asked = [
        (teacher, engine_options(step.settings, teacher))
        for step in steps
        if step.stage == "generate" and step.settings.engine != "import"
        for teacher in step.teachers
    ]
    kinds = {options["kind"] for _, options in asked}
    if "transformers" in kinds:
        return Placed(None, "generate: on the first node, by transformers; `generate.engine: vllm` uses all nodes")
    if "vllm" not in kinds:
        return Placed(None, "generate: at servers, by batches or by import; nothing of it runs on the nodes")
    for teacher, options in asked:
        if options["kind"] == "vllm" and options["vllm"].distributed_executor_backend is not None:
            return Placed(None, f"generate: {teacher.name} runs over a Ray cluster, which the script must start")
        if options["kind"] == "vllm":
            executor = ExecutorSettings(kind="slurm", replicas=nodes, gpus_per_replica=gpus)
            fill_replica(options["vllm"], executor, f"the teacher {teacher.name}")
    override = _on("generate", nodes, gpus).override
    return Placed(override, f"generate: a vLLM server on each of {nodes} nodes, one teacher after the other")


def _training(settings: Any, nodes: int, gpus: int) -> Placed:
    """Place a training on as many nodes as its batch divides into."""
    parts = settings.batch_size // settings.per_device_batch_size
    fitting = [n for n in range(1, nodes + 1) if parts % (n * (gpus or 1)) == 0]
    if settings.batch_size % settings.per_device_batch_size or not fitting:
        return Placed(
            None,
            f"train_student: on one device, as its batch of {settings.batch_size} does not divide into "
            f"{gpus or 1} x {settings.per_device_batch_size} (`batch_size`, `per_device_batch_size`)",
        )
    override = _on("train_student", fitting[-1], gpus).override
    return Placed(override, f"train_student: {fitting[-1]} x {gpus or 1} processes, as its batch divides")


def _evaluation(settings: Any, nodes: int, gpus: int) -> Placed:
    """Place an evaluation: a process per GPU or core, or a vLLM server per node."""
    from persyn_hf.backends.engines.settings import ExecutorSettings
    from persyn_hf.backends.engines.slurm_servers import fill_replica

    if settings.livebench is not None:
        return Placed(None, "evaluate: on the first node, as LiveBench asks one server")
    if settings.engine != "vllm":
        return _on("evaluate", nodes, gpus)
    if settings.vllm.distributed_executor_backend is not None:
        return Placed(None, "evaluate: the student runs over a Ray cluster, which the script must start")
    executor = ExecutorSettings(kind="slurm", replicas=nodes, gpus_per_replica=gpus)
    fill_replica(settings.vllm, executor, "the student", "evaluate.executor")
    override = _on("evaluate", nodes, gpus).override
    return Placed(override, f"evaluate: a vLLM server on each of {nodes} nodes, one student after the other")


def _uses_models(stage: str, settings: Any, steps: Sequence[Any]) -> bool:
    """Tell whether a stage loads models that several processes can share the work of."""
    match stage:
        case "score":
            return settings.learnability != "none" or "reward_model" in settings.weights
        case "train_router":
            return settings.kind in ("llm", "auto") and not settings.extend
        case "assign":  # other routers score thousands of prompts a second on the first node
            routers = [step.settings for step in steps if step.stage == "train_router"]
            return any(router.kind in ("llm", "auto") for router in routers)
        case _:
            return True


def _directives(arguments: argparse.Namespace, name: str) -> Iterator[str]:
    """Yield the options of sbatch."""
    job = re.sub(r"[^A-Za-z0-9._-]+", "-", name)
    yield f"--job-name=persyn-{job}"
    yield f"--nodes={arguments.nodes}"
    yield "--ntasks-per-node=1"
    if arguments.gpus_per_node:
        yield f"--gres=gpu:{arguments.gpus_per_node}"
    yield "--exclusive"
    yield "--mem=0"  # all memory of a node
    if arguments.time is not None:
        if not TIME.fullmatch(arguments.time):
            raise PersynError(f"--time must be as sbatch takes it, such as 24:00:00 or 2-12, got {arguments.time!r}")
        yield f"--time={arguments.time}"
    given = {"--partition": arguments.partition, "--account": arguments.account}
    lines = [f"{option}={value}" for option, value in given.items() if value is not None]
    for line in (*lines, *arguments.sbatch):
        if not line.startswith("--") or not LINE.fullmatch(line):
            raise PersynError(f"an option of sbatch must be one word, such as --qos=high, got {line!r}")
        yield line
    yield f"--signal=B:USR1@{WARN_S}"
    yield "--requeue"
    yield "--open-mode=append"
    folder = str(Path.cwd())
    if not LINE.fullmatch(folder):
        raise PersynError(f"the folder {folder} has blanks or signs in its name that sbatch cannot read; use another")
    yield f"--chdir={folder}"
    yield f"--output=persyn-{job}-%j.log"


def _path(recipe: Path) -> str:
    """Return a recipe as the job finds it: a name of one that comes along, else its absolute path."""
    return str(recipe) if str(recipe).startswith("persyn:") else str(recipe.absolute())


def _one_line(text: str) -> str:
    return " ".join(text.split())
