"""What two artifacts differ in: settings, models, counts, measurements, allocation and rows."""

import dataclasses
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from store_samples import DATASETS, MODELS, dataset_of, fields, link, model_folder, rows_of

from persyn_hf.cli.main import main
from persyn_hf.errors import DamagedArtifact, StoreError
from persyn_hf.schemas import ASSIGNMENTS, PROMPTS, REWARDS, Schema
from persyn_hf.store.diff import Section, compare
from persyn_hf.store.local import Store
from persyn_hf.store.stored import Stored


def put(store: Store, schema: Schema, rows: list[dict[str, Any]], **more: Any) -> Stored:
    return store.put(repo="me/x", schema=schema, data=dataset_of(schema, rows), fields=fields(**more))


def found(old: Stored, new: Stored) -> dict[str, dict[str, tuple[str, str]]]:
    return {part.title: {key: (was, now) for key, was, now in part.rows} for part in compare(old, new)}


def notes(old: Stored, new: Stored) -> dict[str, str]:
    return {part.title: part.note for part in compare(old, new)}


def cells(teachers: dict[str, str], **more: Any) -> list[dict[str, Any]]:
    """Assignments: prompt -> teacher."""
    row = {"scores": [0.1, 0.9], "margin": 0.8, "confidence": None, "source": "router", "split": "pool"}
    return [{"prompt_id": prompt, "teacher": teacher, **row, **more} for prompt, teacher in teachers.items()]


def test_an_artifact_does_not_differ_from_itself(store: Store) -> None:
    stored = put(store, PROMPTS, rows_of(PROMPTS, 5))
    assert compare(stored, stored) == []


def test_kinds_must_be_the_same(store: Store) -> None:
    prompts = put(store, PROMPTS, [])
    rewards = store.put(repo="me/r", schema=REWARDS, data=dataset_of(REWARDS, []), fields=fields())
    with pytest.raises(StoreError) as caught:
        compare(prompts, rewards)
    assert str(caught.value) == (
        "me/x@v1 is of kind `prompts` and me/r@v1 of kind `rewards`; only artifacts of one kind can be compared"
    )


def test_how_they_were_made(store: Store) -> None:
    rows = rows_of(PROMPTS, 3)
    inputs = {"prompts": {"ref": "a/p@v1", "digest": "1" * 64}, "router": {"ref": "a/r@v1", "digest": "2" * 64}}
    teachers = [{"name": "a", "model": "org/a", "revision": None}, {"name": "b", "params_b": 7}]
    old = put(store, PROMPTS, rows, inputs=inputs, teachers=teachers, recipe="one")
    new = put(
        store,
        PROMPTS,
        rows,
        settings={"samples": 4, "sampling": {"temperature": 1.0, "top_p": 0.9}, "on": True},
        seed=8,
        code_version=2,
        recipe="two",
        inputs={"prompts": inputs["prompts"], "rewards": {"ref": "a/w@v2", "digest": "3" * 64}},
        teachers=[teachers[1], {**teachers[0], "revision": "abc"}, {"name": "c"}],
        student={"name": "s", "model": "org/other"},
        packages={"datasets": "5.3"},
        counts={"rows": 12, "dropped_error": 2000, "unjudged": 2},
        metrics={"accuracy": 0.5, "by_teacher": {"a": {"n": 3, "mean": 0.5}}, "oracle": {"x": 1}, "curve": [1, 2]},
    )
    assert found(old, new) == {
        "made by": {"recipe": ("one", "two"), "seed": ("7", "8"), "code_version": ("1", "2")},
        "settings": {"sampling.temperature": ("0.6", "1"), "sampling.top_p": ("–", "0.9"), "on": ("–", "yes")},
        "teachers": {"order": ("a, b", "b, a, c"), "a.revision": ("null", "abc"), "c": ("–", "{}")},
        "student": {"model": ("org/student", "org/other")},
        "inputs": {"rewards": ("–", f"a/w@v2 {'3' * 12}"), "router": (f"a/r@v1 {'2' * 12}", "–")},
        "packages": {"datasets": ("5.2", "5.3")},
        "counts": {"dropped_error": ("1", "2,000")},
        "measurements": {
            "accuracy": ("0.25", "0.5"), "by_teacher.b_1.n": ("4", "–"), "by_teacher.b_1.mean": ("null", "–"),
        },
    }  # fmt: skip


def test_the_same_rows_in_another_order(store: Store) -> None:
    rows = [{**row, "prompt_id": f"p{number}"} for number, row in enumerate(rows_of(PROMPTS, 30))]
    old, new = put(store, PROMPTS, rows), put(store, PROMPTS, rows[::-1])
    assert old.digest != new.digest and found(old, new) == {"rows": {}}
    assert notes(old, new)["rows"] == "the rows are the same; they stand in another order or in other files"


