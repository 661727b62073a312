"""Read prompts and write assignments some at a time, so that memory does not grow with their number."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from persyn_hf.core.arrays import FloatArray, IntArray
from persyn_hf.core.metrics import effective_teachers
from persyn_hf.schemas import ASSIGNMENTS


if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset


CHUNK = 10_000  # rows read together
SOURCES = ("router", "oracle", "rule")
ROUTER, ORACLE, RULE = range(len(SOURCES))
CELL = ("prompt_id", "split")


class Decision(NamedTuple):
    """The decision on some cells: one teacher per row of `cells`; NaN is what is not known."""

    cells: "pa.Table"  # prompt_id and split
    teacher: IntArray  # (rows,) indices
    scores: FloatArray  # (rows, num_teachers); (rows, 0) where no scores were used
    margin: FloatArray  # (rows,) best score minus second best
    confidence: FloatArray  # (rows,) probability that the teacher is as good as the best
    source: NDArray[np.int64]  # (rows,) who decided, as an index into SOURCES


def by_rule(chunk: "pa.Table", teacher: IntArray) -> Decision:
    """Make the decision of a rule that uses no scores."""
    number = len(chunk)
    nothing = np.full(number, np.nan)
    return Decision(chunk.select(CELL), teacher, np.zeros((number, 0)), nothing, nothing, np.full(number, RULE))


def chunks(dataset: "Dataset", splits: Sequence[str], columns: Sequence[str], size: int = CHUNK) -> "Iterator[Any]":
    """Yield the rows of some splits as tables of `size` rows each, the last one shorter."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kept, number = [], 0
    for batch in dataset.select_columns(list(columns)).with_format("arrow").iter(size):
        chosen = batch.filter(pc.is_in(batch["split"], pa.array(splits)))
        kept.append(chosen)
        number += len(chosen)
        while number >= size:
            rows = pa.concat_tables(kept)
            yield rows.slice(0, size)
            kept, number = [rows.slice(size)], number - size
    if number:
        yield pa.concat_tables(kept)


def write(decisions: Iterable[Decision], pool: Sequence[str], path: Path) -> "tuple[Dataset, dict[str, int], Any]":
    """Write decisions as assignments to the file `path`.

    Returns the assignments, the number of rows per source, and the metrics: the allocation of the pool (of all prompts
    where none is in the pool) and its effective number of teachers.
    """
    from datasets import Dataset

    by_source = np.zeros(len(SOURCES), dtype=np.int64)
    everywhere, in_pool = (np.zeros(len(pool), dtype=np.int64) for _ in range(2))
    with ASSIGNMENTS.writer(path) as writer:
        for decision in decisions:
            writer.write_table(_table(decision, pool))
            by_source += np.bincount(decision.source, minlength=len(SOURCES))
            everywhere += np.bincount(decision.teacher, minlength=len(pool))
            of_pool = decision.cells["split"].to_numpy() == "pool"
            in_pool += np.bincount(decision.teacher[of_pool], minlength=len(pool))
    # The strategy decides on the pool; the answers to calibration prompts are paid for already.
    counts = in_pool if in_pool.any() else everywhere
    shares = counts / max(counts.sum(), 1)
    metrics = {
        "allocation": dict(zip(pool, shares.tolist(), strict=True)),
        "effective_teachers": float(effective_teachers(shares)),
    }
    return Dataset.from_file(str(path)), dict(zip(SOURCES, by_source.tolist(), strict=True)), metrics


def _table(decision: Decision, pool: Sequence[str]) -> "pa.Table":
    """Turn a decision into rows of the `ASSIGNMENTS` contract."""
    import pyarrow as pa

    rows, width = decision.scores.shape
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * np.int32(width))
    columns = {
        "prompt_id": decision.cells["prompt_id"],
        "teacher": pa.array(pool).take(pa.array(decision.teacher)),
        "scores": pa.ListArray.from_arrays(offsets, _nullable(decision.scores.ravel())),
        "margin": _nullable(decision.margin),
        "confidence": _nullable(decision.confidence),
        "source": pa.array(SOURCES).take(pa.array(decision.source)),
        "split": decision.cells["split"],
    }
    return pa.table(columns).select(ASSIGNMENTS.names).cast(ASSIGNMENTS.features.arrow_schema)


def _nullable(values: FloatArray) -> "pa.Array":
    """Return the values with null for NaN."""
    import pyarrow as pa

    return pa.array(values, from_pandas=True)
