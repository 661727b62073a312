"""Read responses that exist already, from a table in one of three forms.

    long       one row per prompt and teacher
    wide       one column per teacher (Magpie-Zoo)
    configs    a config of a dataset per teacher (PerSyn-Math)

Tables are read as streams; only responses that are asked for are kept, in a file, as there may be millions.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, model_validator

from persyn_hf.backends.answers import Entry
from persyn_hf.backends.dataset_rows import NameIndex
from persyn_hf.backends.engines.imported_cells import Imported
from persyn_hf.backends.engines.imported_forms import Columns, Form, Long, Wide, named
from persyn_hf.backends.engines.imported_kept import ABSENT, EMPTY, KEPT, Cells, Reader, Responses, Table
from persyn_hf.backends.engines.samples import Sample
from persyn_hf.backends.source_rows import Choose, RaggedRows, configs_of_dataset, rows_of_dataset, rows_of_file
from persyn_hf.backends.thoughts import Tags, split_thoughts
from persyn_hf.errors import InputError
from persyn_hf.recipe.roles import Teacher
from persyn_hf.recipe.strict import Strict, nearest


if TYPE_CHECKING:
    from datasets import Dataset

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


def read_responses(
    settings: ImportSettings,
    teachers: Sequence[Teacher],
    prompts: "Dataset",
    index: NameIndex,
    cells: Cells,
    path: Path,
    skipped: Callable[[], None] = lambda: None,
) -> Responses:
    """Read the responses of `cells`, in the order of the table, into the file `path`.

    A prompt is named as in the `prompts` stage, so the texts must be the same. `index` has the names of the prompts.
    `skipped` is called for each row that `ragged_rows: skip` leaves out. Raises `InputError` where the table cannot be
    read, has none of the prompts, or has no response of a teacher.
    """
    asked = [teacher for teacher in teachers if len(cells.get(teacher.name, ()))]
    reader = Reader(prompts, index, cells)
    with KEPT.writer(path) as writer:
        for table in _tables(settings, asked, skipped) if asked else ():
            reader.read(table, settings.columns.prompt, writer)
    return Responses(path, reader)


def check_columns(settings: ImportSettings, teachers: Sequence[Teacher]) -> None:
    """Look for the columns in a file of answers, by its first rows. Raises `InputError` as `read_responses` does."""
    if settings.path is not None:
        for table in _tables(settings, teachers, lambda: None):
            next(table.rows, None)


def _tables(settings: ImportSettings, teachers: Sequence[Teacher], skipped: Callable[[], None]) -> Iterator[Table]:
    source, columns = settings.path or str(settings.dataset), settings.columns
    if settings.configs is None:
        form: Form = Long(source, columns, teachers) if columns.responses is None else Wide(source, columns, teachers)
        rows = _rows(settings, settings.config, form.choose, skipped)
        yield Table(source=source, form=form, rows=rows, teachers=[teacher.name for teacher in teachers])
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
        yield Table(
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
    imported: Iterable[Sequence[Imported | None]], prompts: Iterable[Mapping[str, Any]], think_tags: Tags = ()
) -> list[Sample]:
    """Make samples of a teacher's responses to prompts; a cell that has none becomes a sample with an error."""
    samples = []
    for prompt, found in zip(prompts, imported, strict=True):
        given = [one for one in found if one is not None]
        missing = EMPTY if found else ABSENT
        for index, one in enumerate(given or [None]):
            error, text = (missing, "") if one is None else (None, one.response)
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
            quality, is_correct = (one.quality, one.is_correct) if one else (None, None)
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
