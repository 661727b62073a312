"""One row per decision of an assignment, with all that it is filtered by: made once, then looked up in memory."""

from persyn_hf.space.database import Database
from persyn_hf.store.stored import Stored


CELLS = "prompt_id, teacher, quality_raw, quality_reward, learnability_reward, reward, rank, split"
ANSWERS = "prompt_id, teacher, is_correct, num_tokens"


def decisions(database: Database, assignment: Stored) -> str:
    """The name in SQL of a table with one row per row of the assignment.

    `number` is its place. `reward` is the chosen teacher's, `best` that of the best measured one, `oracle` its name
    (equal rewards: the chosen teacher, then that of the higher mean), `regret` what lies between; null: not measured.
    `is_correct` and `num_tokens` are of the chosen teacher's selected answer.
    """
    prompts = database.shelf.input(assignment, "prompts")
    topics = f"SELECT prompt_id, topic, source AS origin FROM {database.view(prompts)}" if prompts else ""
    nothing = "SELECT ''::VARCHAR AS prompt_id, NULL::VARCHAR AS topic, NULL::VARCHAR AS origin WHERE false"
    # CTEs are not kept and the inner joins build on `chosen`: of 15 teachers' cells no more than needed is in memory
    return database.table(
        f"decisions of {assignment.ref}",
        f"""
        WITH chosen AS MATERIALIZED (
            SELECT row_number() OVER () AS number, prompt_id, teacher, margin, confidence, source, split
            FROM {database.view(assignment)}
        ),
        about AS NOT MATERIALIZED ({topics or nothing}),
        measured AS NOT MATERIALIZED ({measured(database, assignment)}),
        mean AS MATERIALIZED (SELECT teacher, avg(reward) AS mean FROM measured GROUP BY teacher),
        best AS MATERIALIZED (
            SELECT prompt_id, max(reward) AS best, arg_max(teacher, mean) AS oracle
            FROM measured JOIN mean USING (teacher) WHERE rank = 1 GROUP BY prompt_id
        ),
        own AS MATERIALIZED (
            SELECT c.number, m.reward FROM measured m
            JOIN chosen c ON m.prompt_id = c.prompt_id AND m.teacher = c.teacher
        ),
        answer AS MATERIALIZED (
            SELECT c.number, a.is_correct, a.num_tokens FROM ({selected(database, assignment)}) a
            JOIN chosen c ON a.prompt_id = c.prompt_id AND a.teacher = c.teacher
        )
        SELECT c.*, topic, origin, reward, best, if(best = reward, c.teacher, oracle) AS oracle,
               best - reward AS regret, is_correct, num_tokens
        FROM chosen c
        LEFT JOIN about t ON t.prompt_id = c.prompt_id
        LEFT JOIN best b ON b.prompt_id = c.prompt_id
        LEFT JOIN own o ON o.number = c.number
        LEFT JOIN answer a ON a.number = c.number
        ORDER BY c.number
        """,
        assignment.ref,
    )


def measured(database: Database, assignment: Stored) -> str:
    """SQL of every measured cell of its prompts; the first rewards that know a prompt tell all of it."""
    views = [database.view(item) for item in database.shelf.rewards(assignment)]
    parts = []
    for number, view in enumerate(views):
        known = "".join(f" AND prompt_id NOT IN (SELECT prompt_id FROM {other})" for other in views[:number])
        parts.append(f"SELECT {CELLS} FROM {view} WHERE true{known}")
    return " UNION ALL ".join(parts) or (
        "SELECT ''::VARCHAR AS prompt_id, ''::VARCHAR AS teacher, NULL::DOUBLE AS quality_raw, "
        "NULL::DOUBLE AS quality_reward, NULL::DOUBLE AS learnability_reward, NULL::DOUBLE AS reward, "
        "NULL::BIGINT AS rank, ''::VARCHAR AS split WHERE false"
    )


def selected(database: Database, assignment: Stored) -> str:
    """SQL of the selected answers: those generated for the assignment, or whatever is here of the same prompts."""
    found = database.shelf.responses(assignment)
    own = [item for item in found if database.shelf.answers(item, assignment)][:1]
    parts = [f"SELECT {ANSWERS} FROM {database.view(item)} WHERE selected" for item in own or found]
    if not parts:
        return (
            "SELECT ''::VARCHAR AS prompt_id, ''::VARCHAR AS teacher, NULL::BOOLEAN AS is_correct, "
            "NULL::BIGINT AS num_tokens WHERE false"
        )
    if len(parts) == 1:
        return parts[0]
    return (
        "SELECT prompt_id, teacher, any_value(is_correct) AS is_correct, any_value(num_tokens) AS num_tokens "
        f"FROM ({' UNION ALL '.join(parts)}) GROUP BY prompt_id, teacher"
    )
