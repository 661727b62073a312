"""The arms of the study at equal cost: which cells each one pays for, and who teaches which prompt.

A cell is a teacher's answer to a prompt, two samples of it, and costs 1 whoever answers. All arms of a draw go through
the prompts in one order: those that are answered for calibration come first.

    mix               a random teacher per prompt; where prompts run out, a second one
    one               one teacher for all prompts: by size, by family, by name
    tournament        all teachers on a few prompts, the better four on as many more, the better two on twice as many
                      more; the best of them by mean reward answers all that can be paid for
    car               calibration prompts are answered by everyone, all prompts are taught by CAR's teacher
    routed            calibration prompts by everyone or in part, then a router; PerSyn and what is added to it
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from world import Mask, Matrix, World

from persyn_hf.backends.routers import Labelled, RouterSettings, fit, load
from persyn_hf.backends.routers.features import Tfidf
from persyn_hf.core import assignment
from persyn_hf.core import partial_calibration as partial
from persyn_hf.recipe.recipe import Calibration
from persyn_hf.stages.assign.stopping import look_at


Prompts = NDArray[np.int64]
PAPER = 13  # of so many cells one is a calibration prompt: 100 of 1,300, the sizes of the first look at equal cost
VALIDATION = 0.15  # share of the calibration prompts by which `logistic` chooses its penalty, as in the package


class Purchase(NamedTuple):
    """What an arm pays for, and what the student is trained on."""

    asked: Mask  # (prompts, teachers): the cells that are paid for
    teachers: list[Prompts]  # (prompts,) each: who teaches a prompt, -1: nobody; a second array: a second row
    calibrated: Mask  # (prompts,): several teachers have answered
    told: dict[str, Any]  # for the line of results


@dataclass(frozen=True)
class Arm:
    """How an arm spends its cells, and which of the answers it trains on."""

    spend: Callable[["Arm", World, Prompts, int, np.random.Generator], Purchase]
    keep_incorrect: bool = True
    calibration: int = 1  # answers per calibration prompt, and per pool prompt, as `mix.answers_per_prompt` has them
    pool: int = 1
    alpha: float = 0.4
    router: str = "logistic"
    rule: str = "full"  # of `calibration.strategy`; with another rule 2.5 times the prompts are offered
    share: float = 1.0  # calibration prompts, times the paper's
    teacher: str = ""


def mix(arm: Arm, world: World, order: Prompts, budget: int, rng: np.random.Generator) -> Purchase:
    """Ask a random teacher per prompt; where prompts run out, another one on as many prompts as can be paid for."""
    number, pool = len(order), len(world.pool)
    first = assignment.mix(number, np.ones(pool), rng)
    second = (first + 1 + assignment.mix(number, np.ones(pool - 1), rng)) % pool
    return _passes(world, order, [first, second], budget)


def one(arm: Arm, world: World, order: Prompts, budget: int, rng: np.random.Generator) -> Purchase:
    """Ask the same teacher on every prompt."""
    sizes = [teacher.params_b for teacher in world.teachers]
    chosen = assignment.strong(world.pool, sizes).teacher
    if arm.teacher == "family":
        families = [teacher.family for teacher in world.teachers]
        chosen = assignment.family_strong(world.pool, families, sizes, world.student.family, chosen).teacher
    elif arm.teacher:
        chosen = world.pool.index(arm.teacher)
    bought = _passes(world, order, [np.full(len(order), chosen)], budget)
    return bought._replace(told={"teacher": world.pool[chosen]})


def tournament(arm: Arm, world: World, order: Prompts, budget: int, rng: np.random.Generator) -> Purchase:
    """Find the best single teacher by mean reward, and have it answer whatever is left.

    Example: 1,300 cells and seven teachers: 20 prompts x 7, 20 x 4 and 40 x 2 are 300. The winner has answered 80
    prompts then, and answers 1,000 more.
    """
    unit, asked = budget // 65, np.zeros((len(order), len(world.pool)), dtype=bool)
    alive, done = np.arange(len(world.pool)), 0
    for prompts, left in ((unit, 4), (unit, 2), (2 * unit, 1)):
        asked[np.ix_(order[done : done + prompts], alive)] = True
        done += prompts
        means = assignment.column_means(world.known(asked[order[:done]], order[:done], arm.alpha))
        alive = alive[np.argsort(-means[alive], kind="stable")[:left]]
    chosen = int(alive[0])
    asked[order[: done + budget - int(asked.sum())], chosen] = True
    teachers = np.where(asked[:, chosen], chosen, -1)
    return Purchase(asked, [teachers], np.zeros(len(order), dtype=bool), {"teacher": world.pool[chosen]})


def car(arm: Arm, world: World, order: Prompts, budget: int, rng: np.random.Generator) -> Purchase:
    """Have everyone answer the calibration prompts, and CAR's teacher answer the others."""
    own, asked = _in_full(arm, world, order, budget)
    quality, logprob = (world.measured(column, own) for column in ("quality_raw", "mean_logprob"))
    chosen = assignment.car(quality, -logprob).teacher
    left = budget - int(asked.sum())
    asked[order[len(own) : len(own) + left], chosen] = True
    teachers = np.where(asked[:, chosen], chosen, -1)
    return Purchase(asked, [teachers], asked.all(axis=1), {"teacher": world.pool[chosen]})


