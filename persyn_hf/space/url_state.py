"""The state of a page: what its address says, and the addresses of the pages that it links to."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlencode

from persyn_hf.errors import InputError


# Name in the query string -> default. A value is of the default's type; None: a number that may be left out.
DEFAULTS: dict[str, Any] = {
    "view": "allocation",
    "assignment": "",
    "split": "",
    "with": [],  # assignments that are shown beside it
    "by": "all",
    # which prompts are listed
    "q": "",
    "teacher": "",
    "best": "",  # a best measured teacher
    "topic": "",
    "origin": "",  # where the prompt was read from
    "source": "",  # who decided
    "agreement": "",
    "tied": "",
    "correct": "",
    "margin": None,  # the lead is at most this,
    "lead": None,  # and at least this
    "shortest": None,  # tokens of the answer
    "longest": None,
    "differs": "",  # an assignment that sends the prompt to another teacher,
    "there": "",  # namely to this one
    "moved": "",  # the prompts whose best teacher changes under alpha, how and lambda,
    "was": "",  # from this one
    "becomes": "",  # to this one
    "box": [],  # a part of the map: left, bottom, right, top
    "sort": "place",
    "page": 1,
    "prompt": "",
    "pin": [],  # two teachers whose answers are compared
    "colour": "teacher",  # of the map
    # weights
    "alpha": 0.4,
    "how": "minmax",
    "lambda": 0.0,
    "typed": "",  # a prompt that the router is tried on
    "__theme": "",  # the Hub sets it
}
BOUNDS = {"alpha": (0, 1), "lambda": (0, 1), "page": (1, 1e15)}  # others: 0 or more
BOX_NEEDED = "four numbers: left, bottom, right, top"
WHOLE = ("page", "shortest", "longest")
FIELDS = 200  # of an address
LONGEST = 2_000  # characters of a value; of a prompt that is tried, see try_prompt.LONGEST
VIEWS = {
    "allocation": "Overview",
    "prompts": "Prompts",
    "map": "Map",
    "whatif": "What if",
    "router": "Router",
    "try": "Try a prompt",
    "cost": "Cost",
    "lineage": "Lineage",
}
EVERYWHERE = ("assignment", "split", "with", "__theme")  # what a link to other prompts keeps
WEIGHTS = ("alpha", "how", "lambda")
PLACES = (
    "view",
    "sort",
    "page",
    "prompt",
    "pin",
    "colour",
    "by",
    "with",
    "typed",
    "__theme",
)  # these choose no prompts


def fields_of(query: str) -> dict[str, list[str]]:
    """Return the fields of a query string, name -> texts. Raises `InputError` where there are too many."""
    try:
        return parse_qs(query, keep_blank_values=True, max_num_fields=FIELDS)
    except ValueError:
        raise InputError(f"the address has more than {FIELDS} fields; leave some out") from None


@dataclass(frozen=True)
class State:
    """The values of a page by name, and the defaults, which addresses leave out."""

    values: Mapping[str, Any]
    defaults: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def link(self, changes: Mapping[str, Any] | None = None, **more: Any) -> str:
        """Return the address of the same page with other values.

        Other prompts start on their first page; another page or prompt closes what was open.
        """
        changed = dict(changes or {}) | more
        values = dict(self.values)
        if not changed.keys() <= set(PLACES):
            values |= {"page": 1, "prompt": "", "pin": []}
        elif changed.keys() & {"sort", "page"}:
            values |= {"prompt": "", "pin": []} | ({} if "page" in changed else {"page": 1})
        elif "prompt" in changed:
            values["pin"] = []
        return self._address(values | changed)

    def only(self, changes: Mapping[str, Any] | None = None, **more: Any) -> str:
        """Return an address that keeps nothing but what all views share; see `EVERYWHERE`."""
        kept = {name: self.values[name] for name in EVERYWHERE}
        return self._address(dict(self.defaults) | kept | dict(changes or {}) | more)

    def prompts(self, changes: Mapping[str, Any] | None = None, **more: Any) -> str:
        """Return the address of the list of the prompts that pass these filters and no others."""
        return self.only(dict(changes or {}) | more | {"view": "prompts"})

    def fields(self, *without: str) -> Iterator[tuple[str, str]]:
        """Yield what a form hands on, as (name, text), but for the names that it asks for itself."""
        for name, text in self._given(self.values):
            if name not in without:
                yield name, text

    def _given(self, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        for name, default in self.defaults.items():
            value = values[name]
            if value is not None and value != default:
                yield name, ",".join(map(_text, value)) if isinstance(value, list) else _text(value)

    def _address(self, values: Mapping[str, Any]) -> str:
        return "?" + urlencode(list(self._given(values)), safe="/@,")


def read(
    query: Mapping[str, list[str]], defaults: Mapping[str, Any], choices: Mapping[str, Any]
) -> tuple[State, list[str]]:
    """Return the state that an address asks for, and what is wrong with it; what is wrong is at its default.

    Args:
        query: name -> texts, from the address; names that are not known are passed over, empty texts are no filter.
        defaults: as `DEFAULTS`.
        choices: name -> the texts that may be asked for.
    """
    values, wrong = dict(defaults), []
    for name, default in defaults.items():
        texts = query.get(name, [])
        if not isinstance(default, list) and not any(texts[-1:]):
            continue
        if texts:
            found, fault = _value(name, texts, default, choices.get(name))
            values[name] = found
            wrong += [fault] if fault else []
    return State(values, dict(defaults)), wrong


def typed(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a program gives, the default for what is null or no value of its type.

    Args:
        values: by name; programs may send anything.
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


def _value(name: str, texts: list[str], default: Any, choices: Any) -> tuple[Any, str]:
    """Return the value that the texts of an address stand for and "", or the default and what is wrong."""
    if isinstance(default, list):
        parts = [part[:LONGEST] for text in texts for part in text.split(",") if part]
        if name == "box" and parts and not is_box(parts):
            return default, f"{name} is given as {_quoted(','.join(parts))}; it needs {BOX_NEEDED}"
        bad = [part for part in parts if choices is not None and part not in choices]
        return [part for part in parts if part not in bad], _unknown(name, bad[0], choices) if bad else ""
    text = texts[-1]
    if isinstance(default, str):
        if choices is not None and text not in choices:
            return default, _unknown(name, text, choices)
        return text if name == "typed" else text[:LONGEST], ""
    low, high = BOUNDS.get(name, (0, 1e15))
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not low <= number <= high:  # NaN is in no bounds
        needed = "a number" if math.isnan(number) else f"{low:g} to {high:g}"
        return default, f"{name} is given as {_quoted(text)}, and {needed} is needed"
    return int(number) if name in WHOLE else number, ""


def is_box(parts: Sequence[Any]) -> bool:
    """Tell whether these are the left, bottom, right and top edge of a box, as finite numbers or texts of them."""
    try:
        left, bottom, right, top = map(float, parts)
    except ValueError:
        return False
    return all(map(math.isfinite, (left, bottom, right, top))) and left <= right and bottom <= top


def _unknown(name: str, text: str, choices: Any) -> str:
    named = [choice for choice in choices if choice]
    listed = ", ".join(named[:12]) + (f" and {len(named) - 12} more" if len(named) > 12 else "")
    return f"there is no {name} {_quoted(text)}; there is {listed or 'none'}"


def _quoted(text: str) -> str:
    return f"`{text[:40]}{'…' if len(text) > 40 else ''}`"


def _text(value: Any) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)
