"""Rewrite what math-verify misreads into what it reads: the rules of docs/grading.md, one example each."""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal


Match = re.Match[str]

SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿ", "0123456789+-()n")
SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
SYMBOLS = {
    "π": r"\pi ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "δ": r"\delta ", "ε": r"\epsilon ",
    "θ": r"\theta ", "λ": r"\lambda ", "μ": r"\mu ", "ρ": r"\rho ", "σ": r"\sigma ", "φ": r"\phi ", "ω": r"\omega ",
    "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": r"\div ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ",
    "≠": r"\ne ", "±": r"\pm ", "∪": r"\cup ", "∩": r"\cap ",
}  # fmt: skip
NAMES = (
    "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp|alpha|beta|gamma|delta|theta|lambda|mu|rho|"
    "sigma|phi|omega|pi|infty"
)
NAME = re.compile(rf"(?<![A-Za-z\\])({NAMES})(?![A-Za-z])")

UNITS = (
    "mm|cm|dm|km|nm|um|in|ft|yd|mi|mg|kg|lbs?|oz|ml|mL|cl|dl|dL|kL|gal|ms|sec|min|hrs?|mph|km?ph|bps|[kKMGT]B|[kMG]b|"
    "[kMG]?Hz|[kMG]W|kWh|Wh|kJ|MJ|k?cal|[kMG]?eV|[kM]?Pa|atm|bar|mol|[mk]V|mA|kN|rad|deg|cc|sq|cu|m|s|g|h|l|L"
)
ONE = rf"(?:{UNITS})"
POWER = r"(?:\^\{?-?\d\}?|[²³])?"
PART = rf"(?:{ONE}|[JNWVAKCT]){POWER}"  # one letter that is a unit in a quotient: alone it may be a variable
UNIT = rf"(?:{ONE}{POWER}\.?|{PART}(?:\s?(?:/|\\cdot|[·*])\s?{PART})+)"
GLUE = "(?:a|an|of|in|per|the|at)"
NO_UNITS = (
    "and|or|nor|not|minus|plus|times|divided|over|to|by|than|less|more|if|when|for|where|with|from|out|hundreds?|"
    "thousands?|[mbtr]+illions?|dozens?|scores?|half|halves|thirds?|quarters?|fourths?|fifths?|sixths?|eighths?|tenths?|"
    "squared|cubed|power|roots?|square|cube|factorial|infinitely|infinite|infinity|many|modulo|mod|choose|percent|sqrt"
)
WORD = rf"(?!(?:{NAMES}|{NO_UNITS})\b)(?=[A-Za-z]*[aeiouAEIOU])[A-Za-z]{{3,}}\.?"
AMOUNT = r"[-+]?[$€£]?[-+]?\d[\d,./]*(?:[eE][-+]?\d{1,3})?"
GLUED = rf"(?:(?=[A-Za-z]{{2}}|[A-Za-z][/^]){UNIT}|{PART}(?:/{PART})+)"  # `60km/h`, but `6m` is a product
QUANTITY = re.compile(
    rf"\s*({AMOUNT})(?:{GLUED}|\s+(?:{GLUE}\s+)*(?:{UNIT}|{WORD}))(?:[\s/-]+(?:{UNIT}|{WORD}|{GLUE}(?=\s)))*\s*\.?\s*"
)
OUTSIDE = re.compile(rf"(?<![A-Za-z\\])(?:{UNIT}|{WORD})(?![A-Za-z])")  # a unit beside a formula
BETWEEN = re.compile(r"(?:\s|[,;.]|\b(?:and|or)\b)*")  # what else may stand between formulas

