"""Notations of references and answers: each rule, the table in docs/grading.md, and numbers written in many ways."""

import re
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from persyn_hf.backends.grading.judge import judge, parse_reference
from persyn_hf.backends.grading.notation import RULES, Rule, amount_of, rewrite


@pytest.mark.parametrize("rule", RULES, ids=[rule.name for rule in RULES])
def test_a_rule_does_what_its_example_says(rule: Rule) -> None:
    assert rewrite(rule.before) == rule.after
    assert rewrite(rule.after) == rule.after
    assert rule.pattern.search(rule.before) or not rule.before.isascii()  # an earlier rule may have changed the sign


def test_the_table_of_the_documentation_is_that_of_the_code(root: Path) -> None:
    page = (root / "docs" / "grading.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|`]+) \| `([^|]*)` \| `([^|]*)` \|$", page, re.MULTILINE)
    assert rows == [(rule.name, rule.before, rule.after) for rule in RULES]


def test_the_verdicts_of_the_documentation_are_those_of_the_code(root: Path) -> None:
    page = (root / "docs" / "grading.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^|]*)` \| `([^|]*)` \| (right|wrong|null) \|", page, re.MULTILINE)
    assert len(rows) >= 20
    verdicts = {True: "right", False: "wrong", None: "null"}
    assert [row for row in rows if verdicts[judge(row[0], row[1])] != row[2]] == []


@pytest.mark.parametrize(
    ("reference", "answer", "verdict"),
    [
        # mixed numbers
        ("2 3/4", "\\boxed{\\frac{11}{4}}", True),
        ("2 3/4", "\\boxed{\\frac{5}{4}}", False),
        ("2 3/4 miles", "She walks 2.75 miles.", True),
        ("-2 3/4", "\\boxed{-2\\frac{3}{4}}", True),
        ("7/2", "The answer is 3 1/2.", True),
        ("3", "The answer is 3 1/2.", False),
        ("1", "so \\boxed{1½}", False),
        ("3/2", "so \\boxed{1½}", True),
        # Unicode in sentences, in boxes, in references
        ("7\\pi", "The area is 7π.", True),
        ("7", "The area is 7π.", False),
        ("9\\pi", "The area is πr² = 9π cm².", True),
        ("78.5", "The area is 3.14 × 5² = 78.5 cm².", True),
        ("\\frac{\\sqrt{2}}{2}", "It is √2/2.", True),
        ("x^2+1", "So f(x) = x² + 1.", True),
        ("(-\\infty, 3)", "Hence x lies in (−∞, 3).", True),
        ("(-\\infty,-2)\\cup(2,\\infty)", "x ∈ (−∞, −2) ∪ (2, ∞)", True),
        ("−5", "\\boxed{-5}", True),
        ("60", "The angle is 60°.", True),
        ("60°", "\\boxed{60^\\circ}", True),
        ("7√2", "7", False),
        ("4³", "\\boxed{64}", True),
        # powers of ten
        ("6.02 \\times 10^{23}", "\\boxed{6.02e23}", True),
        ("6.02 × 10²³", "It is 6.02 × 10^23.", True),
        ("3e8", "The speed is 3 × 10⁸ m/s.", True),
        ("7.1e19", "\\boxed{7.2 \\cdot 10^{19}}", False),
        ("1.6e-19", "\\boxed{1.6 \\times 10^{-19}}", True),
        ("1.6e-19", "\\boxed{1.7 \\times 10^{-19}}", False),
        ("1e500", "\\boxed{10^{500}}", True),
        ("1e5000", "\\boxed{1e5000}", None),
        # units
        ("45 km/h", "\\boxed{45}", True),
        ("45 km/h", "\\boxed{45~\\text{km/h}}", True),
        ("3.2 kg·m/s²", "\\boxed{3.2}", True),
        ("12 m^2", "The area is 12 square metres.", True),
        ("12cm", "\\boxed{12.}", True),
        ("5 cups of tea", "5", True),
        # words that are more than a unit
        ("4 phi", "\\boxed{4}", False),
        ("4 phi", "\\boxed{4\\phi}", True),
        ("3 million", "\\boxed{3}", None),
        ("1 or many", "\\boxed{1}", None),
        ("6 dozen eggs", "\\boxed{6}", None),
        ("8 abc xyz", "\\boxed{8}", None),
        # letters
        ("DEF", "\\boxed{DEF}", True),
        ("DEF", "\\boxed{FED}", None),
        ("DEF", "\\boxed{DEG}", False),
        ("\\triangle DEF", "\\boxed{\\triangle DFE}", None),
        ("xy", "\\boxed{yx}", True),
        # dates
        ("1999-12-31", "\\boxed{1956}", None),
        ("1956", "\\boxed{1999-12-31}", False),
        ("3/4/2021", "\\boxed{0.000371}", None),
        # formulas as they are typed
        ("sin(x)/2", "$\\frac{\\sin x}{2}$", True),
        ("\\sqrt{1/n}", "\\sqrt{1/n}", True),
        ("pi/3", "pi/3", True),
        ("\\frac{\\pi}{3}", "\\boxed{pi/3}", True),
        # numbers that are small
        ("\\frac{1}{2^{70}}", "\\boxed{2^{-71}}", False),
        ("\\frac{1}{2^{70}}", "\\boxed{2^{-70}}", True),
        # a part of the reference
        ("$g(n)=2$ for all even $n>1$", "$n>1$", None),
        ("g(n) = 2 for all n > 1", "$g(n)=0$", None),
        ("$2$ cm or $3$ cm", "$2$ and $3$", True),
        ("We add $2$ and $5$, so $x = \\boxed{7}$ pencils are left.", "\\boxed{7}", True),  # a solution of MATH
        ("Since $1+1=2$, it is \\boxed{7} for all $n>0$.", "2", False),
        ("$\\frac{1}{2}$ cup", "0.5", True),
        ("5:30 pm", "5:30", None),
        ("MR=SRMC", "\\boxed{MR=SRMC}, marginal revenue is short-run marginal cost.", True),
        ("3 to 1", "3", None),
        ("no solution", "\\boxed{\\text{no solution}}", True),
    ],
)
def test_verdicts_on_notations(reference: str, answer: str, verdict: bool | None) -> None:
    assert judge(reference, answer) is verdict


