"""The six views as HTML: what is asked of the artifacts, and the template that shows it."""

from collections.abc import Callable, Sequence
from os.path import commonprefix
from typing import Any

from persyn_hf.core.cost import Cost
from persyn_hf.core.metrics import total_variation
from persyn_hf.core.rewards import How
from persyn_hf.errors import InputError
from persyn_hf.formats import METRIC_TITLES, amount, flops, known_columns
from persyn_hf.report.results import LEARNABILITY
from persyn_hf.report.show import describe
from persyn_hf.space import pages, whatif
from persyn_hf.space.allocation import Allocation, By, allocate, summary
from persyn_hf.space.collection import teachers_of
from persyn_hf.space.costs import costs
from persyn_hf.space.database import Database
from persyn_hf.space.explorer import Filter, Page, find
from persyn_hf.space.lineage import hub_address, origin
from persyn_hf.space.prompt import LONGEST, Opened, open_prompt
from persyn_hf.space.router_quality import router_quality
from persyn_hf.store.stored import Stored


# The calibration error is shown with the reliability, the divergence of the allocation not at all.
METRICS = {name: title for name, title in METRIC_TITLES.items() if name not in ("calibration_error", "allocation_js")}
QUALITY, LEARNED, COST = "#3f8f5f", "#3b6fb6", "#c2572b"


def labels(refs: Sequence[str]) -> list[str]:
    """What tells references apart: the part that they share is cut off at a `-`."""
    shared = commonprefix(list(refs)) if len(refs) > 1 else ""
    return [ref[shared.rfind("-") + 1 :] for ref in refs]


def label(database: Database, ref: str) -> str:
    """The label of a reference among all assignments that are shown."""
    refs = [item.ref for item in database.shelf.assignments]
    return labels(refs)[refs.index(ref)]


def allocation_view(database: Database, assignments: Sequence[Stored], by: By, split: str) -> str:
    if not assignments:
        return pages.message("Nothing is chosen", "Choose one or more assignments above.")
    found = allocate(database, assignments, by, split)
    if not found.groups:
        return pages.message(
            "No prompt is in this split", f"None of these assignments holds the split {split}; choose another."
        )
    return pages.render(
        "allocation",
        found=found,
        by=by,
        looks=pages.looks(found.teachers),
        labels=[label(database, ref) for ref in found.refs],
        summary=summary(found.groups[0].shares),
    )


def explorer_view(
    database: Database, assignment: Stored, wanted: Filter, number: int, opened: str
) -> tuple[str, Page]:
    page = find(database, assignment, wanted, number)
    named = {look["name"]: look for look in pages.looks(teachers_of(assignment))}
    return pages.render("explorer", page=page, looks=named, opened=opened), page


def prompt_view(database: Database, assignment: Stored, prompt_id: str) -> str:
    found = open_prompt(database, assignment, prompt_id)
    named = {look["name"]: look for look in pages.looks(teachers_of(assignment))}
    ordered = sorted(found.candidates, key=lambda candidate: (not candidate.chosen, _order(candidate)))
    return pages.render("prompt", found=found, looks=named, ordered=ordered, why=why(found), longest=LONGEST)


def _order(candidate: Any) -> tuple[float, float]:
    reward, score = candidate.measures.get("reward"), candidate.score
    return (-reward if reward is not None else float("inf"), -score if score is not None else float("inf"))


def why(found: Opened) -> list[str]:
    """Sentences on how the choice came about."""
    lines = []
    for candidate in found.chosen:
        name = candidate.teacher.name
        if found.source == "rule":
            lines.append(f"{name} was given by rule: the strategy looks at no score of this prompt.")
        elif candidate.score is not None:
            what = "the router's score" if found.source == "router" else "the measured reward"
            ahead = "" if found.margin is None else f"; the best is {found.margin:.3g} ahead of the second"
            lines.append(f"{name} was chosen by {what}, {candidate.score:.3g}{ahead}.")
        if found.confidence is not None:
            lines.append(
                f"By what dev showed, such a lead is right, or as good as right, {found.confidence:.0%} of the time."
            )
        of, alpha = candidate.measures, found.settings.get("alpha")
        parts = [of.get(name) for name in ("reward", "quality_reward", "learnability_reward")]
        if alpha is not None and None not in parts:
            lines.append(
                f"Measured: reward {of['reward']:.3g} = {1 - alpha:.2g} × quality {of['quality_reward']:.3g} + "
                f"{alpha:.2g} × learnability {of['learnability_reward']:.3g}, rank {of['rank']} "
                f"of {len(found.candidates)}."
            )
    best = [c for c in found.candidates if c.measures.get("rank") == 1]
    if best and not any(c.chosen for c in best):
        lines.append(
            f"The best measured: {', '.join(c.teacher.name for c in best)}, reward {best[0].measures['reward']:.3g}."
        )
    if not any(c.measures for c in found.candidates):
        lines.append("No answer to this prompt was scored, so only the router's scores are known.")
    return lines


