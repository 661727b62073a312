"""Plan a recipe: turn it into steps.

A step is one stage with its settings, its inputs (by the key of the step that makes them) and the name of what it
emits. A recipe has several steps of one stage: calibration and pool are both assigned and answered, for example, each
by a step of `assign` and one of `generate`.
"""

import importlib
from collections.abc import Mapping
from typing import Any

from persyn_hf.errors import RecipeError
from persyn_hf.recipe import names
from persyn_hf.recipe.recipe import Recipe
from persyn_hf.recipe.roles import Student
from persyn_hf.recipe.strategies import KINDS, Strategy, alpha_of, answers_seen
from persyn_hf.recipe.strict import Strict, read_section
from persyn_hf.runner.item_sets import with_tasks
from persyn_hf.runner.pinned import pin
from persyn_hf.runner.plan_checks import check_steps, chosen_by
from persyn_hf.runner.step import Step


# The order in which steps run, those of one phase as planned. `assign`, `generate` and, where several teachers
# answer a prompt of the pool, `score` come twice: for the calibration matrix, then per strategy.
PHASES = (
    "prompts",
    "label",  # the earlier rounds of a calibration in part: `assign`, `generate` and `score` of each round
    "assign_all",
    "generate_all",
    "score",
    "pair",
    "train_router",
    "assign",
    "generate",
    "score_chosen",
    "mix",
    "train_student",
    "evaluate",
)

# Settings that the plan takes from other sections; the sections of the stages may not set them.
BY_STRATEGY = {
    "assign": {"kind", "splits", "teacher", "weights", "from_teachers", "to_teacher", "per_prompt", "confidence"},
    "generate": {"escalate", "escalate_below"},
}
BY_CALIBRATION = {"assign": {"labelling", "round"}, "score": {"in_part"}, "train_router": {"prior"}}
BY_SCORE = {"generate": {"chosen_by"}}
ROUTED = {"assign": {"budget"}}  # settings that only steps of routed kinds are given


def make_plan(recipe: Recipe) -> list[Step]:
    """Return all steps of the recipe in the order in which they run, their settings validated.

    The last phase is `recipe.until`, else `evaluate`, or `train_student` where there is nothing to evaluate on. A
    `RecipeError` says which setting is not valid, or which steps contradict each other.
    """
    planner = _Planner(recipe)
    planner.add_all()
    for step in planner.steps:
        if step.stage in ("train_student", "evaluate") and step.student is not None and step.student.model is None:
            raise RecipeError(
                f"the student `{step.student.name}` has no `model`, but the recipe goes on to {step.stage}; name its "
                "model, or end earlier with `until: assign`"
            )
        if step.stage == "generate":
            step.module.check(step.settings, step.teachers)
    steps = pin(sorted(planner.steps, key=lambda step: PHASES.index(step.phase)), recipe.inputs)
    check_steps(recipe, steps)
    return steps


