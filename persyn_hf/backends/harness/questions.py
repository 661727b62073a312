"""Read questions with reference answers from a user's file or a dataset."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from persyn_hf.backends.grading.code_tests import of_cells
from persyn_hf.backends.references import Lists, cell_of, column_of, is_unclear, of_each, read_reference
from persyn_hf.backends.source_cells import as_lines, as_text
from persyn_hf.backends.source_rows import rows_of_dataset, rows_of_file
from persyn_hf.errors import InputError
from persyn_hf.recipe.strict import nearest


THOUSANDS = re.compile(r"(?<![\d,.(\[{])\d{1,3}(?:,\d{3})+(?![\d,)\]}])")
SCIENTIFIC = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)e([-+]?\d+)(?!\w)")
SECTION = "evaluate.tasks"
WITHOUT = (
    "or do without it: name a task with a `path` of your own, end before students are trained (`--set until=mix`), or "
    "only count (`persyn plan --no-checks`)"
)


@dataclass(frozen=True, kw_only=True)
class MathTask:
    """A task of questions with reference answers."""

    name: str
    questions: list[str]
    references: list[str]
    examples: list[tuple[str, str]]  # (question, worked answer) shown before each question, num_fewshot of them
    num_fewshot: int
    # rows that the user should know of, by kind: `ragged_rows`, and `lists_of_references` whose meaning nothing says
    told: dict[str, int] = field(default_factory=dict)

    @property
    def conversations(self) -> list[list[dict[str, str]]]:
        """Return what the student is asked: the worked examples as turns, then the question."""
        turns = [
            turn
            for question, answer in self.examples[: self.num_fewshot]
            for turn in ({"role": "user", "content": question}, {"role": "assistant", "content": answer})
        ]
        return [[*turns, {"role": "user", "content": question}] for question in self.questions]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A question with its reference answer. `unclear`: a list of which the settings do not say what it means."""

    question: str
    answer: str
    unclear: bool


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file, or splits of a dataset joined by `+`."""

    path: str | None = None
    dataset: str | None = None
    config: str | None = None
    revision: str | None = None
    split: str = "test"

    def rows(self, columns: Sequence[str] = (), skipped: Callable[[], None] | None = None) -> Iterator[dict[str, Any]]:
        """Yield all rows; `skipped` as of `rows_of_file`. Raises `InputError` where one of `columns` is missing."""
        name = self.path or str(self.dataset)

        def choose(known: Sequence[str]) -> Sequence[str]:
            wanted = [column_of(column, known) for column in columns]
            for column in wanted:
                if column not in known:
                    raise InputError(
                        f"{name} has no column `{column}`{nearest(column, known)}; say what they are called, in its "
                        f"entry of `{SECTION}`: `columns: {{question: NAME, answer: NAME}}`"
                    )
            return wanted or known

        if self.path is not None:
            yield from rows_of_file(Path(self.path), SECTION, choose, skipped)
            return
        for split in self.split.split("+"):
            try:
                yield from rows_of_dataset(name, self.config, self.revision, split, SECTION, choose)
            except InputError as error:
                if "cannot be read" not in str(error):
                    raise
                raise InputError(f"{error}; {WITHOUT}") from None


def read_questions(
    source: Source,
    question: Sequence[str],
    answer: str,
    lists: Lists | None = None,
    skipped: Callable[[], None] | None = None,
    *,
    verbatim: bool = False,
) -> list[Pair]:
    """Read question and answer of every row as text; `question` names the columns that make it up.

    lists: what a list of answers is (`read_reference`). skipped: as of `rows_of_file`. verbatim: answers stay as they
    are written; they are not to be graded.

    Raises `InputError` where a cell is empty or there are no rows.
    """
    name = source.path or source.dataset
    pairs = []
    for number, row in enumerate(source.rows([*question, answer], skipped), start=1):
        texts = [as_text(row.get(column)) for column in question]
        cell = cell_of(row, answer)
        reference = (as_text(cell) if verbatim else read_reference(cell, lists)) or ""
        empty = next(
            (key for key, text in zip((*question, answer), (*texts, reference), strict=True) if not text), None
        )
        if empty is not None:
            raise InputError(f"{name}, item {number}: column `{empty}` is empty; every item needs one")
        # 3.83e35 in a reference (Minerva has some 70): math-verify would read a product with Euler's e
        graded = of_each(reference, lambda text: SCIENTIFIC.sub(r"\1 \\times 10^{\2}", text))
        unclear = not verbatim and lists is None and is_unclear(cell)
        pairs.append(Pair(question=_join(texts), answer=reference if verbatim else graded or "", unclear=unclear))
    if not pairs:
        raise InputError(f"{name} holds no items; a task needs at least one")
    return pairs


def read_tests(
    source: Source, question: Sequence[str], tests: Sequence[str], skipped: Callable[[], None] | None = None
) -> list[Pair]:
    """Read the question of every row as text, and its tests, which several columns may hold.

    Raises `InputError` where a question is empty, tests cannot be used or there are no rows.
    """
    name = source.path or source.dataset
    pairs = []
    for number, row in enumerate(source.rows([*question, *tests], skipped), start=1):
        texts = [as_text(as_lines(row.get(column))) for column in question]
        found = of_cells([cell_of(row, column) for column in tests])
        if found is None or not all(texts):
            what = "no tests that can be used" if found is None else "no question"
            raise InputError(f"{name}, item {number} has {what}; mend it or leave it out (docs/graders.md)")
        pairs.append(Pair(question="\n\n".join(texts), answer=found.as_reference(), unclear=False))
    if not pairs:
        raise InputError(f"{name} holds no items; a task needs at least one")
    return pairs


def final_answer(text: str, marker: str) -> str | None:
    """Extract what follows the last `marker`, without thousands separators; None where there is no marker.

    With the marker "####", "... #### 1,080" gives "1080".
    """
    _, separator, answer = text.rpartition(marker)
    answer = THOUSANDS.sub(lambda number: number.group().replace(",", ""), answer).strip()
    return answer if separator and answer else None


def _join(texts: Sequence[str]) -> str:
    """Join texts, such as SVAMP's story and its question, with a full stop where one lacks its end."""
    ended = [text if text.endswith((".", "?", "!")) else f"{text}." for text in texts[:-1]]
    return " ".join([*ended, texts[-1]])
