"""Tables: what people read, and the plain numbers that CSV holds."""

import csv
import io

import pytest
from rich.console import Console

from persyn_hf.core.cost import Cost
from persyn_hf.formats import known_columns
from persyn_hf.report.tables import Shown, Table, cost_cells, shown


def table(*rows: list[str]) -> Table:
    return Table(name="t", title="T", header=["who", "score", "n"], rows=list(rows))


def test_intervals_take_three_columns_and_text_stays() -> None:
    rows = [
        ["a|b", Shown("58.6 [54.0, 63.2]", 0.5861, 0.54, 0.632), shown("{:,}", 1680)],
        ["c, d", shown("{:.1f}", None), "total"],
        ["e", shown("{:+.2f}", 1 / 3), shown("{:.0%}", 1.0)],
    ]
    assert table(*rows).csv().splitlines() == [
        "who,score,score low,score high,n",
        "a|b,0.5861,0.54,0.632,1680",
        '"c, d",,,,total',
        "e,0.3333333333333333,,,1",
    ]
    assert (
        "| a\\|b | 58.6 [54.0, 63.2] | 1,680 |\n| c, d | – | total |\n| e | +0.33 | 100% |" in table(*rows).markdown()
    )


def test_names_from_anywhere_are_shown_as_they_are_and_command_nothing() -> None:
    nasty = "[bold]a[/b]\x1b[2J\u202e\nb\ud800 :smile:"
    made = Table(name="t", title=nasty, header=[nasty, "n"], rows=[[nasty, shown("{:d}", 1)]], note=nasty)
    printed = io.StringIO()
    Console(file=printed, width=100, force_terminal=True, color_system=None).print(made.rich(100))
    for text in (made.markdown(), made.csv(), printed.getvalue()):
        text.encode()
        assert "[bold]a[/b] b\ufffd :smile:" in text
        assert not {"\x1b", "\u202e"} & set(text)


@pytest.mark.parametrize("value", [None, float("nan")])
def test_what_is_not_known_is_empty(value: float | None) -> None:
    assert shown("{:.3f}", value, value, value) == "–"
    assert table(["a", shown("{:.3f}", value), Shown("nothing", value)]).csv() == "who,score,n\na,,\n"


def test_large_and_small_numbers_are_whole() -> None:
    numbers = (1.5e21, 2**53, 1e-9, 0.1 + 0.2, float("inf"))
    text = table(*([str(place), shown("{:.1e}", number), ""] for place, number in enumerate(numbers))).csv()
    assert tuple(float(row["score"]) for row in csv.DictReader(io.StringIO(text))) == numbers


def test_costs_are_in_plain_units() -> None:
    cost = Cost(requests=1200, prompt_tokens=None, completion_tokens=None, seconds=7200, flops=3.5e15, money=None)
    columns = known_columns([cost])
    cells = cost_cells(columns, cost)
    found = Table(name="t", title="T", header=[column.title for column in columns], rows=[cells])
    assert cells == ["1,200", "2.00 h", "3.50 PFLOPs"]
    assert found.csv() == "answers,time,compute\n1200,7200,3500000000000000\n"


def test_a_table_without_rows_has_its_header() -> None:
    assert table().csv() == "who,score,n\n"


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_on_a_narrow_terminal_columns_follow_below_and_none_is_cut(width: int) -> None:
    names = ["who", *(f"strategy-{number}" for number in range(14))]
    rows = [[f"teacher-{row}", *(f"{row + number / 10:.1f}%" for number in range(14))] for row in range(3)]
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(Table(name="t", title="T", header=names, rows=rows, note="note").rich(width))
    lines = [line.split() for line in console.export_text().splitlines()]
    tops = [place for place, words in enumerate(lines) if words[:1] == ["who"]]
    assert (len(tops) == 1) == (width == 200)
    for row, down in ((names, 0), (rows[0], 2), (rows[1], 3), (rows[2], 4)):  # a rule stands below the header
        assert [words for top in tops for words in lines[top + down][1:]] == row[1:]
        assert {lines[top + down][0] for top in tops} == {row[0]}
