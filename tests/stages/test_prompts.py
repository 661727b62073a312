"""`prompts`: every kind of source, what is left out and counted, how the split is drawn."""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from persyn_hf.backends.harness.questions import final_answer
from persyn_hf.errors import InputError, RecipeError
from persyn_hf.recipe.strict import read_section
from persyn_hf.schemas import PROMPTS, prompt_id
from persyn_hf.stage import Context, Result
from persyn_hf.stages import prompts
from persyn_hf.stages.prompts.splits import SPLITS


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def run(tmp_path: Path, seed: int = 0, **settings: Any) -> Result:
    result = prompts.run(read_section(prompts.Settings, settings, "prompts"), Context(seed=seed, work_dir=tmp_path))
    PROMPTS.check(result.data, "prompts")
    return result


def texts(result: Result, split: str | None = None) -> list[str]:
    return [r["messages"][-1]["content"] for r in result.data if split in (None, r["split"])]


def test_gsm8k(tmp_path: Path, root: Path) -> None:
    """Real questions: Unicode, money, fractions, long ones; references behind #### with thousands separators."""
    path = str(root / "tests" / "data" / "gsm8k_sample.jsonl")
    lines = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    result = run(
        tmp_path,
        path=path,
        columns={"prompt": "question", "reference": "answer"},
        reference_after="####",
        references="math",
        calibration=20,
        dev=10,
    )
    assert result.counts == {
        "read": 100, "kept": 100, "duplicates": 0, "reference_differs": 0, "empty": 0, "not_text": 0,
        "reference_missing": 0, "reference_unparsable": 0, "reference_timed_out": 0, "not_asked_for": 0,
    }  # fmt: skip
    assert Counter(result.data["split"]) == {"calibration": 20, "dev": 10, "pool": 70}
    expected = {line["question"].strip(): line["answer"].split("####")[1].strip().replace(",", "") for line in lines}
    found = {row["messages"][0]["content"]: row["reference"] for row in result.data}
    assert found == expected
    assert any(reference.isdigit() and int(reference) >= 1000 for reference in found.values())
    assert any(not question.isascii() for question in found)
    assert all(row["prompt_id"] == prompt_id(row["messages"]) for row in result.data)
    assert result.data.unique("source") == ["gsm8k_sample.jsonl"]


@pytest.mark.parametrize(
    ("text", "answer"),
    [("x #### 1,234", "1234"), ("a #### b #### $1,234,567.50", "$1234567.50"), ("#### (1,200)", "(1,200)"),
     ("#### 1,2", "1,2"), ("####", None), ("12", None), ("#### -3,000 m", "-3000 m"), ("#### 1,234.", "1234.")],
)  # fmt: skip
def test_final_answer(text: str, answer: str | None) -> None:
    assert final_answer(text, "####") == answer


