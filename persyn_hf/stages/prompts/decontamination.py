"""Compare prompts with test items: those of the recipe's own evaluation tasks, and of sets that the recipe names."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from persyn_hf.backends.dataset_rows import Rows, Texts
from persyn_hf.backends.harness.item_texts import stock_texts
from persyn_hf.backends.harness.questions import Source
from persyn_hf.backends.source_cells import missing_column, read_prompt
from persyn_hf.backends.source_rows import rows_of_dataset, rows_of_file
from persyn_hf.core.arrays import IntArray
from persyn_hf.core.conversations import user_text
from persyn_hf.core.overlaps import Overlap, find_overlaps
from persyn_hf.errors import InputError, PersynError
from persyn_hf.stage import Progress
from persyn_hf.stages.prompts.settings import ItemSet, Settings
from persyn_hf.text import first_line


SHOWN = 20  # overlaps that the metrics list for each set, the largest first
SECTION = "prompts.decontaminate_against"


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What a comparison has found. `unread` says why a set could not be compared, by its name."""

    against: list[str]  # the names of what was to be compared; a group of tasks has several sets
    sets: dict[str, list[str]]  # the texts of the items
    unread: dict[str, str]
    overlaps: dict[str, list[Overlap]]  # by set: of each prompt the item of which it has most, numbered within the set
    items_found: dict[str, int]  # items of a set that any prompt has

    @property
    def prompts(self) -> set[int]:
        """Return the numbers of the prompts that overlap with an item of any set."""
        return {overlap.prompt for found in self.overlaps.values() for overlap in found}

    def metrics(self, prompt_ids: Sequence[str], share: float) -> dict[str, Any]:
        """Return what the card and the manifest say: counts for each set, and which prompt has which item."""
        lines = {}
        shown = {}
        for name, texts in self.sets.items():
            found = sorted(self.overlaps[name], key=lambda overlap: -overlap.share)
            lines[name] = {
                "items": len(texts),
                "items_found": self.items_found[name],
                "prompts": len(found),
                "all_words": sum(overlap.share == 1 for overlap in found),
            }
            shown[name] = [
                {"prompt_id": prompt_ids[o.prompt], "item": o.item + 1, "share": round(o.share, 2)}
                for o in found[:SHOWN]
            ]
        return {
            "against": self.against,
            "share": share,
            "sets": lines,
            "not_read": self.unread,
            "found": {name: found for name, found in shown.items() if found},
        }


def compare(prompts: Sequence[str], given: Sequence[ItemSet], share: float, progress: Progress) -> Compared:
    """Compare the texts of prompts with every set of items that can be read; `share` as of `find_overlaps`."""
    sets: dict[str, list[str]] = {}
    unread: dict[str, str] = {}
    for one in given:
        try:
            for name, texts in read_items(one).items():  # a group's task may be called like another set
                sets[name if name not in sets else f"{one.title}: {name}"] = texts
        except PersynError as error:
            unread[one.title] = _portable(one, error)
    names = [name for name, texts in sets.items() for _ in texts]
    firsts = {name: names.index(name) for name, texts in sets.items() if texts}
    best: dict[str, dict[int, Overlap]] = {name: {} for name in sets}
    items: dict[str, set[int]] = {name: set() for name in sets}
    if names:
        progress.start("comparing prompts with test items", total=len(prompts))
        for count, found in find_overlaps(prompts, list(sets.values()), share):
            for overlap in found:
                name = names[overlap.item]
                own = Overlap(overlap.prompt, overlap.item - firsts[name], overlap.share)
                items[name].add(own.item)
                before = best[name].setdefault(own.prompt, own)
                if own.share > before.share:
                    best[name][own.prompt] = own
            progress.advance(count)
    return Compared(
        against=[one.title for one in given],
        sets=sets,
        unread=unread,
        overlaps={name: list(found.values()) for name, found in best.items()},
        items_found={name: len(found) for name, found in items.items()},
    )


def drop_overlaps(
    kept: IntArray, rows: Rows, settings: Settings, progress: Progress, counts: Counter[str]
) -> tuple[IntArray, dict[str, Any]]:
    """Return the numbers of the `kept` rows that overlap with no test item, and the metrics of the comparison.

    Raises:
        InputError: a set cannot be read, so that what would be dropped is not known.
    """
    share = settings.decontaminate_share
    compared = compare(texts_of(rows, kept), settings.item_sets, share, progress)
    for name, why in compared.unread.items():
        raise InputError(
            f"`prompts.decontaminate: drop` needs the items of `{name}`, and {why}; mend it, name only sets that can "
            f"be read in `{SECTION}`, or set `decontaminate: warn`"
        )
    gone = sorted(compared.prompts)
    counts["decontaminated"] = len(gone)
    return np.delete(kept, gone), compared.metrics(names_of(rows, kept), share)


def texts_of(rows: Rows, numbers: IntArray) -> Texts:
    """Return the texts of prompts, by the numbers of their rows."""
    return Texts(rows, numbers, lambda row: user_text(row["messages"]))


def names_of(rows: Rows, numbers: IntArray) -> Texts:
    """Return the names of prompts, by the numbers of their rows."""
    return Texts(rows, numbers, lambda row: str(row["prompt_id"]))


def _portable(one: ItemSet, error: Exception) -> str:
    """Return what an error says, fit for a card that others read: files by their names."""
    said = first_line(error)
    for path in filter(None, (one.path, one.dataset)):
        said = said.replace(path, Path(path).name if path.startswith("/") else path)
    return said


def read_items(one: ItemSet) -> dict[str, list[str]]:
    """Read the texts of a set's items, by its name; those of a group of the harness's tasks by the tasks' names.

    Raises:
        PersynError: they cannot be read, or there are none.
    """
    source = one.path or one.dataset
    if one.harness is not None:
        own = Source(path=one.path, dataset=one.dataset, config=one.config, revision=one.revision, split=one.split)
        found = stock_texts(one.harness, own if source else None)
        return {one.title: next(iter(found.values()))} if len(found) == 1 else found
    texts = []
    for row in _rows(one, str(source)):
        prompt = read_prompt(row, one.question)
        if not isinstance(prompt, str):
            texts.append(user_text(prompt))
    if not texts:
        raise InputError(f"{source} holds no item with text in `{one.question}`; name its column: `question: NAME`")
    return {one.title: texts}


def _rows(one: ItemSet, source: str) -> Any:
    columns = [one.question] if isinstance(one.question, str) else one.question

    def choose(present: Sequence[str]) -> Sequence[str]:
        for column in columns:
            if column not in present:
                raise InputError(missing_column(source, SECTION, "question", column, present))
        return columns

    if one.path is not None:
        yield from rows_of_file(Path(one.path), SECTION, choose, skipped=lambda: None)
    else:
        for split in one.split.split("+"):
            yield from rows_of_dataset(source, one.config, one.revision, split, SECTION, choose)
