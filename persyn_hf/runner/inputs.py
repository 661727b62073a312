"""Open what a run reads of the store: pinned inputs and the artifacts of its steps, checked where they are opened."""

from collections.abc import Callable

from rich.console import Console

from persyn_hf.console import say
from persyn_hf.errors import RecipeError
from persyn_hf.recipe import names
from persyn_hf.recipe.recipe import Recipe
from persyn_hf.report.measured import check_measured
from persyn_hf.runner.step import Step
from persyn_hf.store.hub.login import hub_api
from persyn_hf.store.hub.pull import pull
from persyn_hf.store.hub.read import not_here
from persyn_hf.store.local import Store
from persyn_hf.store.stored import Stored


Fetch = Callable[[str, str | None], Stored]  # a reference, and the kind that is needed


def pinned(recipe: Recipe, steps: list[Step], store: Store, fetch: Fetch) -> dict[str, Stored]:
    """Open the artifacts that the recipe's `inputs` name, by ref, before anything runs; a missing one raises."""
    keys = {step.key for step in steps}
    refs = dict.fromkeys(ref for step in steps for ref in step.inputs.values() if ref not in keys)
    kinds = {ref: names.kind_of(name) for name, ref in recipe.inputs.items()}
    return {ref: open_input(store, ref, fetch, kinds.get(ref)) for ref in refs}


def open_input(store: Store, ref: str, fetch: Fetch, kind: str | None) -> Stored:
    """Open an artifact of the store, or have `fetch` get it from the Hub, and check what is read of it.

    Args:
        kind: what it must be; None: anything.
    """
    stored = store.get(ref) if store.has(ref) else fetch(ref, kind)
    if kind not in (None, stored.kind):
        raise RecipeError(f"inputs: {stored.ref} is of kind `{stored.kind}` and cannot be the `{kind}`; name another")
    return check_measured(stored)


def find_whole(store: Store, repo: str, kind: str, print_of: str) -> Stored | None:
    """Find the stored artifact of a fingerprint, and check what is read of it."""
    stored = store.find(repo, kind, print_of)
    return None if stored is None else check_measured(stored)


def bring(store: Store, ref: str, kind: str | None, console: Console) -> Stored:
    """Pull an artifact from the Hub into the store, and say so."""

    def note(text: str) -> None:
        say(f"inputs: {text}", console)

    with not_here(ref, store, kind):
        return pull(store, ref, api=hub_api(), note=note)[0]