def test_same_rows_from_every_kind_of_file(tmp_path: Path) -> None:
    rows = [{"prompt": f"Frage {i} über 5 €,\nzweite Zeile", "answer": str(i), "kind": "a"} for i in range(6)]
    write(tmp_path / "p.jsonl", rows)
    (tmp_path / "p.json").write_text(json.dumps(rows), encoding="utf-8")
    with (tmp_path / "p.csv").open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    (tmp_path / "hub").mkdir()
    for path in (tmp_path / "p.parquet", tmp_path / "hub" / "train.parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
    sources = [{"path": str(tmp_path / f"p.{kind}")} for kind in ("jsonl", "json", "csv", "parquet")]
    for source in [*sources, {"dataset": str(tmp_path / "hub")}]:
        result = run(
            tmp_path, **source, columns={"reference": "answer", "topic": "kind"}, calibration=2, dev=1, pool=2, limit=5
        )
        assert result.counts["read"] == 5
        assert sorted(texts(result)) == [row["prompt"] for row in rows[:5]]
        assert {row["reference"] for row in result.data} == set("01234")
        assert result.data.unique("topic") == ["a"]


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " hi "}]
    rows = [
        {"prompt": "  one  ", "a": 1},
        {"prompt": "one", "a": 1},  # the same once stripped
        {"prompt": "one\r", "a": 2},  # with another reference: the first stays
        {"prompt": "   ", "a": 1},
        {"prompt": None, "a": 1},
        {"prompt": 7, "a": 1},
        {"prompt": {"x": 1}, "a": 1},
        {"prompt": [{"role": "assistant", "content": "no question"}], "a": 1},
        {"prompt": [{"role": "user", "content": ""}], "a": 1},
        {"prompt": turns, "a": 0.5},
        {"prompt": "no answer", "a": None},
        {"prompt": "no parse", "a": "?"},
    ]
    path = write(tmp_path / "p.jsonl", rows)
    kept = run(tmp_path, path=path, calibration=1, dev=0, columns={"reference": "a"})
    assert {name: count for name, count in kept.counts.items() if count} == {
        "read": 12, "kept": 4, "duplicates": 1, "reference_differs": 1, "empty": 3, "not_text": 3,
        "reference_missing": 1,
    }  # fmt: skip
    by_text = {row["messages"][-1]["content"]: row for row in kept.data}
    assert by_text["one"]["reference"] == "1"
    assert by_text["hi"]["messages"][0] == turns[0]
    assert by_text["no answer"]["reference"] is None
    for references, names in (("text", ["one", "hi", "no parse"]), ("math", ["one", "hi"])):
        result = run(tmp_path, path=path, calibration=1, dev=0, columns={"reference": "a"}, references=references)
        assert result.counts["read"] == sum(count for name, count in result.counts.items() if name != "read")
        assert sorted(texts(result)) == sorted(names)
        assert result.counts["reference_unparsable"] == (references == "math")


def test_prompts_of_published_conversations(tmp_path: Path) -> None:
    """The assistant's answer at the end is no part of the prompt; Magpie writes in the words of ShareGPT."""
    first = [{"from": "human", "value": "one "}, {"from": "gpt", "value": "1"}]
    longer = [*first, {"from": "human", "value": "two"}, {"from": "gpt", "value": "2"}]
    path = write(tmp_path / "p.jsonl", [{"prompt": first}, {"prompt": longer}, {"prompt": "one"}])
    result = run(tmp_path, path=path, calibration=1, dev=0)
    assert (result.counts["kept"], result.counts["duplicates"]) == (2, 1)
    by_length = sorted(result.data["messages"], key=len)
    assert by_length[0] == [{"role": "user", "content": "one"}]
    assert [turn["role"] for turn in by_length[1]] == ["user", "assistant", "user"]
    assert by_length[1][0]["content"] == "one "  # only the end is the user's to have mistyped


@pytest.mark.heavy
def test_references_that_cannot_be_graded_are_set_apart(tmp_path: Path) -> None:
    """Before any generation is paid for, each for its reason."""
    references = ["12", "$9999999^{9999999}$", "\\frac{1}{2}", "\\text{}", "?", "1e-5"]
    path = write(tmp_path / "p.jsonl", [{"prompt": f"p{i}", "a": text} for i, text in enumerate(references)])
    result = run(tmp_path, path=path, calibration=1, dev=0, columns={"reference": "a"}, references="math")
    assert sorted(texts(result)) == ["p0", "p2", "p5"]
    assert {name: count for name, count in result.counts.items() if count} == {
        "read": 6, "kept": 3, "reference_unparsable": 2, "reference_timed_out": 1,
    }  # fmt: skip


def test_a_prompt_may_be_of_several_columns(tmp_path: Path) -> None:
    """Alpaca's instruction and input, which is often empty."""
    rows = [{"instruction": "Add one.", "input": value, "output": "x"} for value in ("1", "2", "", None, "2\n")]
    path, columns = write(tmp_path / "q.jsonl", rows), {"prompt": ["instruction", "input"]}
    result = run(tmp_path, path=path, columns=columns, calibration=1, dev=0)
    assert sorted(texts(result)) == ["Add one.", "Add one.\n\n1", "Add one.\n\n2"]
    assert result.counts["duplicates"] == 2
    path = write(tmp_path / "mbpp.jsonl", [{"prompt": "Add.", "test_list": ["assert f(1) == 2", "assert f(2) == 3"]}])
    lines = run(tmp_path, path=path, columns={"prompt": ["prompt", "test_list"]}, calibration=1, dev=0)
    assert texts(lines) == ["Add.\n\nassert f(1) == 2\nassert f(2) == 3"]
    path = write(tmp_path / "q.jsonl", rows)
    with pytest.raises(InputError, match="no column `inputs` for `columns.prompt`, did you mean `input`"):
        run(tmp_path, path=path, columns={"prompt": ["instruction", "inputs"]}, calibration=1, dev=0)
    with pytest.raises(RecipeError):
        run(tmp_path, path=path, columns={"prompt": []}, calibration=1, dev=0)