def routed(arm: Arm, world: World, order: Prompts, budget: int, rng: np.random.Generator) -> Purchase:
    """Calibrate, train a router, and send it what is left: first the calibration prompts that nobody was asked on."""
    told: dict[str, Any] = {}
    if arm.rule == "full":
        own, asked = _in_full(arm, world, order, budget)
    else:
        own, asked, told = _in_part(arm, world, order, budget, rng)
    calibrated = asked.any(axis=1)
    known = own[calibrated[own]]
    rewards = world.known(asked[known], known, arm.alpha)
    teachers = np.full(len(order), -1)
    means = assignment.column_means(rewards)
    teachers[known] = assignment.route(rewards, means).teacher
    rest = order[~calibrated[order]]
    scores = _scores(arm, world, known, rewards, rest)
    chosen = assignment.route(scores, means).teacher
    told |= {"closed": _gap_closed(world.rewards(arm.alpha)[rest], chosen)}
    paid = rest[: budget - int(asked.sum())]
    teachers[paid] = chosen[: len(paid)]
    asked = asked.copy()
    asked[paid, teachers[paid]] = True
    return Purchase(asked, [teachers], calibrated, told)


def _passes(world: World, order: Prompts, passes: list[Prompts], budget: int) -> Purchase:
    """Ask one teacher per prompt in order, by one array after the other, until the budget is spent."""
    asked, taught = np.zeros((len(order), len(world.pool)), dtype=bool), []
    for teachers in passes:
        paid = order[: max(0, budget - int(asked.sum()))]
        taught.append(np.full(len(order), -1))
        taught[-1][paid] = teachers[paid]
        asked[paid, teachers[paid]] = True
    return Purchase(asked, taught, np.zeros(len(order), dtype=bool), {})


def _in_full(arm: Arm, world: World, order: Prompts, budget: int) -> tuple[Prompts, Mask]:
    """Return the calibration prompts, and all of their cells."""
    asked = np.zeros((len(order), len(world.pool)), dtype=bool)
    own = order[: round(arm.share * (budget // PAPER))]
    asked[own] = True
    return own, asked


def _in_part(
    arm: Arm, world: World, order: Prompts, budget: int, rng: np.random.Generator
) -> tuple[Prompts, Mask, dict[str, Any]]:
    """Choose as many cells as a full calibration has, of 2.5 times its prompts, in rounds; and say when it stopped."""
    number = round(arm.share * (budget // PAPER))
    own = order[: number * 5 // 2]
    cells, shape = number * len(world.pool), (len(own), len(world.pool))
    uneven = arm.rule == "uncertainty"
    wanted = Calibration(strategy=arm.rule, share=0.4, rounds=3 if uneven else 4, stop="gain")
    messages, texts = ([of[prompt] for prompt in own] for of in (world.messages, world.texts))
    words = Tfidf.fit(texts, RouterSettings().max_features).transform(texts)
    queue, stopped, part = np.arange(len(own)), False, np.zeros(shape, dtype=bool)
    for turn in range(1, wanted.rounds + 1):
        more = (cells - int(part.sum())) // (wanted.rounds - turn + 1)
        if turn > 1:
            rewards = world.known(part, own, arm.alpha)
            ahead = look_at(wanted, 0, {"messages": messages}, rewards, part, len(order) - len(own))
            stopped = ahead["stop"]
        if stopped:
            break
        if not uneven:
            part = partial.more_in_full(part, more, queue)
        elif turn == 1:
            part = partial.first_at_random(shape, more, queue, rng)
        else:
            part = partial.contend(part, more, rewards, words)
    asked = np.zeros((len(order), len(world.pool)), dtype=bool)
    asked[own] = part
    return own, asked, {"stopped": stopped}


def _scores(arm: Arm, world: World, known: Prompts, rewards: Matrix, rest: Prompts) -> Matrix:
    """Train the arm's router on the calibration prompts, and return its scores of others."""
    held_out = max(1, round(VALIDATION * len(known)))
    cut = len(known) - held_out
    labelled = Labelled([world.messages[prompt] for prompt in known], rewards)
    train, validation = labelled.take(range(cut)), labelled.take(range(cut, len(known)))
    with tempfile.TemporaryDirectory() as folder:
        fit(RouterSettings(kind=arm.router), world.pool, train, validation, Path(folder), seed=0)
        return load(Path(folder)).scores([world.messages[prompt] for prompt in rest])


def _gap_closed(rewards: Matrix, chosen: Prompts) -> float:
    """Return the share of the gap between the best single teacher and the best of each prompt that a choice closes."""
    best = rewards.mean(axis=0).max()
    gained = rewards[np.arange(len(rewards)), chosen].mean() - best
    return round(float(gained / (rewards.max(axis=1).mean() - best)), 3)


PERSYN = Arm(routed)
ARMS = {
    "mix": Arm(mix),
    "mix_right": Arm(mix, keep_incorrect=False),
    "hindsight": Arm(one, teacher="mistral-eq"),  # the best teacher alone of the 73 sets of study-reward, not paid for
    "persyn": PERSYN,
    # Chosen before any student of it was trained, by the rows and rewards that it gets on six other draws.
    "best": replace(PERSYN, router="stacking", share=0.5, alpha=0.8, keep_incorrect=False, pool=2),
    "alpha_0.8": replace(PERSYN, alpha=0.8),
    "right": replace(PERSYN, keep_incorrect=False),
    "stacking": replace(PERSYN, router="stacking"),
    "family_strong": Arm(one, teacher="family"),
    "tournament_0.8": Arm(tournament, alpha=0.8),
    "uncertainty": replace(PERSYN, rule="uncertainty"),
    "car": Arm(car),
    "samples": replace(PERSYN, pool=2),
    "several": replace(PERSYN, calibration=4),
    "whole_prompts": replace(PERSYN, rule="whole_prompts"),
    "tournament": Arm(tournament),
    "strong": Arm(one),
}