BOXED = r"\\boxed\s*\{(?:[^{}]|\{[^{}]{0,200}\}){0,500}\}"
MARKED = rf"{BOXED}|\$[^$\n]{{1,500}}\$|\\\([^\n]{{0,500}}?\\\)|\\\[.{{0,500}}?\\\]|\\(?:text|mathrm)\s*\{{[^{{}}]*\}}"
SPECIAL = re.compile(r"[²³¹⁰⁴-⁹⁺⁻ⁿ√∛πθ×⋅÷∞±½⅓⅔¼¾⅕-⅞]")
NO_WORD = rf"(?<![A-Za-z])(?!(?!(?:{NAMES})(?![A-Za-z]))[A-Za-z]{{2}})"
TERM = NO_WORD + r"[0-9A-Za-z.,^()*/+\-₀-₉²³¹⁰⁴-⁹⁺⁻ⁿ√∛πθ×·⋅÷∞±½⅓⅔¼¾⅕-⅞]{1,80}"
PAIR = (
    rf"[\[(](?:{NO_WORD}[^()\[\]\n,]|(?<=[A-Za-z])[A-Za-z]){{1,40}}(?:,(?:{NO_WORD}[^()\[\]\n,]){{1,40}}){{1,5}}[\])]"
)
RUN = re.compile(
    rf"(?P<marked>{MARKED})|{PAIR}(?: ?[∪∩] ?{PAIR}){{0,9}}|{TERM}(?:[ \t][-+*/×·⋅÷][ \t]{TERM}){{0,20}}", re.DOTALL
)
FORMULA = re.compile(r"\\boxed\{[^{}]{1,200}\}|\$[^$\n]{1,200}\$|\\\([^\n]{1,200}?\\\)")
WHOLE = r"(?<![\w.,/^}\\])"  # where a number begins that is not a part of another, a power or a denominator
MIXED = re.compile(
    WHOLE + r"(?P<whole>\d{1,3}(?:,\d{3})+|\d{1,15})(?:[ \t]{1,3}(?P<over>\d{1,9})/(?P<under>\d{1,9})"
    r"|\s{0,3}\\[dt]?frac\s?\{(?P<over2>\d{1,9})\}\s?\{(?P<under2>\d{1,9})\})(?![\d/^]|\.\d)"
)
POWER_OF_TEN = re.compile(
    WHOLE + r"(?<!/ )(?<!\\div )(?P<number>\d{1,40}(?:\.\d{1,40})?)\s*(?:\\times|\\cdot|[*xX])\s*10\s?\^\s?"
    r"(?:\{\s?(?P<power>[-+]?\d{1,3})\s?\}|(?P<power2>[-+]?\d{1,3}))(?![\d^!]|\.\d)"
)


@dataclass(frozen=True)
class Rule:
    """One rule: what it is for, what stands before and after it, and how it is done."""

    name: str
    before: str
    after: str
    pattern: re.Pattern[str]
    becomes: str | Callable[[Match], str]


def rewrite(text: str) -> str:
    """Apply the rules to a reference or an answer, in their order."""
    for rule in ASCII_RULES if text.isascii() else RULES:
        text = rule.pattern.sub(rule.becomes, text)
    return text


def amount_of(text: str) -> str | None:
    """The number of a quantity such as `60 km/h` or `7 pencils`; None where the words may be more than a unit."""
    found = QUANTITY.fullmatch(text)
    return found[1] if found else None


def write_out(number: str) -> str:
    """Write a number without a power of ten: `1.5e3` is `1500`."""
    return format(Decimal(number), "f")


def name_functions(text: str) -> str:
    """Give functions and Greek letters their backslash: `2 arctan x` would be a product of letters."""
    return NAME.sub(r"\\\1 ", text)


def _marked_as_mathematics(match: Match) -> str:
    if match["marked"] or not SPECIAL.search(match[0]):
        return match[0]
    run = match[0].rstrip(".,-")
    while run.endswith(")") and run.count(")") > run.count("("):
        run = run[:-1].rstrip(".,")
    start = next((at for at in range(len(run)) if run[at] != "(" or run[at:].count("(") <= run.count(")")), len(run))
    before, inner, after = run[:start], run[start:], match[0][len(run) :]
    return rf"{before}\({inner}\){after}" if SPECIAL.search(inner) else match[0]


def _mixed(match: Match) -> str:
    whole = int(match["whole"].replace(",", ""))
    over, under = int(match["over"] or match["over2"]), int(match["under"] or match["under2"])
    if not 0 < over < under:
        return match[0]
    improper = whole * under + over
    return rf"\frac{{{improper}}}{{{under}}}" if "frac" in match[0] else f"{improper}/{under}"