def test_a_dataset_with_a_loading_script_is_refused_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "ds").mkdir()
    (tmp_path / "ds" / "ds.py").write_text("import datasets\n", encoding="utf-8")
    with pytest.raises(InputError, match="loading script.*`revision: refs/convert/parquet`.*`path`"):
        run(tmp_path, dataset=str(tmp_path / "ds"), calibration=1, dev=0)


def test_a_reference_may_be_a_list_of_answers(tmp_path: Path) -> None:
    """As OlympiadBench has them; `evaluate` reads them alike."""
    found: list[Any] = [["2", "3"], ["42"], [], [None, "7"], {"a": 1}, float("nan"), 1.5]
    rows = [{"q": f"Question {number}?", "a": answer} for number, answer in enumerate(found)]
    columns = {"prompt": "q", "reference": "a"}
    result = run(tmp_path, path=write(tmp_path / "q.jsonl", rows), columns=columns, calibration=1, dev=0)
    references = dict(zip(texts(result), result.data["reference"][:], strict=True))
    assert [references[row["q"]] for row in rows] == ["2, 3", "42", None, "7", None, None, "1.5"]
    assert result.counts["reference_missing"] == 3


@pytest.mark.parametrize("name", ["q.jsonl", "q.json"])
def test_half_a_surrogate_pair_is_replaced_where_the_file_is_read(tmp_path: Path, name: str) -> None:
    rows = [{"q": [{"role": "user", "content": "Why \ud83d?"}]}, {"q": "And \ud83d\ude00?"}, {"q": "\udc00"}]
    lines = [json.dumps(row) for row in rows]
    (tmp_path / name).write_text("\n".join(lines) if name.endswith("l") else f"[{','.join(lines)}]", encoding="utf-8")
    result = run(tmp_path, path=str(tmp_path / name), columns={"prompt": "q"}, calibration=1, dev=0)
    assert sorted(texts(result)) == ["And \U0001f600?", "Why \ufffd?", "\ufffd"]


def test_a_dataset_whose_first_file_has_an_empty_column_is_read_whole(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder / "train-1.jsonl", [{"q": f"First {number}?", "a": None} for number in range(3)])
    write(folder / "train-2.jsonl", [{"q": f"Second {number}?", "a": str(number)} for number in range(2)])
    columns = {"prompt": "q", "reference": "a"}
    result = run(tmp_path, dataset=str(folder), columns=columns, references="text", calibration=1, dev=0)
    assert sorted(texts(result)) == ["Second 0?", "Second 1?"]
    assert (result.counts["read"], result.counts["reference_missing"]) == (5, 3)
    (folder / "train-2.jsonl").write_text('{"q": "Second?", "a"', encoding="utf-8")
    with pytest.raises(InputError, match=r"data cannot be read: .*; check `prompts.dataset`"):
        run(tmp_path, dataset=str(folder), columns=columns, calibration=1, dev=0)


def test_split_is_drawn_once_by_the_seed(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i:02}"} for i in range(40)]
    path = write(tmp_path / "p.jsonl", rows)
    one, same, other = (run(tmp_path, seed=seed, path=path, calibration=10, dev=5) for seed in (1, 1, 2))
    assert one.data.to_list() == same.data.to_list()
    assert texts(one, "calibration") != texts(other, "calibration")
    assert one.data["split"][:] == ["calibration"] * 10 + ["dev"] * 5 + ["pool"] * 25
    for split in SPLITS:
        assert texts(one, split) == sorted(texts(one, split))  # the order of the source
    assert sorted(texts(one)) == [row["prompt"] for row in rows]
    some = run(tmp_path, seed=1, path=path, calibration=10, dev=5, pool=7)
    assert (some.counts["kept"], some.counts["not_asked_for"]) == (22, 18)


