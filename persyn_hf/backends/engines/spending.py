"""The budget of a step that asks: what the limits leave after all that the recipe has paid for."""

from collections.abc import Mapping

from persyn_hf.backends.engines.batch.notes import Notes
from persyn_hf.backends.engines.limits import Budget
from persyn_hf.backends.journal import Journal
from persyn_hf.core.cost import money
from persyn_hf.stage import Limits, Payee


def open_budget(limits: Limits, journal: Journal, recipe: str, payees: Mapping[str, Payee]) -> Budget:
    """Return what the limits leave after all that earlier runs of a recipe have paid for; `payees` have the prices.

    Batches of the recipe that are under way count at the most they can cost, whoever will ask for their answers.
    """

    def cost(name: str, prompt_tokens: float, completion_tokens: float, seconds: float) -> float:
        if name not in payees:  # it has left the recipe since
            return 0.0
        price, gpus = payees[name]
        return money(price, prompt_tokens, completion_tokens, seconds * (gpus or 0)) or 0.0

    spent = journal.spent(recipe)
    under_way: dict[str, float] = {}
    for note in Notes.beside(journal.path):
        if note.recipe == recipe:
            answered = journal.answered(note.keys)  # a run was killed before it struck them off
            left = {key: most for key, most in note.bounds.items() if key not in answered}
            under_way |= {key: cost(note.payee, *most, 0.0) for key, most in left.items()}
    return Budget(
        limits,
        generations=sum(line.requests for line in spent.values()),
        cost=sum(cost(name, s.prompt_tokens, s.completion_tokens, s.seconds) for name, s in spent.items()),
        money=cost,
        under_way=under_way,
        uncounted={name: s.uncounted for name, s in spent.items() if cost(name, 1.0, 1.0, 0.0)},
    )
