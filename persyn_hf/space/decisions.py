"""The decisions of an assignment: one row each, with all that it is filtered by, made once and kept in memory."""

from collections.abc import Collection

from persyn_hf.space.collection import teachers_of
from persyn_hf.space.database import Database, one_of, quoted
from persyn_hf.store.stored import Stored


CELLS = "prompt_id, teacher, quality_raw, quality_reward, learnability_reward, reward, rank, split"
ANSWERS = "prompt_id, teacher, is_correct, num_tokens"
CHOSEN = ("number", "prompt_id", "teacher", "margin", "confidence", "source", "split")
MANY = 10_000  # more than there are teachers
PARTS = {  # what is joined to the rows of the assignment -> the columns that it brings
    "prompts": ("topic", "origin"),
    "rewards": ("reward", "best", "oracle", "regret", "ties"),
    "answers": ("is_correct", "num_tokens"),
}


def decisions(
    database: Database, assignment: Stored, parts: Collection[str] = tuple(PARTS), numbers: Collection[int] = ()
) -> str:
    """Return SQL, in brackets, that selects one row per row of the assignment.

    `number` is its place. `reward` is the chosen teacher's, `best` that of the best measured one, `oracle` its name
    (of equal rewards: the chosen teacher, then the one with the higher mean), `regret` is `best` minus `reward`,
    `ties` is how many teachers are a best one; null: not measured. `is_correct` and `num_tokens` belong to the chosen
    teacher's selected answer.

    A part is made for all rows when it is first asked for without `numbers`: all rewards take seconds.

    Args:
        parts: keys of `PARTS`, whose columns are joined.
        numbers: select these rows only; empty: all.
    """
    chosen = database.table(f"choices of {assignment.ref}", _chosen(database, assignment), assignment.ref)
    among = f" WHERE number IN ({', '.join(map(str, numbers))})" if numbers else ""
    some = f"(SELECT * FROM {chosen}{among})"
    joins = []
    for part in parts:
        key, select = f"{part} of {assignment.ref}", MADE_BY[part]
        if numbers and not database.made(key):
            joins.append(f" LEFT JOIN ({select(database, assignment, some)}) USING (number)")
        else:
            table = database.table(key, select(database, assignment, chosen), assignment.ref)
            joins.append(f" LEFT JOIN (SELECT * FROM {table}{among}) USING (number)")
    return f"(SELECT * FROM {some}{''.join(joins)})"


def _chosen(database: Database, assignment: Stored) -> str:
    """Return SQL for the columns of `CHOSEN`; texts of which few differ take a byte each."""
    source, split = (f"{name}::{database.few(assignment, name)} AS {name}" for name in ("source", "split"))
    return (
        f"SELECT row_number() OVER ()::INTEGER AS number, prompt_id, teacher::{teacher_type(assignment)} AS teacher, "
        f"margin, confidence, {source}, {split} FROM {database.view(assignment)}"
    )


def teacher_type(assignment: Stored) -> str:
    """Return the type in SQL of the names of an assignment's teachers."""
    return one_of(sorted(teacher.name for teacher in teachers_of(assignment)))


def _topics(database: Database, assignment: Stored, chosen: str) -> str:
    """Return SQL for the topic and the origin of every decision, which the prompts hold."""
    prompts = database.shelf.input(assignment, "prompts")
    if prompts is None:
        return f"SELECT number, NULL::VARCHAR AS topic, NULL::VARCHAR AS origin FROM {chosen} WHERE false"
    topic, source = (f"{name}::{database.few(prompts, name)}" for name in ("topic", "source"))
    about = f"SELECT prompt_id, {topic} AS topic, {source} AS origin FROM {database.view(prompts)}"
    return f"SELECT number, topic, origin FROM ({about}) JOIN {chosen} USING (prompt_id)"


