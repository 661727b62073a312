"""The budget of a step that asks: what the limits leave after all that the recipe has paid for."""

from collections.abc import Mapping

from persyn_hf.backends.engines.limits import Budget
from persyn_hf.backends.journal import Journal
from persyn_hf.core.cost import money
from persyn_hf.stage import Limits, Payee


def open_budget(limits: Limits, journal: Journal, recipe: str, payees: Mapping[str, Payee]) -> Budget:
    """Return what the limits leave after all that earlier runs of a recipe have paid for; `payees` have the prices."""

    def cost(name: str, prompt_tokens: float, completion_tokens: float, seconds: float) -> float:
        if name not in payees:  # it has left the recipe since
            return 0.0
        price, gpus = payees[name]
        return money(price, prompt_tokens, completion_tokens, seconds * (gpus or 0)) or 0.0

    spent = journal.spent(recipe)
    return Budget(
        limits,
        generations=sum(line.requests for line in spent.values()),
        cost=sum(cost(name, s.prompt_tokens, s.completion_tokens, s.seconds) for name, s in spent.items()),
        money=cost,
        uncounted={name: s.uncounted for name, s in spent.items() if cost(name, 1.0, 1.0, 0.0)},
    )
