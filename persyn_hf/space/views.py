"""The six views as HTML: what they ask of the artifacts, and the templates that show it."""

from collections.abc import Callable, Sequence
from os.path import commonprefix
from typing import Any

from persyn_hf.core.cost import Cost
from persyn_hf.core.rewards import How
from persyn_hf.errors import InputError
from persyn_hf.formats import HIT_MEANING, METRIC_TITLES, amount, flops, known_columns
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
from persyn_hf.store.manifest_parts import router_row
from persyn_hf.store.stored import Stored


# The calibration error is shown with the reliability, the divergence of the allocation not at all.
METRICS = {name: title for name, title in METRIC_TITLES.items() if name not in ("calibration_error", "allocation_js")}
ROWS = ("router", "random", "global_best", "oracle")  # of a router's table
QUALITY, LEARNED, COST = "#3f8f5f", "#3b6fb6", "#c2572b"


def labels(refs: Sequence[str]) -> list[str]:
    """Return what tells references apart: the part that they share is cut off at a `-`."""
    shared = commonprefix(list(refs)) if len(refs) > 1 else ""
    return [ref[shared.rfind("-") + 1 :] for ref in refs]


def label(database: Database, ref: str) -> str:
    """Return the label of a reference among all assignments that are shown."""
    refs = [item.ref for item in database.shelf.assignments]
    return labels(refs)[refs.index(ref)]


def allocation_view(database: Database, assignments: Sequence[Stored], by: By, split: str) -> str:
    """Return the view of who gets how many prompts."""
    if not assignments:
        return pages.message("Nothing is chosen", "Choose one or more assignments above.")
    allocation = allocate(database, assignments, by, split)
    if not allocation.groups:
        return pages.message(
            "No prompt is in this split", f"None of these assignments holds the split {split}; choose another."
        )
    return pages.render(
        "allocation",
        found=allocation,
        by=by,
        looks=pages.looks(allocation.teachers),
        labels=[label(database, ref) for ref in allocation.refs],
        summary=summary(allocation.groups[0].shares),
    )


def explorer_view(
    database: Database, assignment: Stored, wanted: Filter, number: int, opened: str
) -> tuple[str, Page]:
    """Return the list of the prompts that pass a filter, and the page that it shows."""
    page = find(database, assignment, wanted, number)
    named = {look["name"]: look for look in pages.looks(teachers_of(assignment))}
    return pages.render("explorer", page=page, looks=named, opened=opened), page


def prompt_view(database: Database, assignment: Stored, prompt_id: str) -> str:
    """Return the view of one prompt that is opened."""
    prompt = open_prompt(database, assignment, prompt_id)
    named = {look["name"]: look for look in pages.looks(teachers_of(assignment))}
    ordered = sorted(prompt.candidates, key=lambda candidate: (not candidate.chosen, _order(candidate)))
    return pages.render("prompt", found=prompt, looks=named, ordered=ordered, why=why(prompt), longest=LONGEST)


def _order(candidate: Any) -> tuple[float, float]:
    """Return the sort key of a candidate: best reward first, then best score."""
    reward, score = candidate.measures["reward"], candidate.score
    return (-reward if reward is not None else float("inf"), -score if score is not None else float("inf"))


def why(prompt: Opened) -> list[str]:
    """Return sentences on how the choice for a prompt came about."""
    lines = []
    for candidate in prompt.chosen:
        name = candidate.teacher.name
        if prompt.source == "rule":
            lines.append(f"{name} was given by rule: the strategy looks at no score of this prompt.")
        elif candidate.score is not None:
            what = "the router's score" if prompt.source == "router" else "the measured reward"
            ahead = "" if prompt.margin is None else f"; the best is {prompt.margin:.3g} ahead of the second"
            lines.append(f"{name} was chosen by {what}, {candidate.score:.3g}{ahead}.")
        if prompt.confidence is not None:
            lines.append(
                f"By what dev showed, such a lead is right, or as good as right, {prompt.confidence:.0%} of the time."
            )
        measures, alpha = candidate.measures, prompt.settings.get("alpha")
        parts = [measures[name] for name in ("reward", "quality_reward", "learnability_reward")]
        if alpha is not None and None not in parts:
            reward, quality, learned = parts
            lines.append(
                f"Measured: reward {reward:.3g} = {1 - alpha:.2g} × quality {quality:.3g} + "
                f"{alpha:.2g} × learnability {learned:.3g}, rank {measures['rank']} of {len(prompt.candidates)}."
            )
    best = [c for c in prompt.candidates if c.measures["rank"] == 1]
    if best and not any(c.chosen for c in best):
        lines.append(
            f"The best measured: {', '.join(c.teacher.name for c in best)}, reward {best[0].measures['reward']:.3g}."
        )
    if not any(c.is_measured for c in prompt.candidates):
        lines.append("No answer to this prompt was scored, so only the router's scores are known.")
    return lines