def _rewards(database: Database, assignment: Stored, chosen: str) -> str:
    """Return SQL for the rewards of every decision.

    It is one pass over all cells. Only the best and the chosen cells are grouped, because the others do not matter. A
    group holds no names: of a million groups, each of them would take 16 MB. The best teachers' places in the order of
    the mean rewards are compared instead, and that of the chosen one counts for more than any.
    """
    cells, teacher = measured(database, assignment), teacher_type(assignment)
    place = "(row_number() OVER (ORDER BY avg(reward) NULLS FIRST, teacher DESC) - 1)::SMALLINT AS place"
    select = f"SELECT teacher::{teacher} AS teacher, {place} FROM ({cells}) GROUP BY teacher"
    means = database.table(f"places by mean reward of {assignment.ref}", select, assignment.ref)
    return f"""
        SELECT number, reward, best, teacher AS oracle, best - reward AS regret, ties FROM (
            SELECT number, max(reward) AS best, max(reward) FILTER (chosen) AS reward,
                   (max(place + if(chosen, {MANY}, 0)) FILTER (rank = 1)) % {MANY} AS place,
                   nullif(count(*) FILTER (rank = 1), 0)::SMALLINT AS ties
            FROM (SELECT number, place, reward, rank, m.teacher = c.teacher AS chosen
                  FROM (SELECT prompt_id, teacher::{teacher} AS teacher, reward, rank FROM ({cells})) m
                  JOIN {chosen} c USING (prompt_id) JOIN {means} p ON p.teacher = m.teacher
                  WHERE rank = 1 OR m.teacher = c.teacher)
            GROUP BY number
        ) LEFT JOIN {means} USING (place)
    """


def _answers(database: Database, assignment: Stored, chosen: str) -> str:
    """Return SQL for the chosen teacher's selected answer of every decision."""
    teacher = f"try_cast(teacher AS {teacher_type(assignment)}) AS teacher"  # null: of another recipe
    answers = f"SELECT * REPLACE ({teacher}) FROM ({selected(database, assignment)})"
    return f"SELECT number, is_correct, num_tokens FROM ({answers}) JOIN {chosen} USING (prompt_id, teacher)"


MADE_BY = {"prompts": _topics, "rewards": _rewards, "answers": _answers}


def measured(database: Database, assignment: Stored, columns: str = CELLS) -> str:
    """Return SQL for every measured cell of an assignment's teachers; the first rewards that know a prompt count.

    Args:
        columns: of the rewards; where there are none, those of `CELLS` are returned.
    """
    rewards, pool = database.shelf.rewards(assignment), {teacher.name for teacher in teachers_of(assignment)}
    views = [_of_pool(database, item, pool) for item in rewards]
    parts = []
    for number, view in enumerate(views):
        left_out = "".join(f" AND prompt_id NOT IN (SELECT prompt_id FROM {other})" for other in views[:number])
        parts.append(f"SELECT {columns} FROM {view} WHERE true{left_out}")
    return " UNION ALL ".join(parts) or (
        "SELECT ''::VARCHAR AS prompt_id, ''::VARCHAR AS teacher, NULL::DOUBLE AS quality_raw, "
        "NULL::DOUBLE AS quality_reward, NULL::DOUBLE AS learnability_reward, NULL::DOUBLE AS reward, "
        "NULL::BIGINT AS rank, ''::VARCHAR AS split WHERE false"
    )


def _of_pool(database: Database, rewards: Stored, pool: set[str]) -> str:
    """Return SQL for the rewards of some teachers, ranked among themselves: a later recipe may have had more."""
    view = database.view(rewards)
    if {teacher.name for teacher in teachers_of(rewards)} <= pool:
        return view
    names = ", ".join(map(quoted, sorted(pool)))
    ranked = "CASE WHEN rank IS NOT NULL THEN rank() OVER (PARTITION BY prompt_id ORDER BY rank NULLS LAST) END"
    return f"(SELECT * REPLACE ({ranked} AS rank) FROM {view} WHERE teacher IN ({names}))"


def selected(database: Database, assignment: Stored) -> str:
    """Return SQL for the selected answers: those made for the assignment, else the first on the same prompts."""
    responses = database.shelf.responses(assignment)
    own = [item for item in responses if database.shelf.answers(item, assignment)][:1]
    parts = [
        f"SELECT {ANSWERS}, {place} AS place FROM {database.view(item)} WHERE selected"
        for place, item in enumerate(own or responses)
    ]
    if not parts:
        return (
            "SELECT ''::VARCHAR AS prompt_id, ''::VARCHAR AS teacher, NULL::BOOLEAN AS is_correct, "
            "NULL::BIGINT AS num_tokens WHERE false"
        )
    if len(parts) == 1:
        return parts[0]
    return (
        "SELECT prompt_id, teacher, answer.is_correct AS is_correct, answer.num_tokens AS num_tokens FROM ("
        "SELECT prompt_id, teacher, arg_min({'is_correct': is_correct, 'num_tokens': num_tokens}, place) AS answer "
        f"FROM ({' UNION ALL '.join(parts)}) GROUP BY prompt_id, teacher)"
    )
