"""Digest what a step depends on: a step whose fingerprint is in the store is not run again.

A fingerprint covers the stage, its schema version and code version, its settings except those in `NOT_COVERED` of the
stage's module, the seed, the digests of its inputs, and the models it is given. It does not cover what only decides
how long a step takes (devices, addresses of servers, how often it saves), nor settings in `LATER` of the module at the
value given there: they came when artifacts were stored. Prices are covered only where a budget in money goes by them.
Local files and folders count by content, not by path, so that the same recipe gives the same fingerprints wherever it
lies: `path: /home/ada/math.jsonl` is covered as `math.jsonl#` and 16 hex digits of the file's digest.

The digest of an artifact covers its files, settings, seed and inputs, and the next steps' fingerprints cover the
digest. Example, for a recipe that was run with `score.alpha` 0.4:

- It is run again as it is, or with another `generate.device`: every step is reused.
- `score.alpha` is 0.3: the prompts, and the assignments and responses of calibration, are reused. `score` runs again,
  and all steps that are made from its rewards: pairs, router, assignments of the pool, and so on.
- `generate.batch_tokens` is halved: `generate` and all later steps run again, for it decides which prompts share a
  batch, and so what is sampled.
- A line is added to the file of prompts: every step runs again, except the evaluation of the untrained student, which
  reads no prompts.
- The `VERSION` of `score` has risen, and the same rewards come out: `score` runs again. The code version is no part of
  an artifact's digest, so all later steps are reused.
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
from persyn_hf.runner.step import Step


# Keys of teachers that came later than artifacts: null or empty, as before, they are left out.
LATER_OF_TEACHERS = ("temperature", "top_p", "max_tokens", "chat_template_kwargs")

WHOLE_FILE = 64 * 2**20  # larger files count by size, first and last MiB: hashing 140 GB of weights takes minutes


def covered_settings(step: Step) -> dict[str, Any]:
    """Return a step's settings as fingerprint and manifest have them: resolved, portable, without `not_covered`.

    A setting in `LATER` of the stage's module is left out, too, while it has the value that held before it was a
    setting. So steps that were stored then are found again, and their digests stay.
    """
    settings = step.settings.model_dump(mode="json")
    later: Mapping[str, Any] = getattr(step.module, "LATER", {})
    as_before = {name for name, before in later.items() if _value_of(settings, name) == before}
    return portable(_without(settings, not_covered(step) | as_before))


def fingerprint(step: Step, seed: int, inputs: Mapping[str, str]) -> str:
    """Return the fingerprint of a step, 64 hex digits; `inputs` maps keywords of `run` to content digests."""
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
    sections = step.settings, getattr(step.settings, "labelling", None)
    budgets = [getattr(section, "budget", None) for section in sections]
    if any(budget is not None and budget.cost == "money" for budget in budgets):
        covered["prices"] = [teacher.model_dump(mode="json", include={"price"}) for teacher in step.teachers]
    return hashlib.sha256(json.dumps(covered, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _value_of(settings: Mapping[str, Any], name: str) -> Any:
    """Return a setting by its name, a `key` or `section.key`; None in a section that is null."""
    value: Any = settings
    for key in name.split("."):
        value = None if value is None else value[key]
    return value


def not_covered(step: Step) -> frozenset[str]:
    """Return the settings, as `key` or `section.key`, that change how long a step takes and not what it emits."""
    names: frozenset[str] = getattr(step.module, "NOT_COVERED", frozenset())
    return names


def code_version(step: Step) -> int:
    """Return the `VERSION` of a step's stage, which rises when the same settings give other content than before."""
    return int(getattr(step.module, "VERSION", 1))


def described(model: BaseModel) -> dict[str, Any]:
    """Describe a teacher or student in plain values, as covered: a local folder by the digest of its content."""
    left_out = ENGINE_NOT_COVERED | {"price", "license"}
    left_out |= {name for name in LATER_OF_TEACHERS if getattr(model, name, None) in (None, {})}
    if isinstance(model, Student):
        left_out |= {"params_b"}  # a teacher's size decides who is strong; a student's is for `persyn plan` only
    return _without(portable(model.model_dump(mode="json")), left_out)


def _without(values: dict[str, Any], keys: Collection[str], prefix: str = "") -> dict[str, Any]:
    """Return nested values without `keys`, each a `key` or `section.key`; entries of a list are as its section."""

    def inner(value: Any, within: str) -> Any:
        if isinstance(value, list):
            return [inner(item, within) for item in value]
        return _without(value, keys, within) if isinstance(value, dict) else value

    return {key: inner(value, f"{prefix}{key}.") for key, value in values.items() if f"{prefix}{key}" not in keys}


def portable(value: Any) -> Any:
    """Replace every absolute path of an existing file or folder by its name, `#` and 16 hex digits of its digest."""
    if isinstance(value, dict):
        return {key: portable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [portable(item) for item in value]
    if isinstance(value, str) and value.startswith("/") and os.path.exists(value):
        return f"{Path(value).name}#{path_digest(Path(value))[:16]}"
    return value


def check_paths(value: Any, where: str) -> None:
    """Refuse absolute paths that do not exist, before any stage runs; `where` is the value's place in the recipe.

    Raises:
        InputError: names the place and the path.
    """
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
    """Return the content digest, 64 hex digits, of a file or of all files in a folder with their names."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    total = hashlib.sha256()
    for file in files:
        status = file.stat()
        digest = _file_digest(str(file), status.st_size, status.st_mtime_ns)
        total.update(f"{file.relative_to(path) if file != path else ''}\0{digest}\n".encode())
    return total.hexdigest()


@functools.lru_cache(maxsize=4096)
def _file_digest(file: str, size: int, _mtime_ns: int) -> str:
    """Digest a file; it is read again only where its size or time of change differs. See `WHOLE_FILE`."""
    with open(file, "rb") as stream:
        if size <= WHOLE_FILE:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        ends = hashlib.sha256(str(size).encode() + stream.read(2**20))
        stream.seek(-(2**20), 2)
        ends.update(stream.read())
        return ends.hexdigest()
