"""The manifest of an artifact, `persyn.json`: how it was made, from what, and the digest of every file of it."""

import datetime
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from persyn_hf.errors import DamagedArtifact
from persyn_hf.schemas import SCHEMAS
from persyn_hf.store.manifest_parts import check_cost, check_model, check_settings
from persyn_hf.text import one_line


MANIFEST = "persyn.json"
CARD = "README.md"
FIGURES = "figures/"  # pictures of the card lie there


def utc_now() -> str:
    """Return the time in ISO 8601, UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


Count = Annotated[int, Field(ge=0, lt=2**63)]
LARGEST = 2**64  # of whole numbers: seeds have 63 bits, and no count comes near


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Input(_Frozen):
    """The reference and the content digest of an artifact that a stage read."""

    ref: str  # NAMESPACE/NAME@TAG
    digest: str


class Manifest(_Frozen):
    """The record of all that is known of an artifact. Times, versions and cost are not part of `digest`."""

    stage: str
    kind: str
    schema_version: int
    repo: str
    settings: dict[str, Any] = Field(default_factory=dict)
    seed: int = 0
    fingerprint: str = ""
    inputs: dict[str, Input] = Field(default_factory=dict)
    teachers: tuple[dict[str, Any], ...] = ()  # in order; each has at least `name`
    student: dict[str, Any] | None = None
    counts: dict[str, Count] = Field(default_factory=dict)
    metrics: dict[str, Any] = Field(default_factory=dict)
    cost: dict[str, Any] = Field(default_factory=dict)
    packages: dict[str, str] = Field(default_factory=dict)
    created_at: str = Field(default_factory=utc_now)
    code_version: int | str = ""
    recipe: str = ""  # its name
    licences: dict[str, str | None] = Field(default_factory=dict)  # where text came from -> its licence; null: unknown
    languages: tuple[str, ...] = ()
    rows: dict[str, dict[str, Count]] = Field(default_factory=dict)  # config -> split -> rows; empty for models
    files: dict[str, str] = Field(default_factory=dict)  # path -> sha256, of every file but persyn.json itself
    digest: str = ""

    @field_validator("settings", "teachers", "student", "metrics", "cost", mode="before")
    @classmethod
    def _json_values(cls, value: Any) -> Any:
        """Bring what callers give to plain JSON values; a bare name in a list becomes `{"name": ...}`."""
        if isinstance(value, list | tuple):
            value = [{"name": item} if isinstance(item, str) else item for item in value]
        return plain(value)

    @field_validator("settings")
    @classmethod
    def _settings(cls, value: dict[str, Any]) -> dict[str, Any]:
        check_settings(value)
        return value

    @field_validator("cost")
    @classmethod
    def _cost(cls, value: dict[str, Any]) -> dict[str, Any]:
        check_cost(value)
        return value

    @field_validator("teachers")
    @classmethod
    def _teachers(cls, value: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        for teacher in value:
            check_model(teacher)
        return value

    @field_validator("student")
    @classmethod
    def _student(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None:
            check_model(value)
        return value

    @property
    def commit(self) -> str:
        """The local commit id: the first 40 hex digits of the content digest."""
        return self.digest[:40]

    @property
    def teacher_names(self) -> list[str]:
        """The names of the teachers in the order of every `scores` list."""
        return [str(teacher["name"]) for teacher in self.teachers]

    def content_digest(self) -> str:
        """Return the digest that the fields of this manifest lead to."""
        return content_digest(
            files=self.files,
            kind=self.kind,
            schema_version=self.schema_version,
            settings=self.settings,
            seed=self.seed,
            inputs={keyword: item.digest for keyword, item in self.inputs.items()},
        )

    def to_json(self) -> str:
        """Return the manifest as it is written to `persyn.json`: sorted keys, two spaces, one final line break."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, indent=2, ensure_ascii=False) + "\n"


def plain(value: Any) -> Any:
    """Return a value as JSON keeps it: keys become text, numpy scalars numbers, numbers that are not finite null.

    Raises:
        TypeError: a value is none that JSON knows.
        ValueError: a whole number has more than 64 bits, which no table and no other program takes.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, int) and not -LARGEST < value < LARGEST:
        raise ValueError("a whole number has more than 64 bits")
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"a manifest holds plain JSON values, got {type(value).__name__} {value!r}")


def is_card(path: str) -> bool:
    """Tell whether a file is the card or a picture of it: these describe the content and do not belong to it."""
    return path == CARD or path.startswith(FIGURES)


def content_digest(
    *,
    files: Mapping[str, str],
    kind: str,
    schema_version: int,
    settings: Mapping[str, Any],
    seed: int,
    inputs: Mapping[str, str],
) -> str:
    """Return the sha256 over the content of an artifact and what made it, as 64 hex digits.

    Args:
        files: path -> sha256; the card, its pictures and the manifest are left out, so that times, cost and the
            version of the plotting library do not count.
        settings: the settings of the stage.
        inputs: keyword -> content digest of the artifact that was read.
    """
    content = {
        "files": {path: digest for path, digest in files.items() if not is_card(path) and path != MANIFEST},
        "kind": kind,
        "schema_version": schema_version,
        "settings": plain(settings),
        "seed": seed,
        "inputs": dict(inputs),
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def read_manifest(folder: Path, ref: str) -> Manifest:
    """Return the manifest in `persyn.json` of a snapshot folder.

    Args:
        ref: NAMESPACE/NAME@TAG, for the messages.

    Raises:
        DamagedArtifact: it is missing, no JSON, or no manifest, or of a kind that is not known.
    """
    path = folder / MANIFEST
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
        if manifest.kind in SCHEMAS:
            return manifest
        reason = f"is of the kind `{one_line(manifest.kind)[:80]}`, which this version of persyn-hf does not know"
    except FileNotFoundError:
        reason = "is missing"
    except OSError as error:
        reason = f"cannot be read ({error.strerror})"
    except ValidationError as error:
        reason = f"is no manifest ({fault_of(error)})"
    raise DamagedArtifact(
        f"{ref}: its {MANIFEST} {reason}, found in {folder}; "
        + remedy(ref, f"the file of the tag in {folder.parent.parent / 'refs'}")
    )


def fault_of(error: ValidationError) -> str:
    """Return the first fault that pydantic has found in a file of JSON: its place and what is wrong there."""
    fault = error.errors(include_input=False, include_context=False)[0]
    where = ".".join(one_line(part)[:80] for part in fault["loc"])
    return f"{f'`{where}`: ' if where else ''}{one_line(fault['msg'].removeprefix('Value error, '))[:300]}"


def remedy(ref: str, tag_file: str) -> str:
    """Return what to do about a damaged artifact of a store, which does not know where it came from."""
    return (
        f"if it came from the Hub: persyn artifacts pull {ref}; else restore it from a copy, or delete {tag_file} and "
        "run its recipe to make it anew"
    )
