"""Errors that the user can mend. The command line prints them as one sentence, without a traceback, and exits with 2.

Every message says what was found, what is needed and what to do.
"""

import importlib
from types import ModuleType

from persyn_hf.text import first_line


class PersynError(Exception):
    """A fault in what the user gave: a recipe, a file, a model, a store."""


class RecipeError(PersynError):
    """The recipe is not valid: an unknown key, a wrong type, a contradiction."""


class InputError(PersynError):
    """A file, dataset or model that the recipe names cannot be used."""


class StoreError(PersynError):
    """The artifact store cannot be read or written."""


class DamagedArtifact(StoreError):
    """A stored file no longer matches its digest."""


class EngineError(PersynError):
    """A teacher cannot be run, or too many of its requests failed."""


class BudgetReached(PersynError):
    """The run has used up its limit on cost or generations: a clean stop, no fault."""


class UnderWay(PersynError):
    """Batches are under way, and the run was not to wait for them: a clean stop, no fault."""


def check(condition: bool, name: str, value: object, need: str) -> None:
    """Raise `RecipeError` unless `condition` holds: "`alpha` must be a number from 0 to 1, got 3"."""
    if not condition:
        raise RecipeError(f"`{name}` must be {need}, got {value!r}")


def require(module: str, *, extra: str, feature: str) -> ModuleType:
    """Import the package `module`, or say which extra of persyn-hf brings it.

    Raises:
        PersynError: the package is not installed; the message says that `feature` needs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise PersynError(
            f"{feature} needs the package `{module}`, which is not installed: pip install 'persyn-hf[{extra}]'"
        ) from None


def reason(error: Exception) -> str:
    """Return the type and the first line (300 characters at most) of a foreign error, for use in a sentence."""
    line = first_line(error)
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