def test_a_column_that_is_new(store: Store) -> None:
    """Of an artifact that an older version wrote: it holds no `topic`."""
    rows = [{**row, "topic": None} for row in rows_of(PROMPTS, 6)]
    new = put(store, PROMPTS, [{**row, "topic": "x" if number < 2 else None} for number, row in enumerate(rows)])
    older = dataclasses.replace(PROMPTS, columns=tuple(each for each in PROMPTS.columns if each.name != "topic"))
    old = put(store, older, [{name: row[name] for name in older.names} for row in rows])
    assert found(old, new)["rows"] == {"changed": ("", "2"), "changed in `topic`": ("", "2")}


def test_intervals_stand_with_their_value(store: Store) -> None:
    old, new = (
        put(store, PROMPTS, [], seed=seed, metrics={"router": {"hit_at_1": {"value": v, "low": low, "high": 0.9}}})
        for seed, v, low in ((1, 0.5, 0.4), (2, 0.6, None))
    )
    assert found(old, new)["measurements"] == {"router.hit_at_1": ("0.5 (0.4 to 0.9)", "0.6")}


def test_long_texts_are_shown_where_they_differ(store: Store) -> None:
    old, new = (
        put(store, PROMPTS, [], settings={"template": "x" * 500 + word + "\n" * 9 + "y" * 90}) for word in "ab"
    )
    was, now = found(old, new)["settings"]["template"]
    assert was == "..." + "x" * 24 + "a " + "y" * 22 + "..."
    assert now == was.replace("a", "b")


def test_near_numbers_are_shown_in_full(store: Store) -> None:
    old, new = (put(store, PROMPTS, [], settings={"alpha": value}) for value in (0.1, 0.1 + 2**-50))
    assert found(old, new)["settings"]["alpha"] == ("0.1", "0.1000000000000009")


def test_many_changes_are_counted(store: Store) -> None:
    old, new = (put(store, PROMPTS, [], settings={f"k{key}": value for key in range(50)}) for value in (1, 2))
    (section,) = (part for part in compare(old, new) if part.title == "settings")
    assert (len(section.rows), section.note) == (40, "and 10 more")


def test_where_the_prompts_went(store: Store) -> None:
    old = put(store, ASSIGNMENTS, cells({"p1": "a", "p2": "a", "p3": "b", "p4": "b", "gone": "a"}))
    new = put(store, ASSIGNMENTS, cells({"new": "c", "p4": "a", "p3": "b", "p2": "a", "p1": "c"}))
    parts = found(old, new)
    assert parts["allocation (share of the rows)"] == {
        "a": ("60.0%", "40.0%"), "c": ("–", "40.0%"), "b": ("40.0%", "20.0%"),
    }  # fmt: skip
    said = notes(old, new)
    assert said["allocation (share of the rows)"] == "2 of the 4 prompts in both (50.0%) have another teacher"
    assert parts["rows"] == {"removed": ("", "3"), "added": ("", "3")}
    assert said["rows"] == "2 rows are in both, matched by prompt_id, teacher"


def test_several_teachers_of_a_prompt_have_no_order(store: Store) -> None:
    rows = cells({"p1": "a"}) + cells({"p1": "b"}) + cells({"p2": "a"})
    old, new = put(store, ASSIGNMENTS, rows), put(store, ASSIGNMENTS, rows[::-1], seed=1)
    assert "allocation (share of the rows)" not in found(old, new)
    assert found(old, new)["rows"] == {}  # another order


