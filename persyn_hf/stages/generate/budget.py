"""The budget of a `generate` step: what the limits leave after all that the recipe has paid for."""

from persyn_hf.backends.engines.limits import Budget
from persyn_hf.backends.journal import Journal
from persyn_hf.core.cost import money
from persyn_hf.stage import Context
from persyn_hf.stages.generate.settings import Settings, num_gpus


def open_budget(settings: Settings, context: Context, journal: Journal) -> Budget:
    """Return what the limits leave after all that earlier runs of this recipe have paid for."""
    teachers = {teacher.name: teacher for teacher in context.teachers}
    gpus = {name: num_gpus(settings, teacher) for name, teacher in teachers.items()}

    def cost(name: str, prompt_tokens: float, completion_tokens: float, seconds: float) -> float:
        if name not in teachers:  # it has left the pool since
            return 0.0
        gpu_seconds = seconds * (gpus[name] or 0)
        return money(teachers[name].price, prompt_tokens, completion_tokens, gpu_seconds) or 0.0

    spent = journal.spent(context.recipe)
    return Budget(
        context.limits,
        generations=sum(line.requests for line in spent.values()),
        cost=sum(cost(name, s.prompt_tokens, s.completion_tokens, s.seconds) for name, s in spent.items()),
        money=cost,
        uncounted={name: s.uncounted for name, s in spent.items() if cost(name, 1.0, 1.0, 0.0)},
    )