class _Planner:
    """Collects the steps of one recipe."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.steps: list[Step] = []
        self._last = PHASES.index(recipe.until or ("evaluate" if recipe.evaluate else "train_student"))

    def add_all(self) -> None:
        """Add every step: the prompts, the calibration matrix, and per student all that depends on it."""
        strategies = self.recipe.strategies
        self._add(names.PROMPTS, "prompts", **with_tasks(self.recipe))
        self._add_matrix(names.CALIBRATION, ("calibration", "dev"), **self._add_rounds())
        if any(KINDS[strategy.kind].needs == "pool_rewards" for strategy in strategies):
            whole = self.recipe.calibration.strategy == "full"  # else some calibration prompts have no rewards
            self._add_matrix(names.POOL, ("pool",) if whole else ("calibration", "pool"))
        for student in self.recipe.students:
            inputs = {"prompts": names.PROMPTS, "rewards": names.matrix_rewards(student)}
            self._add(names.pairs(student), "pair", inputs=inputs, teachers=True)
            self._add(names.evaluation(student), "evaluate", student=student)
            for strategy in strategies:
                self._add_router(student, strategy)
                self._add_strategy(student, strategy)

    def _add(
        self,
        key: str,
        stage: str,
        *,
        phase: str = "",
        inputs: dict[str, str] | None = None,
        teachers: bool = False,
        student: Student | None = None,
        strategy: Strategy | None = None,
        seed: int | None = None,
        **fixed: Any,
    ) -> None:
        """Add a step, unless an equal one is there already or its phase comes after the last one.

        `fixed` are settings that go on top of the stage's section. Without a `seed` the step has the recipe's.
        """
        phase = phase or stage
        if PHASES.index(phase) > self._last:
            return
        step = Step(
            key=key,
            phase=phase,
            stage=stage,
            settings=_settings(self.recipe, stage, **fixed),
            inputs=inputs or {},
            teachers=self.recipe.teachers if teachers else (),
            student=student,
            strategy=strategy.name if strategy else None,
            seed=self.recipe.seed if seed is None else seed,
        )
        same = next((other for other in self.steps if other.key == key), None)
        if same is None:
            self.steps.append(step)
        elif same != step:
            raise RecipeError(
                f"two different steps of the recipe would be named `{key}`, from the names of its students, "
                "strategies and seeds; give one of them another name"
            )

    def _add_rounds(self) -> dict[str, Any]:
        """Add all rounds of a calibration in part except the last, and return what `_add_matrix` needs to add that.

        The last round is the calibration matrix itself. The result is empty where all cells are paid for. The cells
        are chosen for the first student; the others learn from the same ones.
        """
        calibration, student = self.recipe.calibration, self.recipe.students[0]
        last = 1 if calibration.strategy == "full" else calibration.rounds
        fixed: dict[str, Any] = {"labelling": calibration} if calibration.in_part else {}
        inputs = calibration.prior_input
        for round in range(1, last):
            suffix = names.round_suffix(round)
            self._add_matrix(suffix, ("calibration",), "label", (student,), inputs, round=round, **fixed)
            inputs = {"base": names.matrix_assignments(suffix), "rewards": names.matrix_rewards(student, suffix)}
            inputs |= calibration.prior_input
            if calibration.budget is not None:
                inputs["calibration"] = names.matrix_responses(suffix)
        return {"further": inputs, "round": last, **fixed} if fixed else {}

    def _add_matrix(
        self,
        suffix: str,
        splits: tuple[str, ...],
        phase: str = "",
        students: tuple[Student, ...] = (),
        further: Mapping[str, str] | None = None,
        **fixed: Any,
    ) -> None:
        """Add the steps of a matrix: every teacher is assigned to the prompts of `splits`, answers and is scored.

        `fixed` may leave out cells. Answers are scored for each of `students`, by default for all. `further` are
        inputs of `assign` other than the prompts.
        """
        assignments, responses = names.matrix_assignments(suffix), names.matrix_responses(suffix)
        inputs = {"prompts": names.PROMPTS, **(further or {})}
        asked: dict[str, Any] = {"kind": "all", "splits": splits, **fixed}
        self._add(assignments, "assign", phase=phase or "assign_all", inputs=inputs, teachers=True, **asked)
        inputs = {"prompts": names.PROMPTS, "assignments": assignments}
        self._add(responses, "generate", phase=phase or "generate_all", inputs=inputs, teachers=True)
        scored: dict[str, Any] = {"in_part": True} if "labelling" in fixed else {}
        for student in students or self.recipe.students:
            inputs, key = {"prompts": names.PROMPTS, "responses": responses}, names.matrix_rewards(student, suffix)
            self._add(key, "score", phase=phase, inputs=inputs, teachers=True, student=student, **scored)

    def _add_router(self, student: Student, strategy: Strategy) -> None:
        """Add the step that trains the router of a strategy, where it goes by one."""
        if KINDS[strategy.kind].needs != "router":
            return
        fixed: dict[str, Any] = {"kind": strategy.router} if strategy.router else {}
        if alpha_of(strategy) is not None:
            fixed["alpha"] = alpha_of(strategy)
        extended = self.recipe.train_router.get("extend")
        if extended and (fixed or len(self.recipe.students) > 1):
            obstacle = (
                f"the strategy `{strategy.name}` needs one of its own" if fixed else "the recipe has several students"
            )
            raise RecipeError(f"train_router: `extend` extends one router, and {obstacle}; leave either out")
        pairs, rewards = names.pairs(student), names.matrix_rewards(student)
        given = {"pairs", pairs} & set(self.recipe.inputs)  # other people's
        inputs = {"prompts": names.PROMPTS, **({"pairs": pairs} if given else {"rewards": rewards})}
        if extended:
            inputs["base"] = str(extended)
        prior = self.recipe.calibration.prior
        if prior and fixed.get("kind", self.recipe.train_router.get("kind")) == "stacking" and not given:
            inputs |= self.recipe.calibration.prior_input
            fixed |= {} if "prior" in inputs else {"prior": prior}
        self._add(names.router(student, strategy), "train_router", inputs=inputs, teachers=True, **fixed)

    def _add_strategy(self, student: Student, strategy: Strategy) -> None:
        """Add the steps of one strategy for one student: assignments, answers, training data, training, evaluation."""
        kind, prompts = KINDS[strategy.kind], {"prompts": names.PROMPTS}
        rewards = {"rewards": names.matrix_rewards(student)}
        assignments = {"assignments": names.assignments(student, strategy)}
        inputs = prompts | rewards
        if kind.needs == "router":
            inputs["router"] = names.router(student, strategy)
        if kind.needs == "pool_rewards":
            inputs["pool_rewards"] = names.matrix_rewards(student, names.POOL)
        if strategy.base is not None:
            base = next(other for other in self.recipe.strategies if other.name == strategy.base)
            inputs["base"] = names.assignments(student, base)
        own = ("alpha", "teacher", "weights", "from_teachers", "to_teacher", "confidence")
        given = {key: getattr(strategy, key) for key in own}
        fixed = {key: value for key, value in given.items() if value is not None}
        if strategy.budget is not None:
            fixed["budget"] = strategy.budget.model_dump(mode="json")
        if strategy.per_prompt > 1:
            fixed["per_prompt"] = strategy.per_prompt
        budget = _settings(self.recipe, "assign", kind=strategy.kind, **fixed).budget  # type: ignore[attr-defined]
        if budget is not None and budget.cost is not None:
            inputs["calibration"] = names.matrix_responses()
        both: dict[str, Any] = {"teachers": True, "strategy": strategy}
        key = names.assignments(student, strategy)
        self._add(key, "assign", inputs=inputs, student=student, kind=strategy.kind, **both, **fixed)
        asked = prompts | assignments | {"calibration": names.matrix_responses()}
        escalation: dict[str, Any] = {"escalate": strategy.escalate} if strategy.escalate else {}
        if strategy.escalate and strategy.confidence is not None:
            escalation["escalate_below"] = strategy.confidence
        self._add(names.responses(student, strategy), "generate", inputs=asked, **both, **escalation)
        answered = {"responses": names.responses(student, strategy)}
        if strategy.per_prompt > 1:
            alpha = alpha_of(strategy)
            decided = {} if alpha is None else {"alpha": alpha}
            kept: dict[str, Any] = {"student": student, "phase": "score_chosen", **both, **decided}
            self._add(names.chosen_rewards(student, strategy), "score", inputs=prompts | answered, **kept)
            rewards |= {"pool_rewards": names.chosen_rewards(student, strategy)}
        mixed = prompts | assignments | answered | rewards | self._paid_answers(student, strategy)
        self._add(names.sft(student, strategy), "mix", inputs=mixed, **both)
        rows = assignments | {"sft": names.sft(student, strategy)}
        for suffix, seed in self.recipe.sft_seeds.items():
            trained = names.trained_student(student, strategy, suffix)
            own_seed: dict[str, Any] = {"student": student, "strategy": strategy, "seed": seed}
            self._add(trained, "train_student", inputs=rows, **own_seed)
            evaluation = names.evaluation(student, strategy, suffix)
            self._add(evaluation, "evaluate", inputs={"student": trained}, **own_seed)

    def _paid_answers(self, student: Student, strategy: Strategy) -> dict[str, str]:
        """Return the inputs of `mix` that hold further answers: everybody's, as far as the strategy pays for them."""
        each = _settings(self.recipe, "mix").answers_per_prompt  # type: ignore[attr-defined]
        seen = answers_seen(strategy, self.recipe.strategies)
        inputs = {} if each.calibration == 1 or seen == "nothing" else {"calibration": names.matrix_responses()}
        if each.pool == 1 or seen != "pool":
            return inputs
        pool = {"pool": names.matrix_responses(names.POOL), "pool_rewards": names.matrix_rewards(student, names.POOL)}
        return inputs | pool


