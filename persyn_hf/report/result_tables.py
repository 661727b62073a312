"""The tables of the paper: accuracy by strategy, router against oracle, chosen teachers, accuracy with its cost."""

from collections.abc import Sequence

from persyn_hf.core.cost import Cost
from persyn_hf.core.statistics import Interval
from persyn_hf.formats import HIT_MEANING, known_columns
from persyn_hf.recipe import names
from persyn_hf.recipe.strategies import KINDS
from persyn_hf.report.outcomes import Outcomes, Part, Trial
from persyn_hf.report.results import router_metrics
from persyn_hf.report.strategy_costs import strategy_cost
from persyn_hf.report.tables import Shown, Table, cost_cells, shown


SPENT = ("requests", "flops", "money")  # what a strategy is compared by


def experiment_tables(parts: Sequence[Part], students: Sequence[Outcomes]) -> list[Table]:
    """Return the tables on the evaluations of one recipe, or of several together, as far as they are stored."""
    others = (_oracle(students), _chosen(parts), _footing(students))
    return [*result_tables(students), *(table for table in others if table.rows)]


def result_tables(students: Sequence[Outcomes]) -> list[Table]:
    """Return the tables of the accuracies and of how far they are apart, as far as there are any."""
    return [table for table in (_results(students), _leads(students)) if table.rows]


def percent(interval: Interval | None, sign: str = "") -> Shown:
    """Return an interval as a cell in percent, with its bounds; an empty cell where nothing was measured.

    Args:
        sign: "+" to write a plus before positive numbers.
    """
    if interval is None or interval.value != interval.value:
        return Shown("", None)
    value, low, high = (f"{100 * number:{sign}.1f}" for number in interval)
    return Shown(f"{value} [{low}, {high}]", *interval)


def _results(students: Sequence[Outcomes]) -> Table:
    """Return the table of accuracies: a row per student and strategy, a column per task."""
    columns = _columns(students)
    rows = []
    for outcomes in students:
        for row, trial in enumerate(outcomes.trials):
            scores = {name: percent(outcomes.score(row, place)) for place, name in enumerate(outcomes.columns)}
            seeds = str(len(trial.evaluations)) if trial.strategy else ""
            cells = (scores.get(name, "") for name in columns)
            rows.append([outcomes.student.name, trial.label, seeds, *cells])
    return Table(
        name="results",
        title="Accuracy of the students, in percent",
        header=["student", "strategy", "seeds", *columns],
        rows=rows,
        note="mean over the SFT seeds, with its 95 % interval by bootstrap over items and seeds; of one seed, over "
        "items alone",
    )


def _leads(students: Sequence[Outcomes]) -> Table:
    """Return the table of how far the reference strategy is ahead of each other one, in points."""
    columns = _columns(students)
    rows = []
    for outcomes in students:
        if outcomes.reference is None:
            continue
        for row, trial in enumerate(outcomes.trials):
            leads = {name: percent(outcomes.lead(row, place), "+") for place, name in enumerate(outcomes.columns)}
            if any(leads.values()):
                cells = (leads.get(name, "") for name in columns)
                rows.append([outcomes.student.name, outcomes.trials[outcomes.reference].label, trial.label, *cells])
    return Table(
        name="differences",
        title="How many points a strategy is ahead of the others",
        header=["student", "strategy", "ahead of", *columns],
        rows=rows,
        note="paired: on the same items, with the same seeds; an interval that holds 0 leaves open which is better",
    )


def _oracle(students: Sequence[Outcomes]) -> Table:
    """Return the table of each router of PerSyn against the oracle of the same recipe."""
    rows = []
    for outcomes in students:
        for row, trial in enumerate(outcomes.trials):
            best = [place for place, other in enumerate(outcomes.trials) if _is_oracle_of(other, trial)]
            if trial.kind == "persyn" and best:
                lead = percent(outcomes.compared.difference(row, best[0], -1), "+")
                scores = [percent(outcomes.score(place)) for place in (row, best[0])]
                rows.append([outcomes.student.name, trial.label, *scores, lead, *_router(trial)])
    return Table(
        name="oracle",
        title="Routed against the measured best teacher of every prompt",
        header=["student", "strategy", "accuracy", "oracle's", "points ahead", "router", "Hit@3", "gap closed"],
        rows=rows,
        note=f"Hit@3 ({HIT_MEANING}), gap closed (from global best, 0, to oracle, 1): of the router, in reward, on "
        "prompts that it never saw",
    )


