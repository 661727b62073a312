"""The tables that a run ends with: alpha, allocation, routers and costs of each student, and the ledger."""

from collections.abc import Mapping
from typing import Any

from persyn_hf.backends.journal import Spent
from persyn_hf.formats import COUNTED_HERE, METRIC_TITLES, UNKNOWN, known_columns
from persyn_hf.recipe import names
from persyn_hf.recipe.recipe import Recipe
from persyn_hf.recipe.roles import Student
from persyn_hf.recipe.strategies import alpha_of
from persyn_hf.report.frontier import frontier_table
from persyn_hf.report.judges import criteria_table, judges_table, paid_judges
from persyn_hf.report.partial_calibration import labelling_table
from persyn_hf.report.results import LEARNABILITY, allocations, alpha_sweep, measure_of, router_metrics, same_teacher
from persyn_hf.report.router_comparison import MEANING, comparison_tables
from persyn_hf.report.strategy_costs import StrategyCost, car, generate_then_select, paid, split_costs, strategy_cost
from persyn_hf.report.tables import Shown, Table, cost_cells, shown, shown_metric, total_cells
from persyn_hf.store.manifest import Manifest
from persyn_hf.store.manifest_parts import judged_on


# The gap closed is shown with its interval, in a column of its own.
OF_GAIN = (
    "gain: reward per prompt over the best single teacher, estimated from calibration cells that the router had not "
    "seen, with an interval of 95 % that allows for cells that were not asked"
)
ROUTER_COLUMNS = {name: title for name, title in METRIC_TITLES.items() if name != "gap_closed"}


def summary(
    recipe: Recipe, manifests: Mapping[str, Manifest], spent: Mapping[str, Spent] | None = None
) -> list[Table]:
    """Return the tables of a run: judges, alpha, allocation, routers and cost per student, then the ledger.

    What is not stored has no table.

    Args:
        manifests: manifest by the key of its step.
        spent: what the recipe has paid for by the journal (`read_spent`), by teacher.
    """
    tables: list[Table] = []
    for student in recipe.students:
        judging = (criteria_table, judges_table)
        make_each = (*judging, _alpha, allocation, frontier_table, labelling_table, _routers, _cost, _spending)
        tables += [make(recipe, manifests, student) for make in make_each]
        for key in router_metrics(recipe, manifests, student):
            tables += comparison_tables(names.without_kind(key), manifests[key])
    return [table for table in (*tables, _ledger(recipe, manifests, spent or {})) if table.rows]


def _alpha(recipe: Recipe, manifests: Mapping[str, Manifest], student: Student) -> Table:
    """Return a table with a column per alpha: each teacher's share of the measured prompts, then means of the best."""
    sweep = alpha_sweep(manifests, student)
    if not sweep:
        return Table(name=f"alpha-{student.name}", title="", header=[], rows=[])
    measures, measure = sweep["measures"], measure_of(sweep)
    rows = [
        [t.name, *(shown("{:.0%}", share.get(t.name, 0.0)) for share in sweep["allocation"].values())]
        for t in recipe.teachers
    ]
    for title, name, form in (
        ("quality", "quality_raw", "{:.3f}"),
        (LEARNABILITY[measure], measure, "{:.3f}"),
        ("teachers", "effective_teachers", "{:.1f}"),
        ("several best", "tied", "{:.0%}"),
        ("moved", "moved", "{:.0%}"),
    ):
        if all(name in values for values in measures.values()):  # earlier rewards lack the last two
            rows.append([title, *(shown(form, values[name]) for values in measures.values())])
    used = manifests[names.matrix_rewards(student)].settings.get("alpha")
    return Table(
        name=f"alpha-{student.name}",
        title=f"Weight of learnability: the best teachers for {student.name} on {sweep['prompts']:,} measured "
        f"prompts (alpha here: {used})",
        header=["alpha", *measures],
        rows=rows,
        note=f"quality, {LEARNABILITY[measure]}: means of the chosen answers, before normalisation; teachers: how "
        "many an even allocation of the same entropy would use; several best: prompts with more than one best "
        "teacher, frequent at alpha 0 where quality alone counts; moved: prompts whose teacher at the recipe's alpha "
        "is no longer a best one, for it keeps a prompt wherever it still is",
    )


