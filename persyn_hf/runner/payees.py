"""Whom a recipe pays for answers, and what is checked of its judges before any is paid."""

from collections.abc import Iterator, Sequence
from typing import Any

from persyn_hf.backends.engines.settings import BY_SERVER
from persyn_hf.backends.judging.opening import payees
from persyn_hf.backends.judging.rubrics import read_rubric
from persyn_hf.backends.judging.settings import Judge, JudgeSettings, engine_options
from persyn_hf.errors import RecipeError
from persyn_hf.recipe.recipe import Recipe
from persyn_hf.runner.step import Step
from persyn_hf.stage import Limits, Payee
from persyn_hf.stages.generate.settings import num_gpus


def payees_of(steps: Sequence[Step], limits: Limits) -> dict[str, Payee]:
    """Return teachers and judges by their names in the journal; empty where no limit on cost goes by their prices."""
    found: dict[str, Payee] = {}
    for step in steps if limits.max_cost is not None else ():
        settings: Any = step.settings
        if step.stage == "generate" and settings.engine != "import":
            found |= {teacher.name: Payee(teacher.price, num_gpus(settings, teacher)) for teacher in step.teachers}
    for panel in _panels(steps) if limits.max_cost is not None else ():
        found |= payees(panel)
    return found


def judges_of(steps: Sequence[Step]) -> list[tuple[Judge, dict[str, Any]]]:
    """Return the judges that the steps ask, each with the arguments of its engine (`engine_options`)."""
    return [(judge, engine_options(panel, judge)) for panel in _panels(steps) for judge in panel.judges]


def check_prices(recipe: Recipe, steps: Sequence[Step], limits: Limits) -> None:
    """Refuse a limit on money where a teacher or a judge has no price: its answers would count as free."""
    imported = recipe.generate.get("engine") == "import"  # nobody is paid for these answers
    free = [] if imported else [teacher.name for teacher in recipe.teachers if teacher.price is None]
    free += [judge.payee for judge, _ in judges_of(steps) if judge.price is None]
    if limits.max_cost is not None and free:
        who = "teacher" if {teacher.name for teacher in recipe.teachers} >= {*free} else "teacher and judge"
        raise RecipeError(
            f"--max-cost needs the price of every {who}, {', '.join(free)} have none; give each "
            "`price: {prompt: ..., completion: ...}` (per million tokens) or `price: {gpu_hour: ...}`"
        )


def check_judges(steps: Sequence[Step]) -> None:
    """Refuse judges that cannot be asked for want of a key, or whose rubric shows references that none has.

    A key that is not set is refused where teachers will be asked: what they answer needs a judge. Where nothing is
    new, the journal may hold every verdict.
    """
    answers_come = any(step.stage == "generate" for step in steps)
    for _, options in judges_of(steps):
        if options["kind"] in BY_SERVER and answers_come:
            options["server"].api_key()
    source: Any = next((step.settings for step in steps if step.stage == "prompts"), None)
    for panel in _panels(steps):
        shown = read_rubric(panel.rubric, panel.mode, panel.scale).needs_reference
        if shown and source is not None and source.columns.reference is None:
            raise RecipeError(
                "the rubric of `score.judge` shows the reference of each prompt, and `prompts.columns` names no "
                "column for them; set `prompts: {columns: {reference: ...}}`, or take another rubric"
            )


def warn_of_families(recipe: Recipe, steps: Sequence[Step]) -> Iterator[str]:
    """Warn of teachers of a judge's own family."""
    for judge, _ in judges_of(steps):
        kin = [t.name for t in recipe.teachers if t.family == judge.family != "unknown" or t.model == judge.model]
        if kin:
            yield (
                f"warning: the judge {judge.label} and the teacher{'s' if kin[1:] else ''} {', '.join(kin)} are of "
                "one family: judges favour answers of their own kind; take a judge of another family, or a panel"
            )


def panel_of(step: Step) -> JudgeSettings | None:
    """Return the judges that a step asks: of `score`, or of `generate` where they choose among samples."""
    settings: Any = step.settings
    if step.stage == "generate":
        return None if settings.chosen_by is None else settings.chosen_by.judge
    return settings.judge if step.stage == "score" else None


def _panels(steps: Sequence[Step]) -> list[JudgeSettings]:
    """Return the unlike settings of judges among the steps."""
    panels: list[JudgeSettings] = []
    for step in steps:
        panel = panel_of(step)
        if panel is not None and panel not in panels:
            panels.append(panel)
    return panels
