"""What a column, a dataset and a model artifact must be: the shape of the contracts in `persyn_hf.schemas`."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persyn_hf.errors import InputError


if TYPE_CHECKING:
    from datasets import Dataset, Features
    from datasets.arrow_writer import ArrowWriter


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column: its name, its dtype (`messages` and others of `_feature`, or an Arrow scalar) and what it holds."""

    name: str
    dtype: str
    meaning: str
    nullable: bool = False


@dataclass(frozen=True, kw_only=True)
class Schema:
    """The contract of one kind of dataset; `version` goes up when a column changes or a nullable one is added.

    `optional` columns may be null, and stand behind the others only where a setting asks for them. So they need no new
    `version`: what is made without them is as it was.
    """

    kind: str
    row: str
    key: tuple[str, ...]  # columns that tell one row from every other
    columns: tuple[Column, ...]
    version: int = 1
    config_by: str | None = None
    split_by: str | None = None
    optional: tuple[Column, ...] = ()

    @property
    def names(self) -> list[str]:
        """Return the names of the columns that every dataset of the contract has, in order."""
        return [column.name for column in self.columns]

    def having(self, names: Collection[str]) -> "Schema":
        """Return the contract of a dataset that has the optional columns among `names`, and no others."""
        there = tuple(column for column in self.optional if column.name in names)
        return replace(self, columns=(*self.columns, *there), optional=())

    @property
    def features(self) -> "Features":
        """Return the columns as `datasets` has them."""
        from datasets import Features

        return Features({column.name: _feature(column.dtype) for column in self.columns})

    def dataset(self, rows: Sequence[Mapping[str, Any]]) -> "Dataset":
        """Make a dataset of this contract from rows; unlike `Dataset.from_list` it can make an empty one."""
        from datasets import Dataset

        columns = {name: [row[name] for row in rows] for name in self.names}
        return Dataset.from_dict(columns, features=self.features)

    @contextmanager
    def writer(self, path: Path) -> "Iterator[ArrowWriter]":
        """Write rows or tables of this contract into a new file, some at a time; `Dataset.from_file` reads it."""
        from datasets.arrow_writer import ArrowWriter

        path.unlink(missing_ok=True)  # it may be mapped into memory: never write into it
        with ArrowWriter(path=str(path), features=self.features) as writer:
            yield writer
            writer.finalize()

    def complete(self, dataset: "Dataset", version: int) -> "Dataset":
        """Fill the nullable columns that a dataset of an older schema version lacks with null.

        Schemas grow by nullable columns, so what was published under an older `version` stays usable as an input.
        A dataset of the present version, and one that lacks another column, comes back as it is: `check` refuses it.
        """
        import pyarrow as pa
        from datasets.fingerprint import generate_random_fingerprint

        missing = [column for column in self.columns if column.name not in dataset.column_names]
        if version >= self.version or not missing or not all(column.nullable for column in missing):
            return dataset
        for column in missing:
            nulls = pa.nulls(len(dataset), self.features.arrow_schema.field(column.name).type)
            fresh = generate_random_fingerprint()  # or datasets would hash the column
            dataset = dataset.add_column(column.name, nulls, new_fingerprint=fresh, feature=_feature(column.dtype))
        others = [name for name in dataset.column_names if name not in self.names]
        return dataset.select_columns([*self.names, *others])

    def check(self, dataset: "Dataset", what: str) -> None:
        """Raise an `InputError` for a dataset with other columns or dtypes, or with nulls where none may be."""
        own = self.having(dataset.column_names)
        if dataset.features != own.features:
            expected, features = own.features, dataset.features
            wrong = [name for name in expected if features.get(name) != expected[name]]
            extra = [name for name in features if name not in expected]
            raise InputError(
                f"{what} is no `{self.kind}` dataset: columns {wrong} are missing or of another type, "
                f"columns {extra} are not known; needed are {dict(expected)}"
            )
        for column in self.columns:
            nulls = dataset.data.column(column.name).null_count if len(dataset) else 0
            if nulls and not column.nullable:
                raise InputError(f"{what}: column `{column.name}` holds {nulls} empty cells, it may hold none")


@dataclass(frozen=True, kw_only=True)
class ModelSchema:
    """The contract of a model artifact: a folder that `from_pretrained` loads."""

    kind: str
    row: str = ""
    version: int = 1


def _feature(dtype: str) -> Any:
    """Return the feature of `datasets` for the dtype of a column."""
    from datasets import List, Value

    if dtype == "messages":
        return List({"role": Value("string"), "content": Value("string")})
    if dtype == "verdicts":
        texts = {name: Value("string") for name in ("judge", "shown", "reason", "fault")}
        return List({**texts, "verdict": Value("float64")})
    if dtype.startswith("list<"):
        return List(Value(dtype[5:-1]))
    return Value(dtype)
