"""The state of the page in the query string of its address, so that a view is shared by its link."""

from collections.abc import Mapping
from typing import Any

from persyn_hf.errors import InputError


# Name in the query string -> default. The value is of the default's type; None: a number that may be left out.
DEFAULTS: dict[str, Any] = {
    "view": "allocation",
    "assignment": "",
    "with": [],
    "by": "all",
    "split": "",
    "q": "",
    "teacher": "",
    "topic": "",
    "agreement": "",
    "correct": "",
    "margin": None,
    "shortest": None,
    "longest": None,
    "sort": "place",
    "page": 1,
    "prompt": "",
    "alpha": 0.4,
    "how": "minmax",
    "lambda": 0.0,
}
BOUNDS = {"alpha": (0, 1), "lambda": (0, 1), "page": (1, 1e15)}  # others: 0 or more
VIEWS = {
    "allocation": "Allocation",
    "prompts": "Prompts",
    "whatif": "What if",
    "router": "Router quality",
    "cost": "Cost",
    "lineage": "Lineage",
}

# Puts values in the order of DEFAULTS into the address; what is at its default is left out. Another view, page or
# prompt is a step that the browser can take back.
WRITE = """
(...values) => {
  const old = new URLSearchParams(location.search), query = new URLSearchParams();
  const defaults = %s;
  Object.keys(defaults).forEach((name, place) => {
    const value = values[place];
    if (value === null || value === undefined || String(value) === String(defaults[name] ?? "")) return;
    query.set(name, Array.isArray(value) ? value.join(",") : value);
  });
  if (old.has("__theme")) query.set("__theme", old.get("__theme"));
  const text = query.toString();
  const step = ["view", "page", "prompt"].some(name => query.get(name) !== old.get(name)) && history.state !== null;
  history[step ? "pushState" : "replaceState"]({persyn: true}, "", text ? "?" + text : location.pathname);
  window.onpopstate = () => location.reload();
}
"""


def read(query: Mapping[str, str], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that an address gives, defaults for the rest; names that are not known are passed over.

    Args:
        query: name -> text, from the address.
        defaults: as `DEFAULTS`; the type of a default is the type of the value.

    Raises:
        InputError: a value is no number where one is needed, or the view is none.
    """
    state = {
        name: _value(name, query[name], default) if name in query else default for name, default in defaults.items()
    }
    if state["view"] not in VIEWS:
        raise InputError(f"the address asks for the view `{state['view'][:40]}`, there are {', '.join(VIEWS)}")
    return state


def typed(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the controls hold, the default for what is null or no value of its type: programs may send anything.

    Args:
        values: as the controls, or whoever calls the page's API, give them.
        defaults: as `DEFAULTS`.
    """
    given = {name: values.get(name) for name in defaults}
    return {name: given[name] if _fits(name, given[name], default) else default for name, default in defaults.items()}


def _fits(name: str, value: Any, default: Any) -> bool:
    """Tell whether a value has the type of a default, None standing for a number, and is within its bounds."""
    if isinstance(default, list):
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    if isinstance(default, str):
        return isinstance(value, str)
    low, high = BOUNDS.get(name, (0, 1e15))
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _value(name: str, text: str, default: Any) -> Any:
    """Return a text of the address as a value of the type that the default has."""
    if isinstance(default, list):
        return [part for part in text.split(",") if part]
    if isinstance(default, str):
        return text
    try:
        number = float(text)
        low, high = BOUNDS.get(name, (0, 1e15))
        if not low <= number <= high:  # NaN is in no bounds
            raise InputError(f"the address gives `{name}` as {text[:40]}, {low:g} to {high:g} is needed; correct it")
        return int(number) if isinstance(default, int) or name in ("shortest", "longest") else number
    except ValueError:
        raise InputError(f"the address gives `{name}` as `{text[:40]}`, a number is needed; correct it") from None
