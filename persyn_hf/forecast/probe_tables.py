"""Show what a probe found: two tables and a sentence."""

from persyn_hf.core.probe import SURE
from persyn_hf.core.statistics import Interval
from persyn_hf.forecast.probe import Findings
from persyn_hf.report.tables import Shown, Table, shown


FORM = "{:+.3f}"


def probe_tables(findings: Findings, worth: float) -> list[Table]:
    """Return a table of the teachers, the best first, and one of what routing would gain."""
    return [_teachers(findings), _gains(findings, worth)]


def recommendation(findings: Findings, worth: float) -> str:
    """Return the recommendation, one sentence."""
    found = findings.found
    best = findings.pool[found.best]
    gain, also = _interval(found.router_gain), _as_good(findings)
    if found.verdict == "one teacher":
        return (
            f"one teacher will do, {best}{also}, as far as {sum(findings.cells):,} cells show: a cheap router gains "
            f"{gain} of reward over it, and {worth:g} would be worth it"
        )
    if found.verdict == "route":
        return (
            f"route, with about {_rounded(found.enough):,} calibration cells: what a prompt says decides who is "
            f"better, and from {sum(findings.cells):,} cells alone a cheap router gains {gain} of reward over {best}"
        )
    cells = max(_rounded(found.enough), 2 * sum(findings.cells))
    return (
        f"it cannot be told yet: a cheap router gains {gain} of reward over {best}{also}, and {worth:g} would be "
        f"worth it; probe again with --cells {cells}, what was asked is not asked again"
    )


def _teachers(findings: Findings) -> Table:
    found = findings.found
    order = sorted(range(len(findings.pool)), key=lambda place: found.behind[place].value)
    rows = [
        [
            findings.pool[place],
            shown("{:,}", findings.cells[place]),
            "kept" if findings.kept[place] else "dropped",
            "best" if place == found.best else _shown(found.behind[place]),
        ]
        for place in order
    ]
    return Table(
        name="probe-teachers",
        title=f"{len(findings.pool)} teachers on {sum(findings.cells):,} cells",
        header=["teacher", "cells", "", "reward behind the best"],
        rows=rows,
        note="paired over the prompts that both were asked, with 90 % intervals; dropped after the first round",
    )


def _gains(findings: Findings, worth: float) -> Table:
    found = findings.found
    further = _rounded(found.enough - sum(findings.cells))
    rows = [
        [f"reward of the best teacher, {findings.pool[found.best]}", _shown(found.reward, "{:.3f}")],
        ["gain of a perfect router over it, at most", _shown(found.oracle_gain)],
        ["gain of a cheap router on prompts it has not seen", _shown(found.router_gain)],
        ["prompts that it sends to another teacher", shown("{:.0%}", found.leaves)],
        ["chance that what prompts tell is an accident", shown("{:.3f}", found.chance)],
        [f"further cells for a gain known to ± {worth / 2:g}", Shown(f"{further:,}", further)],
    ]
    return Table(
        name="probe-gains",
        title=f"Is routing worth it? {found.prompts:,} prompts with rewards of every teacher kept",
        header=["", "value"],
        rows=rows,
        note="90 % intervals; a perfect router knows every reward, noise included, and no router reaches it; the "
        "cheap one is cross-validated; chance: to find as much where prompts tell nothing of who is better, up to "
        f"{SURE:g} they surely do; worth it: a gain of {worth:g} (--worth)",
    )


def _as_good(findings: Findings) -> str:
    """Name the kept teachers that are not surely worse than the best one."""
    found = findings.found
    others = [
        name
        for place, name in enumerate(findings.pool)
        if findings.kept[place] and place != found.best and found.behind[place].low <= 0
    ]
    return f" ({', '.join(others)} may be as good)" if others else ""


def _shown(interval: Interval, form: str = FORM) -> Shown:
    return shown(form, *_plain(interval))


def _interval(interval: Interval) -> str:
    return f"{FORM} ({FORM} to {FORM})".format(*_plain(interval))


def _plain(interval: Interval) -> Interval:
    """Round to the digits that are shown; what rounds to 0 has no sign."""
    return Interval(*(round(value, 3) + 0.0 for value in interval))


def _rounded(number: int) -> int:
    """Round up to two digits, as an estimate should be: 1,614 becomes 1,700."""
    unit = 10 ** max(0, len(str(number)) - 2)
    return -(-number // unit) * unit
