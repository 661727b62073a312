"""What nothing reads is refused, where one would take it for done."""

from pathlib import Path

import pytest

from persyn_hf.errors import RecipeError
from persyn_hf.recipe.file import load_recipe
from persyn_hf.runner.plan import make_plan


def plan(root: Path, *overrides: str) -> None:
    make_plan(load_recipe(root / "recipes" / "tiny" / "smoke.yaml", overrides))


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "train_router.seeds=3",
            "train_router: only `kind: auto` reads `seeds`, and the recipe trains global_best, llm, logistic; leave "
            "it out, or set `kind: auto` with these kinds as its `candidates`",
        ),
        ("train_router.curve=[10]", "train_router: only `kind: auto` reads `curve`"),
        ("prompts.config=main", "`config` is of a `dataset`, and none is read; take it out"),
        ("prompts.revision=abc", "`revision` is of a `dataset`, and none is read; take it out"),
        ("generate.revision=abc", "`revision` is of a `dataset`, and none is read; take it out"),
        (
            "evaluate.tasks=[{name: t, path: ./a.jsonl, config: main}]",
            "`t`: `config` is of a `dataset`, and none is read; take it out",
        ),
    ],
)
def test_what_nothing_reads_is_refused(root: Path, override: str, sentence: str) -> None:
    with pytest.raises(RecipeError) as error:
        plan(root, override)
    assert sentence in str(error.value)


def test_one_router_that_is_chosen_suffices_for_the_settings_of_auto(root: Path) -> None:
    plan(root, "train_router.seeds=3", "strategies=[{kind: persyn, router: auto}]")
    plan(root, "train_router.seeds=3", "train_router.kind=auto")
    plan(root, "train_router.seeds=3", "strategies=[strong]")  # trains none
    plan(root, "train_router.seeds=1")