def _is_oracle_of(other: Trial, trial: Trial) -> bool:
    """Tell whether a trial measured every teacher on the pool of another trial's recipe."""
    return (
        other.kind is not None
        and KINDS[other.kind].sees == "pool"
        and other.part.recipe.full_name == trial.part.recipe.full_name
    )


def _router(trial: Trial) -> list[str]:
    """Return kind, Hit@3 and gap closed of the router that a trial was assigned by; empty where it is not stored."""
    recipe, stored = trial.part
    manifests = {key: item.manifest for key, item in stored.items()}
    by_name = router_metrics(recipe, manifests, trial.student)
    used = trial.assignments
    source = used.manifest.inputs.get("router") if used else None
    keys = [key for key in by_name if source is not None and source.digest == stored[key].digest]
    if not keys:
        return ["", "", ""]
    metrics = by_name[keys[0]]["router"]
    gap = metrics["gap_closed"]["value"]
    numbers = [shown("{:.2f}", value) for value in (metrics["hit_at_3"]["value"], gap)]
    return [str(manifests[keys[0]].settings["kind"]), *numbers]


def _chosen(parts: Sequence[Part]) -> Table:
    """Return the table of the strategies that take one teacher for all prompts, and its name for each student."""
    students = list(dict.fromkeys(student.name for recipe, _ in parts for student in recipe.students))
    chosen: dict[str, dict[str, str]] = {}
    several = len({recipe.name for recipe, _ in parts}) > 1
    for recipe, stored in parts:
        for strategy in recipe.strategies:
            for student in recipe.students:
                item = stored.get(names.assignments(student, strategy))
                if item is not None and "chosen" in item.manifest.metrics:
                    named = f"{strategy.name} ({recipe.name})" if several else strategy.name
                    chosen.setdefault(named, {})[student.name] = item.manifest.metrics["chosen"]
    return Table(
        name="teachers",
        title="The teacher of each strategy that has but one",
        header=["strategy", *students],
        rows=[[name, *(teacher_of.get(student, "") for student in students)] for name, teacher_of in chosen.items()],
    )


def _footing(students: Sequence[Outcomes]) -> Table:
    """Return the table of what was spent for each student, with the accuracy that it came to."""
    lines: list[tuple[list[str], Cost, list[str]]] = []
    for outcomes in students:
        for row, trial in enumerate(outcomes.trials):
            student = trial.trained
            if trial.strategy is None or student is None:
                continue
            trained = student.manifest
            manifests = {key: item.manifest for key, item in trial.part.stored.items()}
            cost = strategy_cost(trial.part.recipe, manifests, trial.student, trial.strategy)
            if cost is not None:
                sft = trained.counts["trained"], trained.metrics["trained_tokens"]
                scores = percent(outcomes.score(row)), percent(outcomes.lead(row), "+")
                results: list[str] = [*(shown("{:,}", number) for number in sft), *scores]
                lines.append(([outcomes.student.name, trial.label], cost.calibration + cost.pool, results))
    all_columns = known_columns(cost for _, cost, _ in lines) if lines else []
    columns = [column for column in all_columns if column.field in SPENT]
    return Table(
        name="footing",
        title="What each strategy takes, were it run alone, and what it comes to",
        header=[
            *("student", "strategy"),
            *(column.title for column in columns),
            *("SFT examples", "trained tokens", "accuracy", "reference ahead by"),
        ],
        rows=[[*names, *cost_cells(columns, cost), *results] for names, cost, results in lines],
        note="answers to calibration and pool prompts; dev prompts judge the router and train no student; trained "
        "tokens: those with a loss, of one epoch; the reference is what stands first in the differences",
    )


def _columns(students: Sequence[Outcomes]) -> list[str]:
    """Return the tasks of all students, and `MEAN`, each once."""
    return list(dict.fromkeys(name for outcomes in students for name in outcomes.columns))
