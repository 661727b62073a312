"""The teacher of each prompt, of an `assignments` artifact, for on-policy distillation from several teachers (MOPD).

The student answers, and the teacher that `teacher_id` names says how likely it finds each token: TRL's
`AsyncDistillationTrainer` asks the server that its `teacher_server_urls` has under that name. Teachers must share the
student's vocabulary for that, which the file of teachers says where it can be told.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from persyn_hf.store.export.forms import BATCH, Beside, Form, Row, Wishes, input_of
from persyn_hf.store.local import Store
from persyn_hf.store.stored import Stored


def _rows(store: Store, stored: Stored, wishes: Wishes, counts: Counter[str]) -> Iterator[Row]:
    """Make a row per prompt, with the first teacher of those that were assigned to it."""
    prompts = store.read_dataset(input_of(store, stored, "prompts"))
    place_of = {prompt_id: place for place, prompt_id in enumerate(prompts["prompt_id"][:])}
    seen: set[str] = set()
    for batch in store.read_dataset(stored).iter(batch_size=BATCH):
        places = {name: place for place, name in reversed(list(enumerate(batch["prompt_id"]))) if name not in seen}
        first = sorted(places.values())
        seen |= places.keys()
        counts["further teachers of a prompt"] += len(batch["prompt_id"]) - len(first)
        asked = prompts.select([place_of[batch["prompt_id"][place]] for place in first])
        for place, prompt in zip(first, asked, strict=True):
            yield {
                "prompt": prompt["messages"],
                "teacher_id": batch["teacher"][place],
                "confidence": batch["confidence"][place],
                "prompt_id": prompt["prompt_id"],
            }


def _teachers(store: Store, stored: Stored, path: Path) -> Beside:
    """Write who the teachers are, and whether their vocabularies are the student's; null: it cannot be told here."""
    student = stored.manifest.student or {}
    own = vocabulary(student)
    teachers = {}
    for teacher in stored.manifest.teachers:
        theirs = vocabulary(teacher)
        known = own is not None and theirs is not None
        keys = ("model", "revision", "family", "params_b", "long_cot")
        teachers[teacher["name"]] = {key: teacher.get(key) for key in keys} | {
            "vocabulary_of_the_student": theirs == own if known else None
        }
    content = {"student": {key: student.get(key) for key in ("name", "model", "revision")}, "teachers": teachers}
    return {path.with_name(f"{path.stem}-teachers.json"): content}


def vocabulary(model: Mapping[str, Any]) -> dict[str, int] | None:
    """Return the tokens of a model by their ids; None where its tokenizer is not on this machine.

    A manifest names a local folder by its content, so only models of the Hub's cache can be looked up.
    """
    name = model.get("model")
    if not name or "#" in name:
        return None
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            name, revision=model.get("revision"), local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError):
        return None
    return dict(tokenizer.get_vocab())


FORMS = {"mopd": Form(kind="assignments", rows=_rows, beside=_teachers)}