def whatif_view(
    database: Database, assignment: Stored, rewards: whatif.Measured, alpha: float, how: How, weight: float
) -> str:
    """Return the view of what other weights would have chosen.

    Args:
        alpha: the weight of learnability, 0 to 1.
        weight: the reward given up for one more answer of mean cost.
    """
    settings = {"alpha": rewards.settings.get("alpha"), "normalisation": rewards.settings.get("normalisation")}
    paper_how: How = "minmax"
    now = whatif.what_if(rewards, alpha, how, weight)
    used = 0.4 if settings["alpha"] is None else settings["alpha"]
    here = whatif.what_if(rewards, used, settings["normalisation"] or "minmax")
    paper = whatif.what_if(rewards, 0.4, paper_how)
    sweep = whatif.curve(rewards, how, weight)
    measure = LEARNABILITY[rewards.measure]
    named = [("mean quality", "quality", QUALITY), (f"mean {measure}", "learnability", LEARNED)]
    named += [("cost", "cost", COST)] if rewards.cost is not None else []
    text = flops if rewards.unit == "FLOPs" else lambda number: f"{amount(number)} {rewards.unit}"
    series = [
        (f"{name}, {_range(sweep, field, text)}", _unit(sweep, field), colour, field == "cost")
        for name, field, colour in named
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
        cost=lambda outcome: "–" if outcome.cost is None else text(outcome.cost),
        xs=list(sweep),
        series=series,
        marks=marks,
        unit=rewards.unit,
        prompts=rewards.prompts,
        sampled=len(rewards.quality),
    )


def _range(sweep: dict[float, Any], field: str, cost_text: Callable[[float], str]) -> str:
    """Return the smallest and the largest value of a field over the sweep, as text."""
    values = [getattr(outcome, field) for outcome in sweep.values()]
    return " to ".join(cost_text(v) if field == "cost" else f"{v:.3g}" for v in (min(values), max(values)))


def _unit(sweep: dict[float, Any], field: str) -> list[float]:
    """Return a field over the sweep, scaled to 0 at its smallest and 1 at its largest value."""
    values = [getattr(outcome, field) for outcome in sweep.values()]
    spread = max(values) - min(values)
    return [(value - min(values)) / spread if spread else 0.5 for value in values]


def quality_view(database: Database, assignment: Stored) -> str:
    """Return the view of how good the router is: on dev prompts, and on those that it decided."""
    router = database.shelf.input(assignment, "router")
    metrics = router.manifest.metrics if router is not None else {}
    dev = {row: cells for row in ROWS if (cells := router_row(metrics, row))}
    words, parts = {"metric_names": METRICS, "hit_meaning": HIT_MEANING}, []
    if "router" in dev and router is not None:
        title = f"On {router.manifest.counts.get('dev_prompts', 0):,} dev prompts that the router never saw"
        parts.append(pages.render("quality", metrics=dev, metrics_title=title, found=None, **words))
    try:
        quality = router_quality(database, assignment)
    except InputError as error:
        return "".join([pages.message("No measured decisions of a router", str(error)), *parts])
    title = f"On {quality.sampled:,} of the prompts that it decided"
    shown = {
        "found": quality,
        "looks": pages.looks(teachers_of(assignment)),
        "most": max(int(quality.confusion.max()), 1),
    }
    shown["most_pairs"] = max((row["pairs"] for row in quality.reliability), default=1)
    return "".join([*parts, pages.render("quality", metrics=quality.table, metrics_title=title, **words, **shown)])


def cost_view(database: Database, assignment: Stored) -> str:
    """Return the view of what an assignment costs against generate-then-select."""
    spent = costs(database, assignment)
    own, everything = spent.ways["this assignment"], spent.ways["generate-then-select"]
    facts = [("prompts", f"{spent.prompts:,}"), ("of them answered by every teacher", f"{spent.labelled:,}")]
    if own.requests:
        facts.append(("fewer answers", f"{everything.requests / own.requests:.1f}×"))
    if own.flops and everything.flops:
        facts.append(("less compute", f"{everything.flops / own.flops:.1f}×"))
    tables = [("The same prompts, answered two ways", _cost_rows("way", spent.ways))]
    if spent.measured:
        tables.append(
            ("Measured, answers made for this assignment", _cost_rows("teacher", spent.measured, total=True))
        )
    tables.append(("One prompt, all its samples", _cost_rows("teacher", spent.cells)))
    named = {look["name"]: look for look in pages.looks(teachers_of(assignment))}
    return pages.render("cost", found=spent, summary=facts, tables=tables, looks=named)


def _cost_rows(first: str, lines: dict[str, Cost], total: bool = False) -> list[list[str]]:
    """Return a table of costs, its header first; `first` is the header of the names."""
    columns = known_columns(lines.values())
    shown = lines | ({"total": sum(lines.values(), Cost())} if total else {})
    body = [[name, *(column.cell(cost) for column in columns)] for name, cost in shown.items()]
    return [[first, *(column.title for column in columns)], *body]


def lineage_view(database: Database, assignment: Stored) -> str:
    """Return the view of where an assignment comes from."""
    chain = origin(database.shelf, assignment)

    def about(node: Any) -> str:
        """Return the line of an artifact without its reference."""
        return describe(node).partition("  ")[2]

    return pages.render("lineage", found=chain, address=hub_address, describe=about)


def picture(database: Database, allocation: Allocation) -> bytes:
    """Return the stacked bars of the first group as PNG."""
    import io

    from persyn_hf.report.figures import draw_allocation

    shares = {
        label(database, ref): dict(zip(allocation.names, row, strict=True))
        for ref, row in zip(allocation.refs, allocation.groups[0].shares.tolist(), strict=True)
    }
    stream = io.BytesIO()
    draw_allocation(allocation.teachers, shares).savefig(stream, format="png", dpi=150)
    return stream.getvalue()
