"""Ask an engine through the journal: what it has is not asked again, what is new is written before anything else."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence

from persyn_hf.backends.engines import Batch, Engine, Request
from persyn_hf.backends.journal import Journal
from persyn_hf.errors import EngineError
from persyn_hf.stage import Progress


def answer(
    requests: Sequence[Request],
    engine: Engine,
    journal: Journal,
    progress: Progress,
    *,
    teacher: str,
    batch_tokens: int,
    max_error_rate: float,
    rerun_errors: bool,
) -> int:
    """Have every request answered in the journal; returns how many this run has asked.

    The missing ones are put into batches once, at the first start of the step; a resumed run keeps to that plan, skips
    the batches that are done and does a cut one again whole.
    """
    by_key = {request.key: request for request in requests}
    step = hashlib.sha256(json.dumps([sorted(by_key), batch_tokens, rerun_errors]).encode()).hexdigest()

    def done() -> set[str]:
        return journal.answered(by_key, errors=not rerun_errors)

    def make() -> list[Batch]:
        answered = done()
        return engine.plan([request for request in requests if request.key not in answered])

    plan = journal.plan(step, make)
    answered = done()
    todo = [[by_key[key] for key in batch] for batch in plan if not answered.issuperset(batch)]
    progress.start(f"generate {teacher}", len(requests))
    progress.advance(len(requests) - sum(len(batch) for batch in todo))
    errors: list[str | None] = []
    new = 0
    for answers in engine.generate(todo):
        new += journal.write(answers, supersede_errors=rerun_errors)
        progress.advance(len(answers))
        errors += [found.error for found in answers]
        check_errors(errors, len(requests), teacher, max_error_rate)
    journal.drop_plan(step)
    return new


def check_errors(errors: Sequence[str | None], total: int, teacher: str, max_error_rate: float) -> None:
    """Stop as soon as it is certain that too large a share of a teacher's requests fails."""
    found = Counter(error for error in errors if error is not None)
    if found.total() > max_error_rate * total:
        reason, times = found.most_common(1)[0]
        raise EngineError(
            f"teacher `{teacher}`: {found.total()} of {total} responses failed, the bound `generate.max_error_rate` "
            f"is {max_error_rate}; {times} times: {reason}. Mend the cause, or raise the bound"
        )
