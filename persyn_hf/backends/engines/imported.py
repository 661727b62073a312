"""Read responses that exist already, from a table in one of three forms.

    long       one row per prompt and teacher
    wide       one column per teacher (Magpie-Zoo)
    configs    a config of a dataset per teacher (PerSyn-Math)

Tables are read as streams; only responses that are asked for are kept.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from persyn_hf.backends.answers import Entry
from persyn_hf.backends.engines.imported_cells import Imported, excerpt, id_of_prompt
from persyn_hf.backends.engines.imported_forms import Columns, Form, Long, Wide, named
from persyn_hf.backends.engines.samples import Sample
from persyn_hf.backends.source_rows import Choose, RaggedRows, configs_of_dataset, rows_of_dataset, rows_of_file
from persyn_hf.backends.thoughts import Tags, split_thoughts
from persyn_hf.errors import InputError
from persyn_hf.recipe.roles import Teacher
from persyn_hf.recipe.strict import Strict, nearest


Cells = Mapping[str, Sequence[Mapping[str, Any]]]  # teacher -> rows of the prompts dataset
ABSENT, EMPTY = "no imported response", "the imported response is empty"  # why a cell has none
ThinkTag = Annotated[str, Field(min_length=1)]
ThinkTags = Annotated[tuple[ThinkTag, ThinkTag], Field(strict=False)]  # a recipe has lists


class ImportSettings(Strict):
    """The place of imported responses, and the tags that tell their thoughts from their answers."""

    path: str | None = Field(
        default=None,
        description="Of `engine: import`: the file of the answers: .parquet, .jsonl, .json, .csv or .tsv, text also "
        "as .gz.",
    )
    dataset: str | None = Field(
        default=None, description="Of `engine: import`: the data set of the answers, a Hub id or a local folder."
    )
    config: str | None = Field(
        default=None, description="The config of the data set. Null takes its default, or its only one."
    )
    configs: dict[str, str | None] | None = Field(
        default=None,
        description="The config of each teacher, where a data set has one per teacher. "
        "Null for a teacher: named like it or its model.",
    )
    revision: str | None = Field(
        default=None, description="The commit, tag or branch of the data set on the Hub. Null takes the newest."
    )
    source_split: str = Field(default="train", description="The split of the data set to read.")
    columns: Columns = Field(default=Columns(), description="The columns of the imported table.")
    ragged_rows: RaggedRows = Field(
        default="refuse",
        description="What becomes of a CSV's rows that do not fit its header: the run refuses them, or skips and "
        "counts them.",
    )
    think_tags: tuple[ThinkTags, ...] = Field(
        default=(),
        strict=False,
        description="More pairs of what teachers write before and behind their thoughts. Those of most models are "
        "known.",
    )

    @model_validator(mode="after")
    def _own_configs(self) -> "ImportSettings":
        for key in ("config", "revision"):
            if self.dataset is None and getattr(self, key) is not None:
                raise ValueError(f"`{key}` is of a `dataset`, and none is read; take it out")
        if self.ragged_rows == "skip" and self.path is None:
            raise ValueError("`ragged_rows` is of a CSV in `path`, and none is read; take it out")
        if self.configs is None:
            return self
        if self.dataset is None:
            raise ValueError("`configs` are those of a `dataset`, and there is none; name it")
        given = {"config": self.config, "columns.responses": self.columns.responses}
        other = [name for name, value in given.items() if value is not None]
        other += ["columns.teacher"] if "teacher" in self.columns.model_fields_set else []
        if other:
            raise ValueError(
                f"`configs` gives each teacher a config of its own, so `{other[0]}` has no meaning; keep one of them"
            )
        return self


@dataclass(frozen=True, kw_only=True)
class _Table:
    """One table: its name for messages, its rows, and the teachers whose responses are looked for in it."""

    source: str
    form: Form
    rows: Iterator[dict[str, Any]]
    teachers: Sequence[str]


def read_responses(
    settings: ImportSettings,
    teachers: Sequence[Teacher],
    cells: Cells,
    skipped: Callable[[], None] = lambda: None,
) -> dict[tuple[str, str], list[Imported]]:
    """Read the responses of `cells` by (prompt_id, name of the teacher), in the order of the table.

    A prompt is named as in the `prompts` stage, so the texts must be the same. Several responses of one cell are its
    samples; empty ones are left out, and a cell that has none but these is empty. `skipped` is called for each row
    that `ragged_rows: skip` leaves out. Raises `InputError` where the table cannot be read, has none of the prompts,
    or has no response of a teacher.
    """
    asked = [teacher for teacher in teachers if cells.get(teacher.name)]
    responses: dict[tuple[str, str], list[Imported]] = {}
    for table in _tables(settings, asked, skipped) if asked else ():
        _read_table(table, settings.columns.prompt, cells, responses)
    return responses


def check_columns(settings: ImportSettings, teachers: Sequence[Teacher]) -> None:
    """Look for the columns in a file of answers, by its first rows. Raises `InputError` as `read_responses` does."""
    if settings.path is not None:
        for table in _tables(settings, teachers, lambda: None):
            next(table.rows, None)


def _read_table(
    table: _Table, prompt: str | list[str], cells: Cells, responses: dict[tuple[str, str], list[Imported]]
) -> None:
    columns = [prompt] if isinstance(prompt, str) else prompt
    wanted = {name: {row["prompt_id"] for row in cells[name]} for name in table.teachers}
    prompts = set().union(*wanted.values())
    first, number, matched, answered = None, 0, 0, set()
    for number, row in enumerate(table.rows, start=1):
        where = f"{table.source}, row {number}"
        first = first or row.get(columns[0])
        name = id_of_prompt(row, columns, where)
        if name is not None and name in prompts:
            matched += 1
            for teacher, imported in table.form.responses(row, where):
                if name in wanted[teacher]:
                    cell = responses.setdefault((name, teacher), [])
                    if imported is not None:
                        cell.append(imported)
                        answered.add(teacher)
    if not matched:
        example = cells[table.teachers[0]][0]["messages"]
        raise InputError(
            f"{table.source}: of {number} rows none has one of the {len(prompts)} prompts that are asked for; the "
            f"texts must be the same, found in `{columns[0]}` {excerpt(first)}, needed for example {excerpt(example)}"
        )
    for name in table.teachers:
        if name not in answered:
            raise InputError(
                f"{table.source}: of {number} rows {matched} have a prompt that is asked for, but none has a response "
                f"of the teacher `{name}` to one of its {len(wanted[name])} prompts; {table.form.hint(name)}"
            )


def _tables(settings: ImportSettings, teachers: Sequence[Teacher], skipped: Callable[[], None]) -> Iterator[_Table]:
    source, columns = settings.path or str(settings.dataset), settings.columns
    if settings.configs is None:
        form: Form = Long(source, columns, teachers) if columns.responses is None else Wide(source, columns, teachers)
        rows = _rows(settings, settings.config, form.choose, skipped)
        yield _Table(source=source, form=form, rows=rows, teachers=[teacher.name for teacher in teachers])
        return
    configs = configs_of_dataset(source, settings.revision, "generate")
    chosen = [named(settings.configs, teacher, configs, "generate.configs", "config") for teacher in teachers]
    for teacher, config in zip(teachers, chosen, strict=True):  # all of them, before any is read
        if config not in configs:
            hint = nearest(config, configs)
            raise InputError(f"{source} has no config `{config}` for `configs.{teacher.name}`{hint}")
    for teacher, config in zip(teachers, chosen, strict=True):
        table = f"{source}, config {config}"
        form = Long(table, columns, [teacher], only=teacher.name)
        yield _Table(
            source=table, form=form, rows=_rows(settings, config, form.choose, skipped), teachers=[teacher.name]
        )


def _rows(
    settings: ImportSettings, config: str | None, choose: Choose, skipped: Callable[[], None]
) -> Iterator[dict[str, Any]]:
    if settings.path is not None:
        skip = skipped if settings.ragged_rows == "skip" else None
        return rows_of_file(Path(settings.path), "generate", choose, skip)
    return rows_of_dataset(str(settings.dataset), config, settings.revision, settings.source_split, "generate", choose)


def to_samples(
    imported: Mapping[tuple[str, str], list[Imported]],
    teacher: str,
    prompts: Sequence[Mapping[str, Any]],
    think_tags: Tags = (),
) -> list[Sample]:
    """Make samples of one teacher's imported responses; a cell that has none becomes a sample with an error."""
    samples = []
    for prompt in prompts:
        key = (prompt["prompt_id"], teacher)
        cell: list[Imported | None] = [*imported.get(key, [])]
        missing = EMPTY if key in imported else ABSENT
        for index, given in enumerate(cell or [None]):
            error, text = (missing, "") if given is None else (None, given.response)
            response, reasoning = split_thoughts(text, more=think_tags)
            finish_reason, tokens = ("error", 0) if error else ("imported", None)
            entry = Entry(
                text=text,
                finish_reason=finish_reason,
                num_prompt_tokens=tokens,
                num_tokens=tokens,
                error=error,
                attempt=0,
            )
            quality, is_correct = (given.quality, given.is_correct) if given else (None, None)
            samples.append(
                Sample(
                    prompt=prompt,
                    index=index,
                    entry=entry,
                    response=response,
                    reasoning=reasoning,
                    quality=quality,
                    is_correct=is_correct,
                )
            )
    return samples