def _settings(recipe: Recipe, stage: str, **fixed: Any) -> Strict:
    """Read the stage's section of the recipe, with the settings that the plan itself decides on top."""
    module = importlib.import_module(f"persyn_hf.stages.{stage}")
    section = getattr(recipe, stage)
    for who, keys in (("the strategies", BY_STRATEGY), ("`calibration`", BY_CALIBRATION), ("`score`", BY_SCORE)):
        decided = sorted(keys.get(stage, set()) & set(section))
        if decided:
            raise RecipeError(f"{stage}: `{decided[0]}` is decided by {who}; set it there, not here")
    if stage == "generate" and section.get("choose_by") == "quality":
        fixed["chosen_by"] = chosen_by(_settings(recipe, "score"))
    left_out = set() if _is_routed(fixed.get("kind")) else ROUTED.get(stage, set())
    section = {key: value for key, value in section.items() if key not in left_out}
    settings: Strict = read_section(module.Settings, {**section, **fixed}, stage)
    return settings


def takes(step: Step, key: str) -> bool:
    """Say whether a step is given a key of its stage's section."""
    return key not in ROUTED.get(step.stage, set()) or _is_routed(getattr(step.settings, "kind", None))


def _is_routed(kind: str | None) -> bool:
    return kind in KINDS and KINDS[kind].chooses == "router"
