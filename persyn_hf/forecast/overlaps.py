"""`persyn overlaps`: which prompts of a recipe hold which test items, text beside text."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from persyn_hf.backends.dataset_rows import Rows
from persyn_hf.core.conversations import user_text
from persyn_hf.core.overlaps import HALF
from persyn_hf.errors import RecipeError
from persyn_hf.forecast.rehearsal import Rehearsal
from persyn_hf.recipe.recipe import Recipe
from persyn_hf.runner.item_sets import sets_of
from persyn_hf.runner.run import look_up
from persyn_hf.stage import Progress
from persyn_hf.stages.prompts.decontamination import Compared, compare, texts_of
from persyn_hf.store.local import Store


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A prompt and the item of a set that it holds in good part."""

    prompt_id: str
    prompt: str
    item_number: int  # from 1
    item: str
    share: float  # of the item's words that the prompt has


@dataclass(frozen=True, kw_only=True)
class Overlaps:
    """The comparison of a recipe's prompts with all of its test items."""

    compared: Compared
    prompts: Any  # a dataset of the `PROMPTS` contract

    def of(self, name: str) -> Iterator[Shown]:
        """Yield what was found of a set, the largest shares first."""
        for one in sorted(self.compared.overlaps[name], key=lambda one: -one.share):
            row = self.prompts[one.prompt]
            yield Shown(
                prompt_id=row["prompt_id"],
                prompt=user_text(row["messages"]),
                item_number=one.item + 1,
                item=self.compared.sets[name][one.item],
                share=one.share,
            )


def find_overlaps(recipe: Recipe, store: Store, progress: Progress) -> Overlaps:
    """Compare the prompts of a recipe, its own before any is dropped or pinned ones, with its test items.

    Raises:
        RecipeError: the prompts lie on the Hub and were not fetched yet, or there is nothing to compare them with.
    """
    done = look_up(recipe, store)
    step = next((item.step for item in done if item.step.stage == "prompts"), None)
    sets, share = sets_of(recipe), HALF
    if step is not None:
        settings: Any = step.settings
        sets, share = settings.item_sets, settings.decontaminate_share
        if settings.decontaminate == "drop":  # what it leaves out is to be shown
            whole = replace(step, settings=settings.model_copy(update={"decontaminate": "none"}))
            done = [replace(item, step=whole, stored=None) if item.step is step else item for item in done]
    if not sets:
        raise RecipeError(
            "the recipe has nothing to compare its prompts with; name `evaluate.tasks`, or sets in "
            "`prompts.decontaminate_against`, and do not set `decontaminate: none`"
        )
    with Rehearsal(recipe, done, store) as rehearsal:
        prompts = rehearsal.prompts()
        if prompts is None:
            raise RecipeError(
                "the prompts lie on the Hub and were not fetched yet; fetch them first: "
                "persyn run RECIPE --set until=prompts"
            )
        texts = texts_of(Rows(prompts), np.arange(len(prompts)))
        return Overlaps(compared=compare(texts, sets, share, progress), prompts=prompts)