def whatif_view(
    database: Database, assignment: Stored, found: whatif.Measured, alpha: float, how: How, weight: float
) -> str:
    settings = {"alpha": found.settings.get("alpha"), "normalisation": found.settings.get("normalisation")}
    paper_how: How = "minmax"
    now = whatif.what_if(found, alpha, how, weight)
    used = 0.4 if settings["alpha"] is None else settings["alpha"]
    here = whatif.what_if(found, used, settings["normalisation"] or "minmax")
    paper = whatif.what_if(found, 0.4, paper_how)
    sweep = whatif.curve(found, how, weight)
    measure = LEARNABILITY[found.measure]
    named = [("mean quality", "quality", QUALITY), (f"mean {measure}", "learnability", LEARNED)]
    named += [("cost", "cost", COST)] if found.cost is not None else []
    text = flops if found.unit == "FLOPs" else lambda number: f"{amount(number)} {found.unit}"
    series = [
        (f"{name}, {_range(sweep, of, text)}", _unit(sweep, of), colour, of == "cost") for name, of, colour in named
    ]
    marks = [(0.4, "the paper 0.4")] if used == 0.4 else [(0.4, "the paper"), (used, "the recipe")]
    marks += [(alpha, "now")] if abs(alpha - 0.4) > 0.06 and abs(alpha - used) > 0.06 else []
    return pages.render(
        "whatif",
        looks=pages.looks(teachers_of(assignment)),
        now=now,
        here=here,
        paper=paper,
        alpha=alpha,
        normalisation=how,
        weight=weight,
        settings=settings,
        measure=measure,
        moved=float(total_variation(now.shares, here.shares)),
        cost=lambda one: "–" if one.cost is None else text(one.cost),
        xs=list(sweep),
        series=series,
        marks=marks,
        unit=found.unit,
        prompts=found.prompts,
        sampled=len(found.quality),
    )


def _range(sweep: dict[float, Any], of: str, cost_text: Callable[[float], str]) -> str:
    values = [getattr(one, of) for one in sweep.values()]
    return " to ".join(cost_text(v) if of == "cost" else f"{v:.3g}" for v in (min(values), max(values)))


def _unit(sweep: dict[float, Any], of: str) -> list[float]:
    """Between the least and the largest of the sweep."""
    values = [getattr(one, of) for one in sweep.values()]
    spread = max(values) - min(values)
    return [(value - min(values)) / spread if spread else 0.5 for value in values]


def quality_view(database: Database, assignment: Stored) -> str:
    router = database.shelf.input(assignment, "router")
    dev = router.manifest.metrics if router is not None and "router" in router.manifest.metrics else {}
    parts = []
    if dev and router is not None:
        title = f"On {router.manifest.counts.get('dev_prompts', 0):,} dev prompts that the router never saw"
        parts.append(pages.render("quality", metrics=dev, metrics_title=title, metric_names=METRICS, found=None))
    try:
        found = router_quality(database, assignment)
    except InputError as error:
        return "".join([pages.message("No measured decisions of a router", str(error)), *parts])
    title = f"On {found.sampled:,} of the prompts that it decided"
    shown = {"found": found, "looks": pages.looks(teachers_of(assignment)), "most": max(int(found.confusion.max()), 1)}
    shown["most_pairs"] = max((row["pairs"] for row in found.reliability), default=1)
    return "".join(
        [*parts, pages.render("quality", metrics=found.table, metrics_title=title, metric_names=METRICS, **shown)]
    )


def cost_view(database: Database, assignment: Stored) -> str:
    found = costs(database, assignment)
    own, everything = found.ways["this assignment"], found.ways["generate-then-select"]
    facts = [("prompts", f"{found.prompts:,}"), ("of them answered by every teacher", f"{found.labelled:,}")]
    if own.requests:
        facts.append(("fewer answers", f"{everything.requests / own.requests:.1f}×"))
    if own.flops and everything.flops:
        facts.append(("less compute", f"{everything.flops / own.flops:.1f}×"))
    tables = [("The same prompts, answered two ways", _cost_rows("way", found.ways))]
    if found.measured:
        tables.append(
            ("Measured, answers made for this assignment", _cost_rows("teacher", found.measured, total=True))
        )
    tables.append(("One prompt, all its samples", _cost_rows("teacher", found.cells)))
    named = {look["name"]: look for look in pages.looks(teachers_of(assignment))}
    return pages.render("cost", found=found, summary=facts, tables=tables, looks=named)


def _cost_rows(first: str, lines: dict[str, Cost], total: bool = False) -> list[list[str]]:
    columns = known_columns(lines.values())
    shown = lines | ({"total": sum(lines.values(), Cost())} if total else {})
    body = [[name, *(column.cell(cost) for column in columns)] for name, cost in shown.items()]
    return [[first, *(column.title for column in columns)], *body]


def lineage_view(database: Database, assignment: Stored) -> str:
    found = origin(database.shelf, assignment)

    def about(node: Any) -> str:
        return describe(node).partition("  ")[2]

    return pages.render("lineage", found=found, address=hub_address, describe=about)


def picture(database: Database, found: Allocation) -> bytes:
    """The first group's stacked bars as PNG."""
    import io

    from persyn_hf.report.figures import draw_allocation

    shares = {
        label(database, ref): dict(zip(found.names, row, strict=True))
        for ref, row in zip(found.refs, found.groups[0].shares.tolist(), strict=True)
    }
    stream = io.BytesIO()
    draw_allocation(found.teachers, shares).savefig(stream, format="png", dpi=150)
    return stream.getvalue()
