"""Refuse an argument of a wrong type in one sentence, before a library fails on it."""

from numbers import Integral, Real
from pathlib import Path
from typing import Any

from persyn_hf.errors import InputError


def check_count(name: str, value: Any) -> None:
    """Raise `InputError` unless the value is a whole number from 1 up."""
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < 1:
        raise InputError(f"`{name}` must be a whole number from 1 up, got {value!r:.60}")


def check_whole(name: str, value: Any) -> None:
    """Raise `InputError` unless the value is a whole number."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InputError(f"`{name}` must be a whole number, got {type(value).__name__} {value!r:.60}")


def check_number(name: str, value: Any) -> None:
    """Raise `InputError` unless the value is a number; its range is for others to check."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InputError(f"`{name}` must be a number, got {type(value).__name__} {value!r:.60}")


def check_path(name: str, value: Any, what: str) -> None:
    """Raise `InputError` unless the value is a text or a path; `what` says what it names."""
    if not isinstance(value, (str, Path)):
        raise InputError(f"`{name}` must be {what}, got {type(value).__name__}")
