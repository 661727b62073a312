"""Read and compare a reference and an answer by math-verify, without a time limit: that is the pool's (pool.py)."""

import re
from decimal import Decimal
from functools import lru_cache
from typing import Any

from persyn_hf.backends.grading.notation import BETWEEN, MARKED, OUTSIDE, amount_of, name_functions, rewrite, write_out


RULES = 3  # raised when the same reference and answer may get another verdict: what is stored goes by it
REFERENCES = 16384  # parsed ones kept by a process: more than the prompts of the paper's pool
FLOAT = r"\d+(?:\.\d+)?[eE][-+]?\d{1,3}"
SCIENTIFIC = re.compile(rf"(?<![\w.]){FLOAT}(?!\w)")
NUMBER = re.compile(
    rf"\s*[-+]?\s*[$€£]?\s*[-+]?({FLOAT}|\d{{1,3}}([, ]\d{{3}})+(\.\d+)?|\d+(\.\d+)?|\.\d+)\s*(\\?%)?\s*\.?\s*"
)
DELIMITED = re.compile(r"\$[^$]+\$|\\\(.+\\\)|\\\[.+\\\]|\\boxed\s*\{", re.DOTALL)
UNREADABLE = re.compile(  # a date, a power of ten beyond bounds, a time of day, `7 J`: a unit or a variable
    r"\\text\{\d{4}-\d\d-\d\d\}|\s*\d{1,2}/\d{1,2}/(?:\d\d){1,2}\s*|\s*[-+]?[\d.]+[eE][-+]?\d{4,}\s*"
    r"|\s*[-+]?[\d.,]+ [JNWVAKCTF]\s*|\s*\d{1,2}:\d\d\s*[aApP]\.?[mM]\.?\s*"
)
WORD = re.compile(r"(?<![A-Za-z\\])(?:(?!and\b|[A-Z]+(?![A-Za-z]))[A-Za-z]{3,}|(?:to|by|if|is|vs)(?![A-Za-z]))")
LETTERS = re.compile(r"(?<![A-Za-z\\])(?:[A-Z]{2,}|[A-Za-z]{3,})(?![A-Za-z])")
COMMAND = re.compile(r"\\[A-Za-z]+")
BOX = "\\boxed"
SMALL = 1e-3  # below it a number is compared by its first four digits


def judge(reference: str, answer: str | None) -> bool | None:
    """Judge an answer: True, False, or None where the reference does not parse, grading fails or it is in doubt.

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
        text = _as_formula(rewrite(answer))
        answered = parse(_written_out(text) if is_number else text, parsing_timeout=None, raise_on_error=True)
        is_right = verify(list(gold), answered, float_rounding=decimals, timeout_seconds=None, raise_on_error=True)
        if is_right and _reads_otherwise(reference, answered):
            return None
        return bool(is_right) and not _differ_in_proportion(gold, answered)
    except Exception:  # noqa: BLE001  # sympy raises anything; an answer that cannot be judged is null, and counted
        return None


@lru_cache(maxsize=REFERENCES)
def parse_reference(reference: str) -> tuple[tuple[Any, ...], int, bool]:
    """Parse a reference; return its expressions, the decimals to compare, and whether it is a plain number.

    No expressions mean that it cannot be used.

    - A reference is one expression as a whole or nothing: by itself math-verify takes `2` out of
      `x-\\frac{E_{0}^{2}}{2 m}`, of which it cannot parse the rest, and `x > 0` out of `$f(x)=1$ for all $x > 0$`.
    - A bare `2\\sqrt{3}` would be read as 2, so what is neither a plain number nor already marked as mathematics is
      read as `$2\\sqrt{3}$` first.
    - `1e-5` would be read as e - 5: a number is written out. (In `$2e-1$` e stays Euler's.)
    - `7 pencils` would be read as 7 times p, e, n ...: a unit or a noun behind a number is left out; with other words
      (`5 hundred`, `0 or infinitely many`) it cannot be used. Words alone (`no solution`) go by their letters.
    - math-verify compares six decimals. Of a number below 0.001 that would leave less than four digits, of one below
      0.0000005 none, so there it is the four first digits.
    """
    is_marked = DELIMITED.search(reference) is not None
    text = rewrite(reference) if is_marked else rewrite(f"${reference.strip()}$")[1:-1]
    if UNREADABLE.fullmatch(text):
        return (), 6, False
    text = amount_of(text) or text
    if NUMBER.fullmatch(text):
        number = re.sub(r"[\s,$€£+\\]", "", text).rstrip(".")
        return _expressions(_written_out(number)), max(6, 3 - Decimal(number.rstrip("%")).adjusted()), True
    if BOX in text:  # a worked solution (MATH, NuminaMath): what is in the box counts
        return _expressions(text), 6, False
    if is_marked:
        parts = re.split(f"({MARKED})", text, flags=re.DOTALL)
        parts[::2] = [OUTSIDE.sub("", part) for part in parts[::2]]
        is_whole = all(BETWEEN.fullmatch(part) for part in parts[::2])
        return _expressions("".join(parts)) if is_whole else (), 6, False
    named = name_functions(text)
    if "\\" not in reference and re.search(r"[^A-Za-z\s]", text) and WORD.search(named):
        return (), 6, False
    marked = _expressions(f"${named.strip()}$")
    return marked or (() if "\\" in named else _expressions(named)), 6, False


def _as_formula(text: str) -> str:
    """Mark an answer that is nothing but a formula as one: math-verify reads 1 in a plain `\\sqrt{1/n}`."""
    if DELIMITED.search(text) or NUMBER.fullmatch(text) or len(text) > 200:
        return text
    named = name_functions(text)
    is_formula = "\\" in named and "\n" not in named.strip() and not WORD.search(named)
    return f"${named.strip().rstrip('.')}$" if is_formula else text


def _reads_otherwise(reference: str, answered: list[Any]) -> bool:
    """Tell whether letters that may be a word or an order, `BAC`, agree as a product only: with `ACB`."""
    if not answered or not isinstance(answered[-1], str) or not LETTERS.search(name_functions(reference)):
        return False
    ours, theirs = (
        re.findall("[a-z]", COMMAND.sub(" ", name_functions(text)).lower()) for text in (reference, answered[-1])
    )
    return sorted(ours) == sorted(theirs) and ours != theirs


def _differ_in_proportion(gold: tuple[Any, ...], answered: list[Any]) -> bool:
    """Tell whether numbers that agree in all decimals compared are too small for that: 2^-99 and 2^-98."""
    from sympy import Expr, UnevaluatedExpr

    if not answered or not (isinstance(gold[0], Expr) and isinstance(answered[0], Expr)):
        return False
    pair = (gold[0], answered[0])
    if any(each.free_symbols or each.has(UnevaluatedExpr) or not each.is_number for each in pair):
        return False
    ours, theirs = (complex(each.evalf(15)) for each in pair)
    return 0 < max(abs(ours), abs(theirs)) < SMALL and abs(ours - theirs) > 1e-3 * max(abs(ours), abs(theirs))


def _expressions(text: str) -> tuple[Any, ...]:
    import sympy
    from math_verify import parse

    parsed = parse(text, parsing_timeout=None, extraction_mode="first_match")
    expressions = (expression for expression in parsed if not isinstance(expression, str))
    is_usable = any(not expression.has(sympy.zoo, sympy.nan) for expression in expressions)  # `2:00` is 2 / 0
    return tuple(parsed) if is_usable else ()


def _written_out(text: str) -> str:
    return SCIENTIFIC.sub(lambda match: write_out(match[0]), text)
