"""persyn-hf: personalised data synthesis. The names of `__all__` are the public Python functions; see docs/python.md.

Nothing heavy is imported here: a function's own module is, when it is first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

from persyn_hf.version import __version__ as __version__


if TYPE_CHECKING:  # for editors and type checkers; `__getattr__` brings the same at run time
    from persyn_hf.api.measuring import grade as grade
    from persyn_hf.api.measuring import learnability as learnability
    from persyn_hf.api.recipes import Plan as Plan
    from persyn_hf.api.recipes import Run as Run
    from persyn_hf.api.recipes import export as export
    from persyn_hf.api.recipes import plan as plan
    from persyn_hf.api.recipes import run as run
    from persyn_hf.api.rewarding import pairs as pairs
    from persyn_hf.api.rewarding import recombine as recombine
    from persyn_hf.api.rewarding import rewards as rewards
    from persyn_hf.api.router import Router as Router
    from persyn_hf.api.router import load_router as load_router
    from persyn_hf.api.routing import assign as assign
    from persyn_hf.api.routing import train_router as train_router
    from persyn_hf.errors import PersynError as PersynError
    from persyn_hf.store.load import load_artifact as load_artifact


__all__ = [
    "PersynError",
    "Plan",
    "Router",
    "Run",
    "__version__",
    "assign",
    "export",
    "grade",
    "learnability",
    "load_artifact",
    "load_router",
    "pairs",
    "plan",
    "recombine",
    "rewards",
    "run",
    "train_router",
]

_MODULES = {
    "api.measuring": ("grade", "learnability"),
    "api.recipes": ("Plan", "Run", "export", "plan", "run"),
    "api.rewarding": ("pairs", "recombine", "rewards"),
    "api.router": ("Router", "load_router"),
    "api.routing": ("assign", "train_router"),
    "errors": ("PersynError",),
    "store.load": ("load_artifact",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import the module of a public name when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'persyn_hf' has no attribute {name!r}")
    found = getattr(importlib.import_module(f"persyn_hf.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """List the public names, which need not be imported yet."""
    return sorted({*globals(), *__all__})