def allocation(recipe: Recipe, manifests: Mapping[str, Manifest], student: Student) -> Table:
    """Return the table of each teacher's share of the pool, a column per strategy."""
    shares = allocations(recipe, manifests, student)
    rows = [[t.name, *(shown("{:.1%}", share.get(t.name, 0.0)) for share in shares.values())] for t in recipe.teachers]
    return Table(
        name=f"allocation-{student.name}",
        title=f"Allocation: share of the pool's prompts that each teacher gets for {student.name}",
        header=["teacher", *shares],
        rows=rows if shares else [],
        note="; ".join(filter(None, [same_teacher(shares), _ties(recipe, manifests, student)])),
    )


def _ties(recipe: Recipe, manifests: Mapping[str, Manifest], student: Student) -> str:
    """Say how often an oracle's choice is one of several that are equally good, "" where there is none or no tie."""
    used = getattr(manifests.get(names.matrix_rewards(student)), "settings", {}).get("alpha")
    measures = alpha_sweep(manifests, student).get("measures", {})
    tied = measures.get(f"{used:g}", {}).get("tied") if used is not None else None
    oracles = [strategy.name for strategy in recipe.strategies if strategy.kind == "oracle"]
    if not tied or not oracles:
        return ""
    return (
        f"{tied:.0%} of the measured prompts have several best teachers: there {', '.join(oracles)} takes the one "
        "with the best mean reward, and another column that differs may lose nothing"
    )


def _routers(recipe: Recipe, manifests: Mapping[str, Manifest], student: Student) -> Table:
    """Return the table of the trained routers, then of what needs no training, on the same prompts."""
    by_router = router_metrics(recipe, manifests, student)
    own_gain = any("by_calibration" in metrics for metrics in by_router.values())
    rows = []
    for key, metrics in by_router.items():
        settings = manifests[key].settings
        chosen = f": {metrics['training']['chosen']}" if settings["kind"] == "auto" else ""
        kind = "extended" if settings.get("extend") else settings["kind"]
        label = kind + chosen + (f", alpha {settings['alpha']:g}" if settings["alpha"] is not None else "")
        rows.append([label, *_router_cells(metrics["router"]), *_gain_cells(metrics, own_gain)])
    # Yardsticks depend on alpha: those at the recipe's own, where there is a router for it.
    own = [names.router(student, strategy) for strategy in recipe.strategies if alpha_of(strategy) is None]
    plain = next((by_router[key] for key in [*own, *by_router] if key in by_router), {})
    for name in ("random", "global_best", "oracle") if by_router else ():
        rows.append([name.replace("_", " "), *_router_cells(plain[name]), *_gain_cells({}, own_gain)])
    prompts = manifests[next(iter(by_router))].counts["dev_prompts"] if by_router else 0
    return Table(
        name=f"routers-{student.name}",
        title=f"Routers for {student.name}, on {prompts} dev prompts that no router saw"
        if not own_gain
        else f"Routers for {student.name}, on {judged_on(plain, prompts)}",
        header=["router", *ROUTER_COLUMNS.values(), "gap closed", *["gain"] * own_gain],
        rows=rows,
        note=f"{MEANING}; gap closed: from global best (0) to oracle (1), 95 % bootstrap interval; ECE: calibration "
        "error" + ("; " + OF_GAIN if own_gain else ""),
    )


def _gain_cells(metrics: Mapping[str, Any], shown_at_all: bool) -> list[Shown]:
    """Return the cell of the gain that calibration tells of, where the table has such a column."""
    own = metrics.get("by_calibration")
    return [shown_metric("{:+.4f}", own["gain"]) if own else Shown(UNKNOWN, None)] if shown_at_all else []


def _router_cells(metrics: Mapping[str, Any]) -> list[str]:
    """Return a cell per metric of a router, the gap closed with its interval."""
    cells = [shown("{:.3f}", metrics[measure]["value"]) for measure in ROUTER_COLUMNS]
    return [*cells, shown_metric("{:.2f}", metrics["gap_closed"])]


