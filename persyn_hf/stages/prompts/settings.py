"""The settings of `prompts`: the source, and the splits."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from persyn_hf.backends.references import Lists
from persyn_hf.backends.source_rows import RaggedRows
from persyn_hf.core.overlaps import HALF
from persyn_hf.recipe.strict import Strict


TASKS: Literal["tasks"] = "tasks"  # in `decontaminate_against`: the recipe's evaluation tasks


class ItemSet(Strict):
    """A set of test items: a file or a data set with a column of questions, or a task of the harness."""

    name: str | None = Field(
        default=None, description="The name of the set. Null: that of the task, file or data set."
    )
    harness: str | None = Field(
        default=None, description="The task of lm-evaluation-harness, of `path` or `dataset` where one is given."
    )
    path: str | None = Field(
        default=None, description="The file of the items: .jsonl, .json, .csv, .tsv or .parquet, text also as .gz."
    )
    dataset: str | None = Field(default=None, description="The data set of the items, a Hub id or a local folder.")
    config: str | None = Field(
        default=None, description="The config of the data set. Null takes its default, or its only one."
    )
    revision: str | None = Field(
        default=None, description="The commit, tag or branch of the data set on the Hub. Null takes the newest."
    )
    split: str = Field(default="test", description="The split of the data set; `train+test` joins two.")
    question: str | list[str] = Field(
        default="question", min_length=1, description="The column of the question. Several columns are joined."
    )

    @property
    def title(self) -> str:
        """Return the name of the set."""
        return self.name or self.harness or (Path(self.path).name if self.path else str(self.dataset))

    @model_validator(mode="after")
    def _consistent(self) -> "ItemSet":
        if self.path is not None and self.dataset is not None:
            raise ValueError("a set has either `path` or `dataset`, found both; keep one of them")
        if self.path is None and self.dataset is None and self.harness is None:
            raise ValueError("a set needs one of `path`, `dataset` and `harness`, found none")
        return self


class Columns(Strict):
    """The names of the source's columns."""

    prompt: str | list[str] = Field(
        default="prompt",
        min_length=1,
        description="The column of texts or conversations, of which the assistant's last answer is left out. "
        "Several columns are joined.",
    )
    reference: str | list[str] | None = Field(
        default=None,
        description="The column of the reference answer, or `struct.field`; of tests, also several. "
        "Null: there is none.",
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
    references: Literal["math", "tests", "text", "none"] = Field(
        default="none",
        description="math: a reference must parse as mathematics; tests: as tests of code; text: it must be there; "
        "none: it may be missing. Other prompts are dropped and counted.",
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

    decontaminate: Literal["warn", "drop", "none"] = Field(
        default="warn",
        description="What becomes of prompts that hold an item of `decontaminate_against`: warn keeps them and tells; "
        "drop leaves them out; none does not look.",
    )
    decontaminate_against: tuple[Literal["tasks"] | ItemSet, ...] = Field(
        default=(TASKS,),
        strict=False,
        description="The test items: `tasks` are those of `evaluate.tasks`; others are given as sets.",
    )
    decontaminate_share: float = Field(
        default=HALF,
        gt=0,
        le=1,
        description="The share of an item's words, in runs of eight, from which on a prompt holds it. 1: all of them.",
    )
    near_duplicates: Literal["count", "together", "none"] = Field(
        default="count",
        description="What becomes of prompts that nearly say the same: count tells how many lie in different splits; "
        "together draws them into one; none does not look.",
    )

    @property
    def item_sets(self) -> list[ItemSet]:
        """Return the sets to compare with, in which the plan has put the recipe's tasks; none where nobody looks."""
        return [one for one in self.decontaminate_against if self.decontaminate != "none" and isinstance(one, ItemSet)]

    @property
    def rows_only(self) -> "Settings":
        """Return the settings that give the same rows, and measure nothing beside."""
        measured = {"decontaminate": "warn", "near_duplicates": "count"}
        return self.model_copy(update={key: "none" for key, word in measured.items() if getattr(self, key) == word})

    @model_serializer(mode="wrap")
    def _that_decide_rows(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what changes no row, so that fingerprints and digests do not depend on it."""
        values: dict[str, Any] = dump(self)
        for key in ("decontaminate", "decontaminate_against", "decontaminate_share"):
            if self.decontaminate != "drop":
                del values[key]
        if self.near_duplicates != "together":
            del values["near_duplicates"]
        return values

    @field_validator("decontaminate_against")
    @classmethod
    def _each_once(cls, sets: tuple[Any, ...]) -> tuple[Any, ...]:
        names = [one if one == TASKS else one.title for one in sets]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two sets are named `{twice}`; leave one out, or give it another `name`")
        return sets

    @model_validator(mode="after")
    def _consistent(self) -> "Settings":
        if self.near_duplicates == "together" and self.columns.split is not None:
            raise ValueError("`near_duplicates: together` is of splits that are drawn; take out it or `columns.split`")
        if (self.path is None) == (self.dataset is None):
            given = "neither" if self.path is None else "both"
            raise ValueError(f"exactly one of `path` and `dataset` must be set, found {given}")
        for key in ("config", "revision"):
            if self.path is not None and getattr(self, key) is not None:
                raise ValueError(f"`{key}` is of a `dataset`, and none is read; take it out")
        if self.ragged_rows == "skip" and self.path is None:
            raise ValueError("`ragged_rows` is of a CSV in `path`, and a `dataset` is read; take it out")
        if isinstance(self.columns.reference, list) and self.references != "tests":
            raise ValueError("several columns of a reference are those of tests; name one, or set `references: tests`")
        if self.references == "tests" and (self.reference_after or self.reference_lists):
            raise ValueError("tests are taken as they stand; take out `reference_after` and `reference_lists`")
        if self.references != "none" and self.columns.reference is None:
            raise ValueError(f"`references: {self.references}` needs `columns.reference`, the column that holds them")
        return self
