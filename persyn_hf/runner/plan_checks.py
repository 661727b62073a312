"""Check what only the steps together show: settings that contradict those of another stage, or that nothing reads."""

from collections.abc import Sequence
from typing import Any

from persyn_hf.errors import RecipeError
from persyn_hf.recipe.recipe import Recipe
from persyn_hf.runner.step import Step
from persyn_hf.stages.generate.settings import ChosenBy


BY_AUTO = ("seeds", "curve")  # settings of `train_router` that the kind `auto` alone reads


def check_steps(recipe: Recipe, steps: Sequence[Step]) -> None:
    """Raise `RecipeError` where steps contradict one another, lack what they need, or nothing reads a setting."""
    check_prior(recipe, steps)
    check_dev(steps)
    check_qualities(steps)
    check_routers(steps)


def check_qualities(steps: Sequence[Step]) -> None:
    """Raise `RecipeError` where quality is to come with answers that are generated: none of them will have any."""
    engines = {step.key: getattr(step.settings, "engine", "") for step in steps if step.stage == "generate"}
    for step in steps:
        engine = engines.get(step.inputs.get("responses", ""), "import")
        settings: Any = step.settings
        if step.stage == "score" and "column" in settings.weights and engine != "import":
            raise RecipeError(
                f"score: `quality: column` is what imported answers bring along, and `generate.engine` is {engine}; "
                "take another `quality`, or `engine: import`"
            )


def check_prior(recipe: Recipe, steps: Sequence[Step]) -> None:
    """Refuse a prior that the recipe makes itself, or that no step of it reads."""
    calibration = recipe.calibration
    if calibration.prior is None:
        return
    made = {f"{recipe.full_name}-{step.key}" for step in steps if step.stage == "score"}
    if calibration.prior.partition("@")[0] in made:
        raise RecipeError(
            f"calibration: `prior` names {calibration.prior}, which this recipe makes itself; name the rewards of "
            "another student or recipe"
        )
    learns = any(getattr(step.settings, "kind", "") == "stacking" for step in steps if step.stage == "train_router")
    if calibration.strategy == "whole_prompts" and calibration.stop == "never" and not learns:
        raise RecipeError(
            "calibration: nothing reads the `prior`: `whole_prompts` asks every teacher whatever it says; set "
            "`train_router.kind: stacking`, `calibration.stop: gain` or another strategy, or leave `prior` out"
        )


def check_dev(steps: Sequence[Step]) -> None:
    """Refuse what needs dev prompts where the recipe has none, as later it would be paid for."""
    source: Any = next((step.settings for step in steps if step.stage == "prompts"), None)
    if source is None or source.dev != 0:
        return
    routers: list[Any] = [step.settings for step in steps if step.stage == "train_router"]
    extends = any(router.extend is not None for router in routers)
    if extends or any(router.kind == "auto" for router in routers):
        does = "`extend` has its router judged" if extends else "`kind: auto` chooses among its candidates"
        raise RecipeError(
            f"train_router: {does} on dev prompts, and `prompts.dev` is 0; raise it, or train one kind of router, as "
            "in `kind: stacking`"
        )
    if any(getattr(step.settings, "confidence", None) is not None for step in steps if step.stage == "assign"):
        raise RecipeError(
            "a strategy's `confidence` is learnt from dev prompts, and `prompts.dev` is 0; raise it, or leave "
            "`confidence` out"
        )


def check_routers(steps: Sequence[Step]) -> None:
    """Raise `RecipeError` where routers are to be trained several times, and no router of the recipe is."""
    routers = [step.settings for step in steps if step.stage == "train_router"]
    if not routers or any(getattr(settings, "kind", "") == "auto" for settings in routers):
        return
    for key in BY_AUTO:
        if getattr(routers[0], key) != type(routers[0]).model_fields[key].default:
            kinds = ", ".join(sorted({str(getattr(settings, "kind", "")) for settings in routers}))
            raise RecipeError(
                f"train_router: only `kind: auto` reads `{key}`, and the recipe trains {kinds}; leave it out, or set "
                "`kind: auto` with these kinds as its `candidates`"
            )


def check_references(steps: Sequence[Step]) -> None:
    """Refuse a quality or a check of answers that goes by references where the prompts have none of its kind."""
    source: Any = next((step.settings for step in steps if step.stage == "prompts"), None)
    if source is None:
        return
    grading: Any = next((step.settings for step in steps if step.stage == "generate"), None)
    verify = grading and grading.verify
    if verify == "tests" and source.references != "tests":
        raise RecipeError(
            "`generate.verify: tests` runs tests, which the prompts must have as references; set `prompts: "
            "{references: tests, columns: {reference: ...}}`"
        )
    if verify == "math" and source.references == "tests":
        raise RecipeError(
            "`prompts.references: tests` reads tests of code, which `generate.verify: math` cannot run; set `verify: "
            "tests`"
        )
    scores: list[Any] = [step.settings for step in steps if step.stage == "score"]
    by_reference = ("correct", "pass_rate")
    judged = next((word for s in scores if s.alpha < 1 for word in by_reference if word in s.weights), None)
    if judged is not None and source.columns.reference is None and verify != "command":
        raise RecipeError(
            f"`score.quality: {judged}` judges answers by the references of the prompts, and `prompts.columns` names "
            "no column for them; set `prompts: {columns: {reference: ...}}`, or take another `quality`"
        )


def chosen_by(score: Any) -> ChosenBy:
    """Return by what samples are judged where `generate.choose_by` is `quality`; `score`: the settings of that stage.

    Raises:
        RecipeError: its quality tells no two samples of a teacher apart.
    """
    if not {"judge", "command"} & score.weights.keys():
        raise RecipeError(
            "`generate.choose_by: quality` has the judge or the command of `score.quality` choose among samples, and "
            f"that is {', '.join(score.weights)}; set `score.quality: judge` or `command`, or leave `choose_by` out"
        )
    if score.judge is not None and score.judge.mode == "pairwise":
        raise RecipeError(
            "`generate.choose_by: quality` needs a number for each sample, and `score.judge.mode: pairwise` compares "
            "two; set `mode: pointwise`, or leave `choose_by` out"
        )
    return ChosenBy(weights=score.weights, judge=score.judge, command=score.command)