def test_an_answer_in_plain_letters_and_figures_is_left_as_it_is() -> None:
    for text in (
        "It is 5.",
        "$5 and $7",
        "3-2 = 1",
        "a 10-12 year old",
        "12:30",
        "1/2 of 3/4",
        "16, 3/4, 1/2",
        "2^10 1/2",
    ):
        assert rewrite(text) == text
    assert rewrite("the 2 1/2-pound bag") == "the 5/2-pound bag"


@pytest.mark.parametrize(
    "text", ["5 hundred", "2 xyz", "10 minus x", "2 arctan x", "5", "pencils", "3 x", "7 of 9", ""]
)
def test_what_is_no_amount(text: str) -> None:
    assert amount_of(text) is None


RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def spellings(value: Fraction) -> list[str]:
    """A rational in the ways that people write it."""
    over, under = value.numerator, value.denominator
    sign, whole, rest = "-" if value < 0 else "", abs(over) // under, abs(over) % under
    found = [f"{over}/{under}", f"\\frac{{{over}}}{{{under}}}", f"{sign}\\dfrac{{{abs(over)}}}{{{under}}}"]
    if whole and rest:
        found += [
            f"{sign}{whole} {rest}/{under}",
            f"{sign}{whole}\\frac{{{rest}}}{{{under}}}",
            f"{sign.replace('-', '−')}{whole} {rest}⁄{under}",
        ]
    if Fraction(rest, under) == Fraction(1, 2):
        found.append(f"{sign}{whole or ''}½")
    if 10**4 % under == 0:  # four decimals are exact
        decimal = f"{float(value):.4f}"
        found += [decimal, decimal.rstrip("0").rstrip("."), decimal.replace("-", "−")]
        percent = value * 100
        if percent.denominator == 1:
            found += [f"{percent}\\%", f"{percent}%"]
        scaled = f"{float(value) / 1000:.7f}"
        found += [f"{scaled} \\times 10^{{3}}", f"{scaled} × 10³", f"{float(value) * 1000:.1f} \\cdot 10^{{-3}}"]
    return found


RATIONALS = st.builds(Fraction, st.integers(-60, 60), st.sampled_from([1, 2, 3, 4, 5, 7, 8, 10, 16, 25])).filter(
    lambda value: value != 0
)
FORMS = ["\\boxed{%s}", "So it is $%s$.", "\\(%s\\)"]


@settings(max_examples=150)
@given(value=RATIONALS, data=st.data())
def test_a_rational_is_right_in_all_its_spellings(value: Fraction, data: st.DataObject) -> None:
    reference, answer = (data.draw(st.sampled_from(spellings(value))) for _ in range(2))
    form = data.draw(st.sampled_from(FORMS))
    assert judge(reference, form % answer) is True, (reference, form % answer)
    assert parse_reference(reference)[0]


@settings(max_examples=150)
@given(value=RATIONALS, other=RATIONALS, data=st.data())
def test_another_rational_is_wrong_in_all_its_spellings(value: Fraction, other: Fraction, data: st.DataObject) -> None:
    assume(abs(value - other) > Fraction(1, 1000))
    reference, answer = data.draw(st.sampled_from(spellings(value))), data.draw(st.sampled_from(spellings(other)))
    assume(not ("%" in reference + answer and 100 in (value / other, other / value)))  # 50% agrees with 50 as well
    assert judge(reference, data.draw(st.sampled_from(FORMS)) % answer) is False, (reference, answer)


@settings(max_examples=60)
@given(value=st.integers(1, 9999), power=st.integers(-30, 60), other=st.integers(1, 9999))
def test_powers_of_ten_are_compared_in_proportion(value: int, power: int, other: int) -> None:
    raised = str(power).translate(RAISED)
    writings = [
        f"{{}}e{power}",
        f"{{}} \\times 10^{{{{{power}}}}}",
        f"{{}} × 10{raised}",
        f"{{}} \\cdot 10^{{{{{power}}}}}",
    ]
    for reference in writings:
        for answer in writings:
            verdict = judge(reference.format(value), f"\\boxed{{{answer.format(other)}}}")
            assert verdict is (value == other), (reference.format(value), answer.format(other))


@settings(max_examples=200)
@given(text=st.text(max_size=60) | st.text(st.sampled_from("12 ½²√π×()/^{}\\$.,-−°~eaxfrc"), max_size=60))
def test_any_text_can_be_rewritten(text: str) -> None:
    assert isinstance(rewrite(text), str)
    assert rewrite(text) == text or not text.isalpha() or not text.isascii()
