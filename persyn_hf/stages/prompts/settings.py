"""The settings of `prompts`: the source, and the splits."""

from typing import Literal

from pydantic import Field, model_validator

from persyn_hf.backends.references import Lists
from persyn_hf.backends.source_rows import RaggedRows
from persyn_hf.recipe.strict import Strict


class Columns(Strict):
    """The names of the source's columns."""

    prompt: str | list[str] = Field(
        default="prompt",
        min_length=1,
        description="The column of texts or conversations, of which the assistant's last answer is left out. "
        "Several columns are joined.",
    )
    reference: str | None = Field(
        default=None, description="The column of the reference answer, or `struct.field`. Null: there is none."
    )
    topic: str | None = Field(default=None, description="The column of the topic or skill. Null: there is none.")
    split: str | None = Field(
        default=None,
        description="The column that says calibration, dev or pool, where the source has drawn them. "
        "Null: they are drawn here.",
    )


class Settings(Strict):
    """The source of the prompts, and the way in which they are split."""

    path: str | None = Field(
        default=None, description="The file of the prompts: .jsonl, .json, .csv, .tsv or .parquet, text also as .gz."
    )
    dataset: str | None = Field(
        default=None, description="The data set of the prompts, a Hub id or a local folder. It stands in for `path`."
    )
    config: str | None = Field(
        default=None, description="The config of the data set. Null takes its default, or its only one."
    )
    revision: str | None = Field(
        default=None, description="The commit, tag or branch of the data set on the Hub. Null takes the newest."
    )
    source_split: str = Field(default="train", description="The split of the data set to read.")
    columns: Columns = Field(default=Columns(), description="The names of the source's columns.")
    reference_after: str | None = Field(
        default=None,
        description='The mark behind which the reference stands; the last one counts. GSM8K has "####".',
    )
    reference_lists: Lists | None = Field(
        default=None,
        description="all: an answer must give all values of a list of references; any: one of them. "
        "Null is all, and the run tells of lists.",
    )
    ragged_rows: RaggedRows = Field(
        default="refuse",
        description="What becomes of a CSV's rows that do not fit its header: the run refuses them, or skips and "
        "counts them.",
    )
    references: Literal["math", "text", "none"] = Field(
        default="none",
        description="math: a reference must parse as mathematics; text: it must be there; none: it may be missing. "
        "Other prompts are dropped and counted.",
    )
    calibration: int | None = Field(
        default=None,
        ge=1,
        le=10**12,
        description="The prompts that every teacher answers. Null: 2,500 as in the paper, or all that the split "
        "column names.",
    )
    dev: int | None = Field(
        default=None,
        ge=0,
        le=10**12,
        description="The prompts that judge the router. Null: 1,000 as in the paper, or all that the split column "
        "names.",
    )
    pool: int | None = Field(
        default=None, ge=0, le=10**12, description="The prompts that are routed. Null takes all that are left."
    )
    draw_from: int | None = Field(
        default=None,
        ge=1,
        le=10**12,
        description="The number of first usable prompts that calibration and dev are drawn from. Null: all of them.",
    )
    limit: int | None = Field(
        default=None, ge=1, le=10**12, description="The rows of the source to read at most. Null reads all."
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Settings":
        if (self.path is None) == (self.dataset is None):
            given = "neither" if self.path is None else "both"
            raise ValueError(f"exactly one of `path` and `dataset` must be set, found {given}")
        for key in ("config", "revision"):
            if self.path is not None and getattr(self, key) is not None:
                raise ValueError(f"`{key}` is of a `dataset`, and none is read; take it out")
        if self.ragged_rows == "skip" and self.path is None:
            raise ValueError("`ragged_rows` is of a CSV in `path`, and a `dataset` is read; take it out")
        if self.references != "none" and self.columns.reference is None:
            raise ValueError(f"`references: {self.references}` needs `columns.reference`, the column that holds them")
        return self
