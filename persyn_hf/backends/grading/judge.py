"""Read and compare a reference and an answer by math-verify, without a time limit: that is the pool's (pool.py)."""

import re
from decimal import Decimal
from functools import lru_cache
from typing import Any


RULES = 2  # raised when the same reference and answer may get another verdict: what is stored goes by it
REFERENCES = 16384  # parsed ones kept by a process: more than the prompts of the paper's pool
FLOAT = r"\d+(?:\.\d+)?[eE][-+]?\d{1,2}"
SCIENTIFIC = re.compile(rf"(?<![\w.]){FLOAT}(?!\w)")
NUMBER = re.compile(
    rf"\s*[-+]?\s*[$€£]?\s*[-+]?({FLOAT}|\d{{1,3}}([, ]\d{{3}})+(\.\d+)?|\d+(\.\d+)?|\.\d+)\s*(\\?%)?\s*"
)
QUANTITY = re.compile(
    r"\s*([-+]?[$€£]?\d[\d,./]*)\s+(?!(?:sin|cos|tan|log|exp|mod)\b)[A-Za-z./ ]*[A-Za-z]{3}[A-Za-z./ ]*"
)
THIN_SPACE = re.compile(r"(?<=\d)\\,(?=\d{3}(?!\d))")  # 5\,000
DELIMITED = re.compile(r"\$[^$]+\$|\\\(.+\\\)|\\\[.+\\\]|\\boxed\s*\{", re.DOTALL)


def judge(reference: str, answer: str | None) -> bool | None:
    """Judge an answer: True, False, or None where the reference does not parse or grading fails.

    Without an answer, tell whether the reference can be used: `$9999999^{9999999}$` parses, but comparing any number
    with it hangs.
    """
    from math_verify import parse, verify
    from sympy import Integer  # type: ignore[import-untyped]  # it has no stubs

    try:
        gold, decimals, is_number = parse_reference(reference)
        if answer is None:
            if not any(isinstance(expression, str) or expression.free_symbols for expression in gold[:1]):
                verify(list(gold), Integer(1), timeout_seconds=None)
            return bool(gold)
        if not gold:
            return None
        text = THIN_SPACE.sub("", answer)
        answered = parse(_written_out(text) if is_number else text, parsing_timeout=None, raise_on_error=True)
        return bool(verify(list(gold), answered, float_rounding=decimals, timeout_seconds=None, raise_on_error=True))
    except Exception:  # noqa: BLE001  # sympy raises anything; an answer that cannot be judged is null, and counted
        return None


@lru_cache(maxsize=REFERENCES)
def parse_reference(reference: str) -> tuple[tuple[Any, ...], int, bool]:
    """Parse a reference; return its expressions, the decimals to compare, and whether it is a plain number.

    No expressions mean that it cannot be used.

    - A reference is one expression as a whole or nothing: by itself math-verify takes `2` out of
      `x-\\frac{E_{0}^{2}}{2 m}`, of which it cannot parse the rest.
    - A bare `2\\sqrt{3}` would be read as 2, so what is neither a plain number nor already marked as mathematics is
      read as `$2\\sqrt{3}$` first.
    - `1e-5` would be read as e - 5: a number is written out. (In `$2e-1$` e stays Euler's.)
    - `7 pencils` would be read as 7 times p, e, n ...: words behind a number are left out.
    - math-verify compares six decimals. Of a number below 0.001 that would leave less than four digits, of one below
      0.0000005 none, so there it is the four first digits.
    """
    reference = THIN_SPACE.sub("", reference)
    if quantity := QUANTITY.fullmatch(reference):
        reference = quantity[1]
    if NUMBER.fullmatch(reference):
        number = re.sub(r"[\s,$€£+\\]", "", reference)
        return _expressions(_written_out(number)), max(6, 3 - Decimal(number.rstrip("%")).adjusted()), True
    if DELIMITED.search(reference):
        return _expressions(reference), 6, False
    marked = _expressions(f"${reference.strip()}$")
    return marked or (() if "\\" in reference else _expressions(reference)), 6, False


def _expressions(text: str) -> tuple[Any, ...]:
    import sympy
    from math_verify import parse

    parsed = parse(text, parsing_timeout=None, extraction_mode="first_match")
    expressions = (expression for expression in parsed if not isinstance(expression, str))
    is_usable = any(not expression.has(sympy.zoo, sympy.nan) for expression in expressions)  # `2:00` is 2 / 0
    return tuple(parsed) if is_usable else ()


def _written_out(text: str) -> str:
    return SCIENTIFIC.sub(lambda match: format(Decimal(match[0]), "f"), text)
