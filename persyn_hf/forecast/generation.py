"""Make the tables of `persyn plan`: what a recipe will do and cost, before it runs."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace

from persyn_hf.core.cost import FIELDS, Cost, generate_then_select, one_teacher_each
from persyn_hf.forecast.judges import verdicts_table
from persyn_hf.forecast.outlook import (
    ANSWER_TOKENS,
    GENERATING,
    Outlook,
    allocation,
    known_allocation,
    num_calibration,
)
from persyn_hf.forecast.students import students_table
from persyn_hf.formats import UNKNOWN, Column, known_columns, total_cell
from persyn_hf.recipe import names
from persyn_hf.recipe.roles import Student
from persyn_hf.recipe.strategies import Strategy, answers_seen
from persyn_hf.report.results import same_teacher
from persyn_hf.report.tables import Table


TOKEN_BOUND = frozenset({"completion_tokens", "flops", "money"})  # costs that `max_tokens` bounds before any answer


def forecast(outlook: Outlook, whole: bool = False) -> list[Table]:
    """Return the tables of a recipe: what is to pay, for teachers, strategies and judges, the students, the steps.

    Where the numbers of prompts are not known yet, the steps are the only table; `whole` lists them one by one.
    """
    note = ""
    if not outlook.cells:
        note = "no teacher is asked: the responses are imported or pinned, or the recipe ends before"
    elif outlook.sizes is None:
        sizes = "`prompts.calibration`, `dev` and `pool` are set"
        note = (
            "what will be generated is known once `prompts` has run: persyn run RECIPE --set until=prompts; or once "
            f"{sizes}"
        )
    steps = replace(steps_table(outlook.recipe.name, outlook.steps, whole), note=note)
    if outlook.sizes is None:
        return [steps]
    asked = []
    if outlook.cells:
        asked = [_to_pay(outlook), _teachers(outlook, outlook.sizes), _strategies(outlook, outlook.sizes)]
    others = (verdicts_table(outlook.verdicts), students_table(outlook, outlook.sizes), steps)
    return [table for table in (*asked, *others) if table.rows]


def steps_table(recipe: str, steps: Sequence[tuple[str, str, str]], whole: bool) -> Table:
    """Make the table of steps (key, stage, state): a row per stage, or with `whole` a row per step."""
    if whole:
        header, rows = ["step", "stage", "state"], [list(step) for step in steps]
    else:
        states = ("done", "partly done", "new")
        counts = Counter((stage, state) for _, stage, state in steps)
        header = ["stage", "steps", *states]
        rows = [
            [stage, str(sum(counts[stage, state] for state in states)), *(str(counts[stage, s]) for s in states)]
            for stage in dict.fromkeys(stage for _, stage, _ in steps)
        ]
    return Table(name="steps", title=f"Steps of {recipe}", header=header, rows=rows)


def _to_pay(outlook: Outlook) -> Table:
    """Make the table of what a run will pay for now; tokens and money are those of the expected answers."""
    found = outlook.to_pay
    asks = {} if found is None else {**found.teachers, "total": found.total}
    under_way = any(ask.under_way for ask in asks.values())
    sure = all(ask.certain == ask.at_most for ask in asks.values())
    per_answer = {name: cell * (1 / cell.requests) for name, cell in outlook.cells.items()}
    costs = {name: per_answer[name] * asks[name].expected for name in outlook.cells if name in asks}
    columns = [column for column in known_columns(costs.values()) if column.field != "requests"]
    together = sum(asks[name].expected for name in costs)  # of all, which may be bounded below their sum
    scale = asks["total"].expected / together if together else 0.0
    rows = []
    for name, ask in asks.items():
        numbers = [ask.certain] if sure else [ask.certain, ask.expected, ask.at_most]
        part = {n: cost * scale for n, cost in costs.items()} if name == "total" else {name: costs[name]}
        cost = _cells(outlook, columns, part)
        known = [ask.journalled, ask.under_way] if under_way else [ask.journalled]
        rows.append([name, *(f"{number:,}" for number in known), *(f"{number:,.0f}" for number in numbers), *cost])
    counted = ["under way"] if under_way else []
    counted += ["to pay"] if sure else ["certain", "expected", "at most"]
    notes = [] if found is None else [*found.notes]
    if found is not None and not sure:
        bases = [f"{basis} for {', '.join(dict.fromkeys(whom))}" for basis, whom in found.bases.items()]
        notes.insert(0, "certain: whatever comes out before; tokens, compute and money are of the expected answers")
        notes.insert(1, f"expected: {'; '.join(bases)}")
    if under_way:
        notes.append("under way: sent in batches and paid for; `persyn run` collects them")
    return Table(
        name="to_pay",
        title=f"Answers that `persyn run` will pay for ({outlook.recipe.name})",
        header=["teacher", "in the journal", *counted, *(column.title for column in columns)],
        rows=rows,
        note="; ".join(notes),
    )


def _teachers(outlook: Outlook, sizes: Mapping[str, int]) -> Table:
    """Make the table of what each teacher is asked by all steps together; cells that steps share count once."""
    keys = {key for key, _, _ in outlook.steps}
    costs = {name: cell * _num_prompts(outlook, sizes, keys, name) for name, cell in outlook.cells.items()}
    columns = known_columns(costs.values())
    strategies = (
        [] if names.matrix_responses(names.POOL) in keys else [strategy for _, strategy in _generating(outlook, keys)]
    )
    at_most = any(strategy.escalate for strategy in strategies)
    rows = []
    for name, cost in costs.items():
        samples, texts = outlook.cells[name].requests, _cells(outlook, columns, {name: cost}, at_most)
        rows.append([name, f"{samples:.0f}", *texts])
    total = sum(costs.values(), Cost())
    rows.append(["total", "", *_cells(outlook, columns, costs, at_most)])
    prompts = ", ".join(f"{number:,} {split}" for split, number in sizes.items() if number)
    shared = "cells that strategies share are asked once, so it may be less" if len(strategies) > 1 else ""
    return Table(
        name="teachers",
        title=f"Expected of each teacher, all steps together ({prompts} prompts)",
        header=["teacher", "samples", *(column.title for column in columns)],
        rows=rows if total.requests else [],
        note="; ".join(part for part in (_by_split(outlook, sizes, keys, total), _basis(outlook), shared) if part),
    )


def _by_split(outlook: Outlook, sizes: Mapping[str, int], keys: Set[str], total: Cost) -> str:
    """Say how many of the answers are for calibration, dev and pool; empty where no matrix is asked."""
    if names.matrix_responses() not in keys:
        return ""
    each = {name: cell.requests for name, cell in outlook.cells.items()}
    part = sum(number * num_calibration(outlook, sizes, name) for name, number in each.items())
    dev = sum(each.values()) * sizes["dev"]
    return f"calibration {part:,.0f}, dev {dev:,.0f}, pool {max(0.0, total.requests - part - dev):,.0f} answers"


def _num_prompts(outlook: Outlook, sizes: Mapping[str, int], keys: Set[str], teacher: str) -> float:
    """Return the prompts that the steps `keys` send to a teacher.

    Strategies are taken to share no cell of the pool, until each prompt of it is asked once. Example: a pool of 1,000,
    and two strategies that give the teacher 0.3 and 0.8 of it: min(300 + 800, 1,000) = 1,000 prompts.
    """
    labelled = num_calibration(outlook, sizes, teacher) + sizes["dev"] if names.matrix_responses() in keys else 0
    if names.matrix_responses(names.POOL) in keys:
        return labelled + sizes["pool"]
    if names.matrix_responses(names.POOL) in {key for key, _, _ in outlook.steps}:
        return labelled  # the oracle had the whole pool answered
    wanted = 0.0
    for student, strategy in _generating(outlook, keys):
        assigned = strategy.per_prompt * allocation(outlook, student, strategy).get(teacher, 0.0)
        wanted += sizes["pool"] * (assigned + strategy.escalate / len(outlook.cells))
    return labelled + min(wanted, sizes["pool"])


def _strategies(outlook: Outlook, sizes: Mapping[str, int]) -> Table:
    """Make the table of what each strategy would cost alone, without dev prompts, on which no student is trained."""
    keys = {key for key, _, _ in outlook.steps}
    everything = generate_then_select(sizes["calibration"] + sizes["pool"], outlook.cells)
    several = len(outlook.recipe.students) > 1
    lines: dict[str, tuple[Cost, Iterable[str], bool]] = {}  # cost, teachers in it, whether it may be less
    decided: dict[str, dict[str, Mapping[str, float]]] = {}  # student -> strategy -> share of each teacher
    for student, strategy in _generating(outlook, keys):
        name = f"{strategy.name} ({student.name})" if several else strategy.name
        decided.setdefault(student.name, {})[name] = known_allocation(outlook, student, strategy)
        shares = allocation(outlook, student, strategy)
        blind = answers_seen(strategy, outlook.recipe.strategies) == "nothing"
        looked_at = [t for t in shares if shares[t]] if blind else list(outlook.cells)
        lines[name] = (_alone(outlook, sizes, strategy, shares), looked_at, strategy.escalate > 0)
    lines["generate-then-select"] = (everything, outlook.cells, False)
    columns = known_columns(cost for cost, _, _ in lines.values())
    rows = [
        [name, *_signed(outlook, columns, [cost], asked, less), f"{everything.requests / max(1, cost.requests):.1f}x"]
        for name, (cost, asked, less) in lines.items()
    ]
    assumed = [
        strategy.name
        for student, strategy in _generating(outlook, keys)
        if not known_allocation(outlook, student, strategy)
        and answers_seen(strategy, outlook.recipe.strategies) != "pool"
    ]
    notes = [f"an even split of the pool is assumed for {', '.join(dict.fromkeys(assumed))}"] if assumed else []
    notes += filter(None, map(same_teacher, decided.values()))
    return Table(
        name="strategies",
        title=f"Expected per strategy, were it run alone, without dev ({len(outlook.cells)} teachers)",
        header=["strategy", *(column.title for column in columns), "fewer"],
        rows=rows if len(rows) > 1 else [],
        note="; ".join(notes),
    )


def _generating(outlook: Outlook, keys: Set[str]) -> list[tuple[Student, Strategy]]:
    """List the students and strategies whose step of answers is among `keys`."""
    pairs = [(student, strategy) for student in outlook.recipe.students for strategy in outlook.recipe.strategies]
    return [(student, strategy) for student, strategy in pairs if names.responses(student, strategy) in keys]


def _alone(outlook: Outlook, sizes: Mapping[str, int], strategy: Strategy, shares: Mapping[str, float]) -> Cost:
    """Return what a strategy would cost alone: what it must see before it can choose, then what it has answered."""
    cells = outlook.cells
    seen = answers_seen(strategy, outlook.recipe.strategies)
    if seen == "pool":
        return generate_then_select(sizes["calibration"] + sizes["pool"], cells)
    if seen == "nothing":
        return one_teacher_each(sizes["calibration"] + sizes["pool"], cells, shares)
    pool = one_teacher_each(sizes["pool"] * strategy.per_prompt, cells, shares)
    escalated = one_teacher_each(sizes["pool"] * strategy.escalate, cells)
    labels = (cell * num_calibration(outlook, sizes, name) for name, cell in cells.items())
    return sum(labels, Cost()) + pool + escalated


def _cells(outlook: Outlook, columns: Sequence[Column], costs: Mapping[str, Cost], at_most: bool = False) -> list[str]:
    """Return the cells of the costs of teachers together."""
    return _signed(outlook, columns, list(costs.values()), costs, at_most)


def _signed(
    outlook: Outlook, columns: Sequence[Column], costs: Sequence[Cost], teachers: Iterable[str], at_most: bool
) -> list[str]:
    """Return the cells of a sum of costs, marked by ≤ where they are bounds and by ~ where GPU time is assumed."""
    bounds = TOKEN_BOUND if outlook.bounded & set(teachers) else frozenset()
    signs = dict.fromkeys(bounds if not (at_most or outlook.at_most) else FIELDS, "≤ ")
    if outlook.assumed & set(teachers):
        signs["gpu_seconds"] = "~ "
    texts = [(signs.get(column.field, ""), total_cell(column, costs)[0]) for column in columns]
    return [text if text == UNKNOWN else sign + text for sign, text in texts]


def _basis(outlook: Outlook) -> str:
    """Say what the numbers per answer rest on."""
    parts = []
    if outlook.measured:
        artifacts = ", ".join(f"{number:,} answers in {repo}" for repo, number in outlook.measured.items())
        parts.append(f"tokens and time: means over {artifacts}")
    if outlook.bounded:
        whom = "" if outlook.bounded == set(outlook.cells) else f" of {', '.join(sorted(outlook.bounded))}"
        parts.append(
            f"≤: no finished step has an answer{whom}, so `generate.max_tokens` bounds it, prompt tokens not counted"
        )
    if outlook.assumed:
        short, long = ANSWER_TOKENS.values()
        parts.append(
            f"~: assumed, an A100 at {GENERATING:.0%} of its peak and {short} tokens an answer, {long:,} of Long-CoT, "
            "at most `generate.max_tokens`"
        )
    if all(state == "done" for _, stage, state in outlook.steps if stage == "generate"):
        parts.append("nothing is to pay: every answer is stored")
    if outlook.to_pay is None and any(
        (stage, state != "done") == ("generate", True) for _, stage, state in outlook.steps
    ):
        parts.append("what of it the journal holds is known once `prompts` has run: --set until=prompts")
    return "; ".join(parts)