def test_split_from_a_column(tmp_path: Path) -> None:
    names = ["pool", "calibration", "dev", "pool", "calibration"]
    path = write(tmp_path / "p.jsonl", [{"prompt": f"p{i}", "s": name} for i, name in enumerate(names)])
    result = run(tmp_path, path=path, columns={"split": "s"})
    assert texts(result) == ["p1", "p4", "p2", "p0", "p3"]
    assert texts(run(tmp_path, path=path, columns={"split": "s"}, calibration=1)) == ["p1", "p2", "p0", "p3"]
    with pytest.raises(InputError, match="gives 1 usable prompts of split dev, but `dev` asks for 2; lower it"):
        run(tmp_path, path=path, columns={"split": "s"}, dev=2)
    path = write(tmp_path / "q.jsonl", [{"prompt": "p", "s": "train"}])
    with pytest.raises(InputError, match="column `s` holds 'train'; its values must be calibration, dev, pool"):
        run(tmp_path, path=path, columns={"split": "s"})


def test_too_few_prompts(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", [{"prompt": f"p{i}"} for i in range(9)])
    with pytest.raises(InputError) as error:
        run(tmp_path, path=path, calibration=8, dev=2)
    assert str(error.value) == (
        "p.jsonl gives 9 usable prompts, but `calibration` 8, `dev` 2 ask for 10; "
        "lower these sizes or give more prompts"
    )
    with pytest.raises(InputError, match="`calibration` 2500, `dev` 1000 ask for 3500"):
        run(tmp_path, path=path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.jsonl", '{"prompt": "a"}\n{"prompt": \n', "cannot be read as .jsonl: line 2: Expecting value"),
        ("p.jsonl", '["a"]\n', "cannot be read as .jsonl: line 1 is list, not an object"),
        ("p.jsonl", "\n\n", "holds no rows; `prompts` needs at least one"),
        ("p.csv", "prompt\n", "holds no rows"),
        ("p.csv", "", "p.csv is empty: it holds no rows; `prompts` needs at least one"),
        ("p.json", " \n", "p.json is empty"),
        ("p.jsonl", '{"promt": "a", "b": 1}\n', "no column `prompt` for `columns.prompt`, did you mean `promt`?"),
        ("p.jsonl", '{"prompt": " "}\n', "gives no usable prompt (read 1, empty 1)"),
        ("p.json", '{"prompt": "a"}', "it holds one dict, needed is a list of rows"),
        ("p.parquet", "no parquet", "cannot be read as .parquet: "),
        ("p.txt", "a", "must end in .parquet, .jsonl, .ndjson, .json, .csv, .tsv, found `.txt`"),
        ("p.jsonl", None, "does not exist or is no file"),
    ],
)  # fmt: skip
def test_bad_files(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError) as error:
        run(tmp_path, path=str(tmp_path / name))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_bad_bytes_and_bad_dataset(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_bytes(b'{"prompt": "\xff"}\n')
    with pytest.raises(InputError, match=r"cannot be read as .jsonl: line 1 has the byte 0xff"):
        run(tmp_path, path=str(tmp_path / "p.jsonl"))
    with pytest.raises(InputError, match=r"the dataset no-one/nothing cannot be read: .*; check `prompts.dataset`"):
        run(tmp_path, dataset="no-one/nothing")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "exactly one of `path` and `dataset` must be set, found neither"),
        ({"path": "a.jsonl", "dataset": "b/c"}, "exactly one of `path` and `dataset` must be set, found both"),
        ({"path": "a.jsonl", "references": "math"}, "`references: math` needs `columns.reference`"),
        ({"path": "a.jsonl", "columns": {"promt": "q"}}, "unknown key `promt`, did you mean `prompt`?"),
        ({"path": "a.jsonl", "calibration": 0}, "prompts.calibration: must be at least 1, got 0"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as error:
        read_section(prompts.Settings, settings, "prompts")
    assert message in str(error.value)
