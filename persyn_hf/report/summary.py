"""The tables that a run ends with."""

from collections.abc import Mapping
from typing import Any

from persyn_hf.recipe import Recipe, Student
from persyn_hf.report.results import accuracies, allocations, router_metrics, spent
from persyn_hf.report.tables import Table
from persyn_hf.store.manifest import Manifest


ROUTER_COLUMNS = {
    "hit_at_1": "Hit@1",
    "hit_at_3": "Hit@3",
    "hit_at_5": "Hit@5",
    "regret": "regret",
    "ndcg_at_3": "NDCG@3",
    "kendall_tau": "tau",
    "pair_accuracy": "pairs",
    "calibration_error": "ECE",
    "allocation_js": "JS",
}


def summary(recipe: Recipe, manifests: Mapping[str, Manifest]) -> list[Table]:
    """Allocation, routers, held-out accuracy and cost per student, as far as they are stored."""
    tables = []
    for student in recipe.students:
        for table in (
            _allocation(recipe, manifests, student),
            _routers(recipe, manifests, student),
            _accuracy(recipe, manifests, student),
            _cost(recipe, manifests, student),
        ):
            if table.rows:
                tables.append(table)
    return tables


def _allocation(recipe: Recipe, manifests: Mapping[str, Manifest], student: Student) -> Table:
    shares = allocations(recipe, manifests, student)
    rows = [[t.name, *(f"{share.get(t.name, 0.0):.1%}" for share in shares.values())] for t in recipe.teachers]
    return Table(
        name=f"allocation-{student.name}",
        title=f"Allocation: share of the pool's prompts that each teacher gets for {student.name}",
        header=["teacher", *shares],
        rows=rows if shares else [],
    )


def _routers(recipe: Recipe, manifests: Mapping[str, Manifest], student: Student) -> Table:
    """The trained routers, then what needs no training, on the same dev prompts."""
    found = router_metrics(recipe, manifests, student)
    rows = []
    for key, metrics in found.items():
        settings = manifests[key].settings
        label = settings["kind"] + (f", alpha {settings['alpha']:g}" if settings["alpha"] is not None else "")
        rows.append([label, *_router_cells(metrics["router"])])
    for name in ("random", "global_best", "oracle") if found else ():
        plain = next((m for key, m in found.items() if key == f"router-{student.name}"), next(iter(found.values())))
        rows.append([name.replace("_", " "), *_router_cells(plain[name])])
    prompts = manifests[next(iter(found))].counts["dev_prompts"] if found else 0
    return Table(
        name=f"routers-{student.name}",
        title=f"Routers for {student.name}, on {prompts} dev prompts that no router saw",
        header=["router", *ROUTER_COLUMNS.values(), "gap closed"],
        rows=rows,
        note="regret: reward lost to the oracle; gap closed: from global best (0) to oracle (1), 95 % bootstrap "
        "interval; tau, pairs: order of the teachers; ECE: calibration error; JS: allocation against the oracle's",
    )


def _router_cells(metrics: Mapping[str, Any]) -> list[str]:
    cells = ["-" if metrics[m]["value"] is None else f"{metrics[m]['value']:.3f}" for m in ROUTER_COLUMNS]
    gap = metrics["gap_closed"]
    return [*cells, "-" if gap["value"] is None else f"{gap['value']:.2f} [{gap['low']:.2f}, {gap['high']:.2f}]"]


def _accuracy(recipe: Recipe, manifests: Mapping[str, Manifest], student: Student) -> Table:
    rows = []
    scores = accuracies(recipe, manifests, student)
    for name, (accuracy, low, high) in scores.items():
        change = f"{100 * (accuracy - scores['base'][0]):+.1f}" if name != "base" and "base" in scores else ""
        label = "before SFT" if name == "base" else name
        rows.append([label, f"{accuracy:.1%}", f"{low:.1%} to {high:.1%}", change])
    return Table(
        name=f"accuracy-{student.name}",
        title=f"Held-out accuracy of {student.name} before and after SFT",
        header=["strategy", "accuracy", "95 % interval", "points gained"],
        rows=rows,
    )


def _cost(recipe: Recipe, manifests: Mapping[str, Manifest], student: Student) -> Table:
    rows = []
    for strategy in recipe.strategies:
        cost = spent(recipe, manifests, student, strategy.name)
        if cost is not None:
            total = cost.calibration + cost.pool
            ratio = f"{cost.generate_then_select / max(1, total):.1f}x"
            numbers = [cost.calibration, cost.pool, total, cost.generate_then_select]
            rows.append([strategy.name, *(f"{number:,}" for number in numbers), ratio])
    return Table(
        name=f"cost-{student.name}",
        title=f"Responses sampled per strategy, were it run alone, for {student.name}",
        header=["strategy", "calibration", "pool", "total", "generate-then-select", "fewer"],
        rows=rows,
        note="generate-then-select: every teacher answers every calibration and pool prompt",
    )
