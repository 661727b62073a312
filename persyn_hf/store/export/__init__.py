"""Write what artifacts hold as files that other trainers read.

rows_of_sft.py       training rows: for SFT in TRL, LLaMA-Factory, ms-swift and Axolotl
rows_of_rewards.py   preferences (DPO, KTO, reward models) for TRL, LLaMA-Factory and ms-swift; difficulties for GRPO
rows_of_routes.py    the teacher of each prompt: for on-policy distillation from several teachers
"""

import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from persyn_hf.store.disk import out_faults
from persyn_hf.store.export import rows_of_rewards, rows_of_routes, rows_of_sft
from persyn_hf.store.export.forms import Form, Wishes
from persyn_hf.store.local import Store


__all__ = ["FORMATS", "Wishes", "export"]

FORMATS: dict[str, Form] = {**rows_of_sft.FORMS, **rows_of_rewards.FORMS, **rows_of_routes.FORMS}


def export(
    store: Store, ref: str, to: str, out: Path, wishes: Wishes | None = None, counts: Counter[str] | None = None
) -> list[Path]:
    """Write an artifact as JSON lines, and what its reader needs beside them, and return the files.

    Args:
        ref: NAMESPACE/NAME or NAMESPACE/NAME@TAG, of the kind that the form is made of.
        to: a key of `FORMATS`.
        out: the folder, which is made where it is not there.
        wishes: of the forms that pair answers.
        counts: gets the number of rows, and of what was left out, by reason.

    Raises:
        StoreError: there is no such artifact, it or what it was made from is of another kind or missing, it gives no
            row, or the folder cannot be written.
    """
    form, counted = FORMATS[to], Counter[str]() if counts is None else counts
    stored = store.get(ref, kind=form.kind)
    name = f"{stored.repo.rpartition('/')[2]}-{stored.tag}" + (f"-{to}" if form.named else "")
    path = out / f"{name}.jsonl"
    with out_faults(out):
        out.mkdir(parents=True, exist_ok=True)
        beside = form.beside(store, stored, path)
        part = path.with_suffix(".part")
        with part.open("w", encoding="utf-8") as file:
            for row in form.rows(store, stored, wishes or Wishes(), counted):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                counted["rows"] += 1
        if not counted["rows"]:
            part.unlink()
            raise form.empty(stored.ref, counted)
        os.replace(part, path)
        for other, content in beside.items():
            _write(other, content)
    return [path, *beside]


def _write(path: Path, content: str | Mapping[str, Any]) -> None:
    text = content if isinstance(content, str) else json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
