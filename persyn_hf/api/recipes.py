"""Plan and run recipes, and hand their training data to other trainers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persyn_hf.api.arguments import check_path
from persyn_hf.errors import InputError


if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from persyn_hf.recipe.recipe import Recipe
    from persyn_hf.report.tables import Table
    from persyn_hf.store.local import Store
    from persyn_hf.store.stored import Stored


WIDTH = 120  # characters of a line of a plan as text


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run of a recipe has made. `notes`: what it said on the way, a line per step and warning."""

    recipe: "Recipe"
    store: "Store"
    stored: Mapping[str, "Stored"] = field(repr=False)
    notes: tuple[str, ...] = field(repr=False)

    @property
    def refs(self) -> dict[str, str]:
        """The artifact of every step, NAMESPACE/NAME@TAG by the name of the step: `rewards-STUDENT` and so on."""
        return {key: item.ref for key, item in self.stored.items()}

    def load(self, step: str, config: str | None = None, split: str | None = None) -> "Dataset | DatasetDict | str":
        """Load the artifact of a step, as `load_artifact` does.

        Args:
            step: its name, a key of `refs`.
            config: one config (a teacher, a task); None: all of them together.
            split: one split; None: all of them, as a `DatasetDict`.

        Raises:
            InputError: the recipe has no such step.
        """
        from persyn_hf.recipe.strict import nearest
        from persyn_hf.store.load import load_artifact

        if step not in self.stored:
            raise InputError(f"the run of {self.recipe.name} has no step `{step}`{nearest(step, self.stored)}")
        return load_artifact(self.refs[step], config, split, self.store)

    def report(self, folder: str | Path) -> list[Path]:
        """Write tables (markdown, CSV) and figures (PNG, SVG) of the results into a folder, as `persyn report` does.

        Returns all files of the folder, `report.md` first.
        """
        from persyn_hf.report.files import write_report
        from persyn_hf.report.outcomes import Part

        first = write_report([Part(self.recipe, self.stored)], self.store, Path(folder)).path
        return [first, *sorted(path for path in Path(folder).iterdir() if path.is_file() and path != first)]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a recipe will ask and cost; `print` shows it as `persyn plan` does.

    `steps`: step -> `done`, `partly done` or `new`. `to_pay`: teacher (or `total`) -> answers that are in the journal
    (`journalled`), and that a run will pay for: `certain`, `expected`, `at_most`; empty where no teacher is asked or
    the prompts are not known yet. `warnings` and `faults`: what preflight found; a run refuses to begin with faults.
    """

    steps: dict[str, str]
    to_pay: dict[str, dict[str, float]]
    tables: "tuple[Table, ...]" = field(repr=False)
    warnings: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()

    def __str__(self) -> str:
        from io import StringIO

        from rich.console import Console

        text = StringIO()
        console = Console(file=text, width=WIDTH, highlight=False, markup=False, emoji=False)
        for table in self.tables:
            console.print(table.rich(WIDTH))
        return "\n".join([text.getvalue().rstrip(), *self.warnings, *self.faults])


def run(
    recipe: "str | Path | Mapping[str, Any] | Recipe",
    *,
    store: "Store | str | Path | None" = None,
    overrides: Iterable[str] = (),
    max_generations: int | None = None,
    max_cost: float | None = None,
    wait_for_batches: bool = True,
    progress: bool = False,
) -> Run:
    """Run a recipe, as `persyn run` does: what is stored is reused, and what was paid for is not paid again.

    Args:
        recipe: a YAML file, its content as a dict (relative paths count from the working directory), or a `Recipe`.
        store: a store or its root; None: `PERSYN_STORE`, else `./artifacts`.
        overrides: `key.subkey=value` with a YAML value, as after `--set`.
        max_generations: answers that the recipe asks for in all its runs. max_cost: money, likewise.
        wait_for_batches: False: end instead of waiting where only batches of batch APIs are waited for.
        progress: show bars, and a line per step.

    Raises:
        UnderWay: batches are under way, and `wait_for_batches` is false; run again later to collect their answers.
        BudgetReached: a limit allows no more; run again with a higher one.
        PersynError: there is something to mend; the store holds every step that was finished.
    """
    from io import StringIO

    from rich.console import Console

    from persyn_hf.console import new_console
    from persyn_hf.runner.run import run_recipe, stored_of
    from persyn_hf.stage import Limits

    opened, place = _recipe(recipe, overrides), _store(store)
    said = StringIO()
    console = new_console() if progress else Console(file=said, markup=False, emoji=False, highlight=False)
    limits = Limits(max_generations=max_generations, max_cost=max_cost, wait_for_batches=wait_for_batches)
    done = run_recipe(opened, place, console, limits)
    return Run(
        recipe=opened, store=place, stored=stored_of(opened, place, done), notes=tuple(said.getvalue().splitlines())
    )


def plan(
    recipe: "str | Path | Mapping[str, Any] | Recipe",
    *,
    store: "Store | str | Path | None" = None,
    overrides: Iterable[str] = (),
    checks: bool = True,
) -> Plan:
    """Count what a recipe will ask and cost beyond what the journal holds; it loads no weights and runs nothing.

    Args:
        recipe, store, overrides: as in `run`.
        checks: look at models, tasks and servers too, as a run does before it begins; faults are listed, not raised.

    Raises:
        PersynError: the recipe is not valid, or a file of it is not there.
    """
    from dataclasses import asdict

    from persyn_hf.forecast.generation import forecast
    from persyn_hf.forecast.outlook import look_ahead
    from persyn_hf.runner.preflight import preflight
    from persyn_hf.runner.run import look_up

    opened, place = _recipe(recipe, overrides), _store(store)
    done = look_up(opened, place)
    outlook = look_ahead(opened, done, place)
    asks = {} if outlook.to_pay is None else {**outlook.to_pay.teachers, "total": outlook.to_pay.total}
    left = [item.step for item in done if item.stored is None]
    found = preflight(opened, left, place) if checks else None
    return Plan(
        steps={key: state for key, _, state in outlook.steps},
        to_pay={name: asdict(ask) for name, ask in asks.items()},
        tables=tuple(forecast(outlook)),
        warnings=() if found is None else tuple(found.warnings),
        faults=() if found is None else tuple(found.faults),
    )


def export(
    ref: str,
    folder: str | Path,
    *,
    to: str = "jsonl",
    pairs: int = 1,
    margin: float = 0.0,
    same_teacher: bool = False,
    store: "Store | str | Path | None" = None,
) -> list[Path]:
    """Write what an artifact holds for another trainer, as JSON lines, and return the files.

    Args:
        ref: NAMESPACE/NAME@TAG, of the kind that the form is made of.
        folder: made where it is not there.
        to: of `sft`: `jsonl` (TRL's prompt-completion form), `messages`, `llama-factory`, `ms-swift`, `axolotl`. The
            loss is on the last answer alone, for which LLaMA-Factory needs `mask_history: true` and ms-swift
            `--loss_scale last_round`. Of `rewards`: `dpo`, `kto`, `reward-model`, `grpo`, in TRL's forms, and
            `llama-factory-dpo`, `llama-factory-kto`, `ms-swift-dpo`, `ms-swift-kto`. Of `assignments`: `mopd`, the
            teacher of each prompt for on-policy distillation.
        pairs: of `...dpo` and `reward-model`: pairs of answers per prompt at most, the clearest first.
        margin: the reward by which an answer must be ahead of another where no verdicts tell them apart.
        same_teacher: of `...dpo` and `reward-model`: pair answers of one teacher, too.
        store: a store or its root; None: `PERSYN_STORE`, else `./artifacts`.

    Raises:
        StoreError: there is no such artifact, it or one that it was made from is of another kind or missing, it gives
            no row, or the folder cannot be written.
        RecipeError: `pairs` or `margin` is no such number.
    """
    from persyn_hf.recipe.strict import nearest
    from persyn_hf.store import export as exporter

    check_path("ref", ref, "NAMESPACE/NAME@TAG")
    check_path("folder", folder, "a folder")
    if not isinstance(to, str) or to not in exporter.FORMATS:
        raise InputError(f"`to` {to!r} is no form of export{nearest(str(to), exporter.FORMATS)}")
    wishes = exporter.Wishes(pairs=pairs, margin=margin, same_teacher=same_teacher)
    return exporter.export(_store(store), str(ref), to, Path(folder), wishes)


def _recipe(recipe: "str | Path | Mapping[str, Any] | Recipe", overrides: Iterable[str]) -> "Recipe":
    """Read a recipe from what it may be given as."""
    from persyn_hf.recipe.file import load_recipe, read_recipe
    from persyn_hf.recipe.recipe import Recipe

    if isinstance(overrides, str) or not isinstance(overrides, Iterable):
        raise InputError(f"`overrides` must be a list of `key.subkey=value`, got {type(overrides).__name__}")
    overrides = list(overrides)
    for each in overrides:
        if not isinstance(each, str):
            raise InputError(
                f"`overrides` must hold texts, `key.subkey=value`, got {type(each).__name__} {each!r:.60}"
            )
    if isinstance(recipe, Recipe):
        if overrides:
            raise InputError("`overrides` go on top of a file or a dict, got a `Recipe`; give its dict instead")
        return recipe
    if isinstance(recipe, Mapping):
        return read_recipe(recipe, Path.cwd(), overrides)
    if isinstance(recipe, (str, Path)):
        return load_recipe(recipe, overrides)
    raise InputError(f"`recipe` must be a YAML file, a dict or a Recipe, got {type(recipe).__name__}")


def _store(store: "Store | str | Path | None") -> "Store":
    from persyn_hf.store.local import Store

    return store if isinstance(store, Store) else Store(store)