def _cost(recipe: Recipe, manifests: Mapping[str, Manifest], student: Student) -> Table:
    """Return the table of how many answers each strategy takes when it is run alone, and generate-then-select."""
    rows = []
    everything = generate_then_select(recipe, manifests)
    for name, cost in _strategy_costs(recipe, manifests, student).items():
        numbers = [cost.calibration, cost.pool, cost.calibration + cost.pool]
        if everything is not None:
            numbers.append(everything.calibration + everything.pool)
        ratio = shown("{:.1f}x", numbers[-1].requests / max(1, numbers[-2].requests))
        rows.append([name, *(shown("{:,.0f}", number.requests) for number in numbers), ratio])
    return Table(
        name=f"cost-{student.name}",
        title=f"Responses sampled per strategy, were it run alone, for {student.name}",
        header=["strategy", "calibration", "pool", "total", "generate-then-select", "fewer"],
        rows=rows,
        note="generate-then-select: every teacher answers every calibration and pool prompt"
        + _dev_note(recipe, manifests),
    )


def _dev_note(recipe: Recipe, manifests: Mapping[str, Manifest]) -> str:
    """Say how many answers dev took, which no total holds; empty where there are none."""
    matrix = manifests.get(names.matrix_responses())
    number = 0 if matrix is None else sum(cost.requests for cost in split_costs(recipe, matrix, "dev").values())
    return f"; dev, which judges the router and is in no total: {number:,.0f}" if number else ""


def _spending(recipe: Recipe, manifests: Mapping[str, Manifest], student: Student) -> Table:
    """Return the table of what the answers of `_cost` took, and of the paper's two other ways to choose."""
    costs = {name: cost.calibration + cost.pool for name, cost in _strategy_costs(recipe, manifests, student).items()}
    notes = ["measured; what was not generated is taken at each teacher's mean on the calibration prompts"]
    others = {"generate-then-select": generate_then_select(recipe, manifests)}
    if not any(strategy.kind == "car" for strategy in recipe.strategies):
        others["CAR, any teacher"] = car(recipe, manifests)
        notes.append("CAR, any teacher: all answer the calibration prompts, one the pool; the mean over who that is")
    if costs:
        costs |= {name: cost.calibration + cost.pool for name, cost in others.items() if cost is not None}
    columns = [column for column in known_columns(costs.values()) if column.field != "requests"]
    return Table(
        name=f"spending-{student.name}",
        title=f"What these responses take, were the strategy run alone, for {student.name}",
        header=["strategy", *(column.title for column in columns)],
        rows=[[name, *cost_cells(columns, cost)] for name, cost in costs.items() if columns],
        note="; ".join(notes),
    )


def _strategy_costs(recipe: Recipe, manifests: Mapping[str, Manifest], student: Student) -> dict[str, StrategyCost]:
    """Return the cost of every strategy whose responses are stored, by its name."""
    costs = {s.name: strategy_cost(recipe, manifests, student, s) for s in recipe.strategies}
    return {name: cost for name, cost in costs.items() if cost is not None}


def _ledger(recipe: Recipe, manifests: Mapping[str, Manifest], spent: Mapping[str, Spent]) -> Table:
    """Return the table of what the recipe has paid for, a row per teacher or judge and their total."""
    lines = paid(recipe, manifests, spent) | paid_judges(recipe, spent)
    columns = known_columns(line.cost for line in lines.values())
    rows = []
    for name, line in lines.items():
        shares = [shown("{:.1%}", share) for share in (line.truncated, line.errors)]
        rows.append([name, *cost_cells(columns, line.cost, line.counted_here), *shares])
    here = any(line.counted_here for line in lines.values())
    if rows:
        rows.append(["total", *total_cells(columns, [line.cost for line in lines.values()], here), "", ""])
    return Table(
        name="ledger",
        title=f"Answers that {recipe.name} has paid for, all steps together",
        header=["teacher", *(column.title for column in columns), "truncated", "errors"],
        rows=rows,
        note="an answer that several steps use, or that the store's journal held before, is not paid for again"
        + (f"; {COUNTED_HERE}" if here else ""),
    )
