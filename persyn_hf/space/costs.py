"""The cost of an assignment against generate-then-select, and what each teacher's answers took."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from persyn_hf.core.cost import Cost, from_line, generate_then_select, one_teacher_each
from persyn_hf.errors import InputError
from persyn_hf.recipe.strategies import KINDS
from persyn_hf.space.collection import asks_several, teachers_of
from persyn_hf.space.database import Database
from persyn_hf.store.stored import Stored


@dataclass(frozen=True, kw_only=True)
class Costs:
    """The costs of `ways` to answer the same prompts, by the mean `cells`. `measured`: the ledger, by teacher."""

    prompts: int
    labelled: int
    ways: dict[str, Cost]
    cells: dict[str, Cost]
    measured: dict[str, Cost]
    source: str  # the responses that the cells were measured on


def costs(database: Database, assignment: Stored, split: str = "") -> Costs:
    """Return what an assignment costs: every teacher on the labelled prompts, its own teacher on the others.

    Args:
        split: the prompts of this split only; "": all.

    Raises:
        InputError: no responses say what every teacher's answers cost.
    """
    pool = [teacher.name for teacher in teachers_of(assignment)]
    cells, source = cell_costs(database, assignment, pool)
    if not cells:
        raise InputError(
            f"no responses to the prompts of {assignment.ref} say what every teacher's answers cost; open the "
            "responses to its calibration prompts beside it"
        )
    seen = _answers_seen(database, assignment)
    view, prompts_of = database.view(assignment), Counter[str]()
    rows = database.rows(f"SELECT split, teacher, count(*) FROM {view} WHERE $1 IN ('', split) GROUP BY ALL", [split])
    if asks_several(assignment):
        once = f"SELECT split, count(DISTINCT prompt_id) FROM {view} WHERE $1 IN ('', split) GROUP BY split"
        prompts_of.update(dict(database.rows(once, [split])))
    else:
        for part, _, number in rows:
            prompts_of[part] += number
    prompts, counted = sum(prompts_of.values()), set() if seen == "nothing" else {"calibration"}
    labelled = prompts_of["calibration"] if counted else 0
    given = dict.fromkeys(pool, 0)
    for split, teacher, number in rows:
        given[teacher] += 0 if split in counted else number
    rest = sum(given.values())
    shares = {name: number / max(rest, 1) for name, number in given.items()}
    own = generate_then_select(labelled, cells) + one_teacher_each(rest, cells, shares)
    everything = generate_then_select(prompts, cells)
    measured = [item for item in database.shelf.responses(assignment) if database.shelf.answers(item, assignment)]
    return Costs(
        prompts=prompts,
        labelled=labelled,
        ways={"this assignment": everything if seen == "pool" else own, "generate-then-select": everything},
        cells=cells,
        measured=_ledger(measured[0].manifest.cost) if measured else {},
        source=source,
    )


def _answers_seen(database: Database, assignment: Stored) -> str:
    """Return the answers that the strategy of an assignment had to see, one of the values of `Kind.sees`.

    A strategy that changes the choices of a base saw what the base saw; where the base is not shown here, the answers
    to the calibration prompts are assumed.
    """
    kind = KINDS.get(assignment.manifest.settings.get("kind", ""))
    if kind is None or kind.sees != "base":
        return kind.sees if kind else "calibration"
    base = database.shelf.input(assignment, "base")
    return "calibration" if base is None else _answers_seen(database, base)


def cell_costs(database: Database, assignment: Stored, pool: list[str]) -> tuple[dict[str, Cost], str]:
    """Return what all samples of one prompt cost with each teacher, and the responses that this was measured on.

    The first ledger that knows every teacher of the pool is taken; both are empty where none does.
    """
    for item in database.shelf.responses(assignment):
        spent = _ledger(item.manifest.cost)
        if not all(name in spent for name in pool):
            continue
        count = f"SELECT teacher, count(*) FROM {database.view(item)} WHERE sample_index = 0 GROUP BY teacher"
        prompts = dict(database.rows(count))
        if all(prompts.get(name) for name in pool):
            return {name: spent[name] * (1 / prompts[name]) for name in pool}, item.ref
    return {}, ""


def _ledger(cost: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, Cost]:
    """Return the cost of each teacher's answers that a manifest states."""
    return {name: from_line(line) for name, line in cost.get("teachers", {}).items()}
