"""The budget of a `generate` step: what the limits leave after all that the recipe has paid for."""

from persyn_hf.backends.engines import spending
from persyn_hf.backends.engines.limits import Budget
from persyn_hf.backends.journal import Journal
from persyn_hf.stage import Context, Payee
from persyn_hf.stages.generate.settings import Settings, num_gpus


def open_budget(settings: Settings, context: Context, journal: Journal) -> Budget:
    """Return what the limits leave after all that earlier runs of this recipe have paid for."""
    teachers = {teacher.name: Payee(teacher.price, num_gpus(settings, teacher)) for teacher in context.teachers}
    return spending.open_budget(context.limits, journal, context.recipe, {**context.payees, **teachers})