def _vulgar(match: Match) -> str:
    over, _, under = unicodedata.normalize("NFKC", match[0]).partition("⁄")
    return rf"\frac{{{over}}}{{{under}}}"


def _written_out(match: Match) -> str:
    return write_out(f"{match['number']}e{match['power'] or match['power2']}")


def _root(match: Match) -> str:
    degree = "[3]" if match["sign"] == "∛" else ""
    return rf"\sqrt{degree}{{{match['inner'] or match['one']}}}"


def _plain(match: Match) -> str:
    return unicodedata.normalize("NFKC", match[0])


RULES = (
    Rule("a thin space", r"5\,000", "5000", re.compile(r"(?<=\d)(?:\\,|[\u2009\u202f])(?=\d{3}(?!\d))"), ""),
    Rule("a minus sign", "−5", "-5", re.compile("−"), "-"),
    Rule("letters of mathematics", "𝑥+1", "x+1", re.compile("[\U0001d400-\U0001d7ff]+"), _plain),
    Rule("a fraction bar", "3⁄4", "3/4", re.compile(r"(?<=\d)⁄(?=\d)"), "/"),
    Rule("degrees as a number", "The angle is 30°.", "The angle is 30.", re.compile(r"(?<=\d)\s?°(?:[CF]\b)?"), ""),
    Rule("the power of a unit", "25 cm²", "25 cm", re.compile(rf"(?<=\d)(\s?{ONE})[²³](?!\s?[-+*/^\w])"), r"\1"),
    Rule("Unicode in a sentence", "The area is 4√5.", r"The area is \(4\sqrt{5}\).", RUN, _marked_as_mathematics),
    Rule("a fraction in one letter", r"\boxed{½}", r"\boxed{\frac{1}{2}}", re.compile("[½⅓⅔¼¾⅕-⅞]"), _vulgar),
    Rule("raised figures", r"\boxed{3²}", r"\boxed{3^{2}}", re.compile("[⁰¹²³⁴-⁹⁺⁻⁽⁾ⁿ]+"),
         lambda match: f"^{{{match[0].translate(SUPERSCRIPTS)}}}"),
    Rule("lowered figures", r"\boxed{x₁}", r"\boxed{x_{1}}", re.compile("[₀-₉]+"),
         lambda match: f"_{{{match[0].translate(SUBSCRIPTS)}}}"),
    Rule("a root", r"\boxed{√(x+1)}", r"\boxed{\sqrt{x+1}}",
         re.compile(r"(?P<sign>[√∛])\s?(?:\((?P<inner>[^()]{1,200})\)|(?P<one>\d+(?:\.\d+)?|[A-Za-z]))"), _root),
    Rule("symbols", r"\boxed{2πr}", r"\boxed{2\pi r}", re.compile(f"[{''.join(SYMBOLS)}]"),
         lambda match: SYMBOLS[match[0]]),
    Rule("a mixed number", "2 3/4", "11/4", MIXED, _mixed),
    Rule("a power of ten", r"1.5 \times 10^{3}", "1500", POWER_OF_TEN, _written_out),
    Rule("a date", "2024-01-05", r"\text{2024-01-05}",
         re.compile(r"(?<![\w.\-+/])(?<!\\text\{)(\d{4}-\d\d-\d\d)(?![\w\-+/]|\.\d)"), r"\\text{\1}"),
    Rule("a tie", r"\boxed{18~\text{cm}}", r"\boxed{18 \text{cm}}", re.compile("~(?!=)"), " "),
    Rule("a full stop in a box", r"\boxed{18.}", r"\boxed{18}", re.compile(r"(?<=[\d}])\.\s*(?=\})"), ""),
    Rule("a unit in a box", r"\boxed{60 km/h}", r"\boxed{60}", re.compile(r"(?<=\\boxed\{)[^{}]{1,80}(?=\})"),
         lambda match: amount_of(match[0]) or match[0]),
    Rule("names in mathematics", r"\boxed{pi/2}", r"\boxed{\pi /2}", FORMULA, lambda match: name_functions(match[0])),
)  # fmt: skip
ASCII_RULES = tuple(rule for rule in RULES if rule.before.isascii())  # the others look for letters that are not
