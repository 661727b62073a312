"""A prior from outside: every format and both names of prompts and values, and one sentence for each slip."""

import json

import numpy as np
import pandas as pd
import pytest
from rows import reward, user

from persyn_hf.backends.priors import read_prior
from persyn_hf.errors import InputError
from persyn_hf.schemas import REWARDS


IDS, CONVERSATIONS, POOL = ["p1", "p2"], [user("Add 1\nand 2."), user("Sing.")], ["a", "b"]


def read(prior):
    return read_prior(prior, IDS, CONVERSATIONS, POOL)


def rows(key="prompt_id", value="reward", names=("p1", "p2")):
    """Of teacher `a` on both prompts, of `b` on the first, and what this recipe does not have."""
    cells = [(names[0], "a", 0.25), (names[1], "a", 1), (names[0], "b", None), (names[0], "c", 3), ("other", "a", 4)]
    return [{key: name, "teacher": teacher, value: number} for name, teacher, number in cells]


def written(tmp_path, content, suffix):
    path = tmp_path / f"prior{suffix}"
    if suffix == ".parquet":
        pd.DataFrame(content).to_parquet(path)
    elif suffix == ".csv":
        pd.DataFrame(content).to_csv(path, index=False)
    else:
        path.write_text("\n".join(json.dumps(row) for row in content))
    return str(path)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("value", ["reward", "quality"])
@pytest.mark.parametrize(("key", "names"), [("prompt_id", ("p1", "p2")), ("prompt", ("Add 1 and  2.", "Sing. "))])
def test_a_file_is_read_by_prompt_and_teacher(tmp_path, suffix, value, key, names):
    matrix = read(written(tmp_path, rows(key, value, names), suffix))
    assert np.array_equal(matrix, [[0.25, np.nan], [1, np.nan]], equal_nan=True)


def test_parquet_has_nulls(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows()), tmp_path / "prior.parquet")
    matrix = read(str(tmp_path / "prior.parquet"))
    assert np.array_equal(matrix, [[0.25, np.nan], [1, np.nan]], equal_nan=True)


def test_rewards_of_another_student_are_read_whatever_their_split():
    kept = [reward("p1", "b", 0.5, split="dev"), reward("p2", "a", split="calibration"), reward("p3", "a", 1.0)]
    assert np.array_equal(read(REWARDS.dataset(kept)), [[np.nan, 0.5], [np.nan, np.nan]], equal_nan=True)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"teacher": "x"}, "holds none of the teachers a, b; name them as the recipe does, or leave `prior` out"),
        (
            {"prompt_id": "x"},
            "holds none of the calibration prompts (compared by `prompt_id`); name one over the same prompts, or "
            "leave `prior` out",
        ),
        ({"reward": None}, "has no value of a teacher of this recipe on one of its calibration prompts; name another"),
        (
            {"reward": float("nan")},
            "holds 'nan' as `reward` of prompt p1 by `a`, a finite number up to 1e+100 is needed, or nothing where "
            "none is known; mend the value",
        ),
        ({"reward": 1e101}, "holds '1e+101' as `reward` of prompt p1 by `a`"),
        ({"reward": float("-inf")}, "holds '-inf' as `reward` of prompt p1 by `a`"),
        ({"reward": "good"}, "holds 'good' as `reward` of prompt p1 by `a`"),
        ({"reward": [1]}, "holds '[1]' as `reward` of prompt p1 by `a`"),
        ({"prompt_id": "p1"}, "has two rows of prompt p1 by `a`, one is needed; leave one out"),
    ],
)
def test_bad_values_are_refused_in_one_sentence(tmp_path, change, sentence):
    content = [row | change for row in rows()]
    path = written(tmp_path, content, ".jsonl")
    with pytest.raises(InputError) as error:
        read(path)
    assert str(error.value).startswith(f"`calibration.prior`: {path} ") and sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_columns_are_named(tmp_path):
    path = written(tmp_path, [{"question": "p1", "teacher": "a", "score": 1}], ".csv")
    with pytest.raises(InputError) as error:
        read(path)
    assert str(error.value) == (
        f"`calibration.prior`: {path} has the columns question, teacher, score; needed are `prompt_id` or `prompt`, "
        "`teacher`, and `reward` or `quality`; rename them"
    )


def test_files_that_cannot_be_read(tmp_path):
    for name, content, sentence in (
        ("none.csv", None, "does not exist or is no file; `calibration.prior` must name a file"),
        ("prior.txt", "x", "`calibration.prior` must end in .parquet, .jsonl, .ndjson, .json, .csv, .tsv"),
        ("empty.csv", "", "is empty: it holds no rows"),
        ("head.csv", "prompt_id,teacher,reward\n", "holds no value"),
        ("bad.jsonl", "{", "cannot be read as .jsonl"),
    ):
        if content is not None:
            (tmp_path / name).write_text(content)
        with pytest.raises(InputError) as error:
            read(str(tmp_path / name))
        assert sentence in str(error.value), name
