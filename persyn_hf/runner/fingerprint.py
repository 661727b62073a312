"""What a step depends on, as one digest: a step whose fingerprint is in the store is not run again.

Covered are the stage, its schema and code version, its settings but those in `NOT_COVERED` of the stage's module (they
change how long it takes, not what it emits), the seed, the digests of its inputs, and the models it is given. Local
files and folders count by content, not by path, so that the same recipe gives the same digests wherever the
repository lies.
"""

import functools
import hashlib
import json
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from persyn_hf.backends.engines.settings import ENGINE_NOT_COVERED
from persyn_hf.errors import InputError
from persyn_hf.recipe.roles import Student
from persyn_hf.runner.plan import Step


WHOLE_FILE = 64 * 2**20  # larger files count by size, first and last MiB: hashing 140 GB of weights takes minutes


def covered_settings(step: Step) -> dict[str, Any]:
    """The settings as they go into fingerprint and manifest: resolved, portable, without what is not covered."""
    return _without(portable(step.settings.model_dump(mode="json")), not_covered(step))


def fingerprint(step: Step, seed: int, inputs: Mapping[str, str]) -> str:
    """64 hex digits; `inputs` maps keywords to content digests."""
    covered = {
        "stage": step.stage,
        "kind": step.output.kind,
        "schema_version": step.output.version,
        "code_version": code_version(step),
        "settings": covered_settings(step),
        "seed": seed,
        "inputs": dict(inputs),
        "teachers": [described(teacher) for teacher in step.teachers],
        "student": described(step.student) if step.student else None,
    }
    return hashlib.sha256(json.dumps(covered, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def not_covered(step: Step) -> frozenset[str]:
    """The settings of a step, as `key` or `section.key`, that change how long it takes and not what it emits."""
    names: frozenset[str] = getattr(step.module, "NOT_COVERED", frozenset())
    return names


def code_version(step: Step) -> int:
    """`VERSION` of the stage's module: raised when the same settings give other content than before."""
    return int(getattr(step.module, "VERSION", 1))


def described(model: BaseModel) -> dict[str, Any]:
    """A teacher or student as plain values, its local folder replaced by its content."""
    left_out = ENGINE_NOT_COVERED | {"price", "license"}
    if isinstance(model, Student):
        left_out |= {"params_b"}  # of a teacher it decides who is strong, of a student nothing but the plan
    return _without(portable(model.model_dump(mode="json")), left_out)


def _without(values: dict[str, Any], keys: Collection[str], prefix: str = "") -> dict[str, Any]:
    """Leave out `key` and `section.key`."""
    return {
        key: _without(value, keys, f"{prefix}{key}.") if isinstance(value, dict) else value
        for key, value in values.items()
        if f"{prefix}{key}" not in keys
    }


def portable(value: Any) -> Any:
    """Replace every absolute path of a file or folder that exists by `name#digest`."""
    if isinstance(value, dict):
        return {key: portable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [portable(item) for item in value]
    if isinstance(value, str) and value.startswith("/") and os.path.exists(value):
        return f"{Path(value).name}#{path_digest(Path(value))[:16]}"
    return value


def check_paths(value: Any, where: str) -> None:
    """Refuse absolute paths that do not exist, before any stage runs."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if isinstance(value, dict):
        for key, item in value.items():
            check_paths(item, f"{where}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            check_paths(item, f"{where}.{index}")
    elif isinstance(value, str) and re.match(r"^/[^\s/]+/", value) and "\n" not in value and not os.path.exists(value):
        raise InputError(
            f"{where}: {value:.300} does not exist; paths in a recipe count from that file, those of --set from the "
            "working directory"
        )


def path_digest(path: Path) -> str:
    """Content digest of a file or of all files in a folder."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    total = hashlib.sha256()
    for file in files:
        status = file.stat()
        digest = _file_digest(str(file), status.st_size, status.st_mtime_ns)
        total.update(f"{file.relative_to(path) if file != path else ''}\0{digest}\n".encode())
    return total.hexdigest()


@functools.lru_cache(maxsize=4096)
def _file_digest(file: str, size: int, _mtime_ns: int) -> str:
    with open(file, "rb") as stream:
        if size <= WHOLE_FILE:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        ends = hashlib.sha256(str(size).encode() + stream.read(2**20))
        stream.seek(-(2**20), 2)
        ends.update(stream.read())
        return ends.hexdigest()
