"""`python ray_kills.py STAGE VICTIM KILLS FOLDER [SEED]`: kill again and again, and say whether anything was lost.

STAGE: score, train_student. VICTIM: process, actor, node (its raylet) or driver, each killed with SIGKILL at a random
moment after the one before. The result must be that of an undisturbed run, and no process may be left.
"""

# ruff: noqa: T201

import json
import os
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import sft_run
from nodes import nodes, relatives, renew, victims, wait_until
from scoring_run import rewards


os.environ["OMP_NUM_THREADS"] = "1"  # in all processes alike: the last bits of scores depend on it
PROMPTS = 1500
LONG = {"epochs": 60, "save_steps": 2}  # 180 steps
CPU_2 = Path(__file__).parents[2] / "recipes" / "accelerate" / "cpu-2.yaml"
WINDOW_S = 45.0  # of the random moment


def work(stage: str, folder: Path, executor: dict[str, Any] | None) -> Any:
    """Do the work of a stage, and return what must be equal, in plain JSON; without an executor, on this machine."""
    folder.mkdir(parents=True, exist_ok=True)
    if stage == "score":
        done: Any = rewards(folder, None, PROMPTS, executor=executor)
    else:  # the last bits depend on the number of processes
        where = {"accelerate": str(CPU_2)} if executor is None else {"executor": executor}
        done = sft_run.train(folder, **where, **LONG).metrics["loss"]
    return json.loads(json.dumps(done))


def ray(address: str) -> dict[str, Any]:
    return {"kind": "ray", "replicas": 2, "max_restarts": 1000, "address": address}


def disturbed(cluster: Any, stage: str, victim: str, kills: int, folder: Path, rng: random.Random) -> tuple[Any, int]:
    """Run the stage while a victim is killed `kills` times; returns the result and the number of kills."""
    killed = 0
    with ThreadPoolExecutor() as pool:
        running = pool.submit(work, stage, folder, ray(cluster.address))
        while killed < kills and not running.done():
            time.sleep(rng.uniform(0, WINDOW_S))
            try:
                victims(cluster, folder, victim)[-1].kill()
            except (psutil.Error, IndexError):
                continue
            killed += 1
            print(f"  {time.strftime('%X')} kill {killed}: {victim}", flush=True)
            if victim == "node":
                time.sleep(5)
                renew(cluster)
        return running.result(), killed


def driven(cluster: Any, stage: str, kills: int, folder: Path, rng: random.Random) -> tuple[Any, int]:
    """Kill the driver `kills` times, each time after all of the processes of the one before have gone."""
    command = [sys.executable, __file__, "drive", stage, cluster.address, str(folder)]
    killed = 0
    while True:
        driver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        if killed < kills:
            try:
                driver.wait(rng.uniform(10, 10 + WINDOW_S))
            except subprocess.TimeoutExpired:
                driver.kill()
                killed += 1
                begin = time.monotonic()
                driver.wait()
                wait_until(lambda: not relatives(folder, "-m persyn_hf"), 60)
                print(f"  kill {killed}: driver; nothing was left after {time.monotonic() - begin:.1f} s", flush=True)
                continue
        out, _ = driver.communicate()
        return json.loads(out.splitlines()[-1]), killed


def main(stage: str, victim: str, kills: int, folder: Path, seed: int = 0) -> None:
    rng = random.Random(seed)
    with nodes(2) as cluster:
        begin = time.monotonic()
        run = driven if victim == "driver" else lambda *given: disturbed(given[0], given[1], victim, *given[2:])
        found, killed = run(cluster, stage, kills, folder / "ray", rng)
        seconds = time.monotonic() - begin
        left = relatives(folder)
    expected = work(stage, folder / "alone", None)
    same = found == expected
    print(f"{stage} {victim}: {killed} kills, {seconds:.0f} s, same: {same}, processes left: {len(left)}", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "drive":
        _, stage, address, folder = sys.argv[1:]
        print(json.dumps(work(stage, Path(folder), ray(address))))
    else:
        stage, victim, kills, folder, *seed = sys.argv[1:]
        main(stage, victim, int(kills), Path(folder), *map(int, seed))