@pytest.mark.parametrize("schema", DATASETS, ids=lambda schema: schema.kind)
def test_rows_of_every_kind_against_a_plain_comparison(store: Store, schema: Schema) -> None:
    """Some removed, added, and changed in one column at a time, in another order, in several row groups."""
    draw, key = random.Random(5), schema.key
    before, others = (dataset_of(schema, rows_of(schema, 60, seed)).to_list() for seed in (0, 9))
    for number, row in enumerate(before):  # texts repeat in the samples; keys may not
        row["prompt_id" if "prompt_id" in key else "item"] = f"p{number}"
    after, changes = [dict(row) for row in before[7:]], 0
    touched: dict[str, int] = {}
    for row, other in zip(after, others[7:], strict=True):
        name = draw.choice([name for name in schema.names if name not in key and name != "split"] or [""])
        if name and row[name] != other[name]:
            row[name] = other[name]
            touched[name] = touched.get(name, 0) + 1
            changes += 1
    after += [{**row, ("prompt_id" if "prompt_id" in key else "item"): f"q{i}"} for i, row in enumerate(before[:3])]
    draw.shuffle(after)
    parts = found(put(store, schema, before), put(store, schema, after))
    expected = {"in all": (str(len(before)), str(len(after))), "removed": ("", "7"), "added": ("", "3")}
    expected |= {"changed": ("", str(changes))} if changes else {}
    expected |= {f"changed in `{name}`": ("", str(count)) for name, count in touched.items()}
    assert changes and parts["rows"] == expected


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ([0.5, 0.25], [0.25, 0.5]), ([], [0.0]), ([0.0], [0.0, 0.0]), ([1.0], [1.0 + 2**-52]), ([2.0], [-2.0]),
    ],
)  # fmt: skip
def test_lists_differ_by_order_length_and_last_bit(store: Store, old: list[float], new: list[float]) -> None:
    parts = found(*(put(store, ASSIGNMENTS, cells({"p": "a"}, scores=scores)) for scores in (old, new)))
    assert parts["rows"] == {"changed": ("", "1"), "changed in `scores`": ("", "1")}


def test_null_differs_from_the_word_and_from_zero(store: Store) -> None:
    def prompts(reference: str | None) -> list[dict[str, Any]]:
        return [{**rows_of(PROMPTS, 1)[0], "reference": reference}]

    texts = [put(store, PROMPTS, prompts(text)) for text in (None, "None", "", "nan")]
    for other in texts[1:]:
        assert found(texts[0], other)["rows"]["changed in `reference`"] == ("", "1")
    zero, null = (put(store, ASSIGNMENTS, cells({"p": "a"}, margin=margin)) for margin in (0.0, None))
    assert found(zero, null)["rows"]["changed in `margin`"] == ("", "1")


def test_models_differ_by_their_files(store: Store, tmp_path: Path) -> None:
    schema = MODELS[0]
    old, new = (
        store.put(repo="me/m", schema=schema, data=model_folder(tmp_path / str(seed), seed), fields=fields(seed=seed))
        for seed in (0, 1)
    )
    parts = found(old, new)
    assert list(parts["files"]) == ["model.safetensors"]
    assert parts["files"]["model.safetensors"][0] == old.manifest.files["model.safetensors"][:12]


def test_a_file_that_cannot_be_read(store: Store) -> None:
    old, new = (put(store, ASSIGNMENTS, cells({"p": teacher})) for teacher in "ab")
    name = next(path for path in new.manifest.files if path.endswith(".parquet"))
    (new.path / name).write_bytes(b"PAR1")
    with pytest.raises(DamagedArtifact, match=rf"^me/x@v2: {name} cannot be read \(.*\); verify the artifact$"):
        compare(old, new)


def test_the_command(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = (put(store, ASSIGNMENTS, cells({"p": teacher}), inputs=link()) for teacher in "ab")
    assert main(["artifacts", "diff", "me/x@v1", "me/x@v1", "--store", str(store.root)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "same content"
    assert main(["artifacts", "diff", "me/x@v1", "me/x@v2", "--store", str(store.root)]) == 1
    shown = capsys.readouterr().out
    assert shown.splitlines()[:2] == [f"{item.ref} assignments {item.digest}" for item in (old, new)]
    assert "1 of the 1 prompts in both (100.0%) have another teacher" in shown
    assert shown.splitlines()[-1] == "the content differs"
    assert isinstance(compare(old, new)[0], Section)


PEAK = """
import re, sys, time
from pathlib import Path
from persyn_hf.store.diff import compare
from persyn_hf.store.local import Store
store = Store(sys.argv[1])
print(len(compare(store.get("me/x@v1"), store.get("me/x@v2"))))
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def test_memory_does_not_grow_with_the_text(tmp_path: Path) -> None:
    """The same rows with answers of 100 characters and of 10,000: 160 MB of text more are read, none is kept."""
    peaks = []
    for length in (100, 10_000):
        store = Store(tmp_path / str(length))
        for word in ("one ", "two "):
            rows = [
                {"prompt_id": f"{i:016x}", "messages": [{"role": "user", "content": f"{i} {word}" * (length // 10)}],
                 "reference": None, "source": "s", "topic": None, "split": "pool"}
                for i in range(8_000)
            ]  # fmt: skip
            put(store, PROMPTS, rows)
        done = subprocess.run(
            [sys.executable, "-c", PEAK, str(store.root)], capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout.split()[-1]) / 1024)
    assert peaks[1] - peaks[0] < 100, peaks
