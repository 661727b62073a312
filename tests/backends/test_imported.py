import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from persyn_hf.backends.dataset_rows import NameIndex
from persyn_hf.backends.engines.imported import (
    Columns,
    Imported,
    ImportSettings,
    check_columns,
    to_samples,
)
from persyn_hf.backends.engines.imported import read_responses as read_into_a_file
from persyn_hf.backends.engines.samples import Sample
from persyn_hf.errors import InputError, RecipeError
from persyn_hf.recipe.roles import Teacher
from persyn_hf.recipe.strict import read_section
from persyn_hf.schemas import prompt_id


SMALL, BIG = Teacher(name="small", model="org/small-1b"), Teacher(name="big", model="org/big-9b")


def prompt(text: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"prompt_id": prompt_id(messages), "messages": messages}


SUM, PRODUCT, OTHER = prompt("2 + 2?"), prompt("2 * 3?"), prompt("not asked")
CELLS = {"small": [SUM, PRODUCT], "big": [SUM]}

LONG = [
    {"prompt": " 2 + 2?\n", "teacher": "small", "response": "4"},
    {"prompt": "2 + 2?", "teacher": "org/big-9b", "response": "four"},
    {"prompt": "2 * 3?", "teacher": "small", "response": "<think>hm</think>6"},
    {"prompt": "2 + 2?", "teacher": "small", "response": "5"},
    {"prompt": "2 * 3?", "teacher": "big", "response": "not asked of big"},
    {"prompt": "not asked", "teacher": "small", "response": "1"},
    {"prompt": "2 + 2?", "teacher": "small", "response": " "},
    {"prompt": "2 + 2?", "teacher": "unknown", "response": "3"},
    {"prompt": None, "teacher": "small", "response": "3"},
]


def save(path: Path, rows: list[Any]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_rows_that_do_not_fit_are_left_out_and_counted_where_that_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = ["2 + 2?,small,4", "2 + 2?,small,about 3, or 4", "2 * 3?,small,6", "2 + 2?,big,four"]
    path.write_text("\n".join(["prompt,teacher,response", *rows]) + "\n")
    skipped: list[int] = []
    settings = ImportSettings(path=str(path), ragged_rows="skip")
    found = read_responses(settings, (SMALL, BIG), CELLS, lambda: skipped.append(1))
    assert texts(found)["sum", "small"] == ["4"] and len(skipped) == 1
    with pytest.raises(InputError, match=r"row 2 \(line 3\) has 4 cells"):
        read_responses(settings.model_copy(update={"ragged_rows": "refuse"}), (SMALL, BIG), CELLS)


def read_responses(
    settings: ImportSettings, teachers: Any, cells: dict[str, list[Any]], skipped: Any = lambda: None
) -> dict[tuple[str, str], list[Imported]]:
    """The responses of each cell that the table has."""
    rows = list({row["prompt_id"]: row for asked in cells.values() for row in asked}.values())
    numbers = {name: np.array([rows.index(row) for row in asked], dtype=int) for name, asked in cells.items()}
    prompts = Dataset.from_dict({key: [row[key] for row in rows] for key in ("prompt_id", "messages")})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kept.arrow"
        found = read_into_a_file(settings, teachers, prompts, NameIndex.of(prompts), numbers, path, skipped)
        return {
            (prompt["prompt_id"], name): [one for one in given if one is not None]
            for name, asked in cells.items()
            for prompt, given in zip(asked, found.of(name, numbers[name]), strict=True)
            if given
        }


def samples_of(found: dict[tuple[str, str], list[Imported]], teacher: str, prompts: list[Any]) -> list[Sample]:
    keys = [(each["prompt_id"], teacher) for each in prompts]
    return to_samples([found[key] or [None] if key in found else [] for key in keys], prompts)


def read(path: Path, cells: Any = CELLS, teachers: Any = (SMALL, BIG), **columns: Any) -> dict[tuple[str, str], Any]:
    settings = ImportSettings(path=str(path), columns=Columns(**columns))
    return read_responses(settings, teachers, cells)


def texts(found: dict[tuple[str, str], list[Imported]]) -> dict[tuple[str, str], list[str]]:
    names = {SUM["prompt_id"]: "sum", PRODUCT["prompt_id"]: "product"}
    return {(names[name], teacher): [each.response for each in cell] for (name, teacher), cell in found.items()}


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "csv"])
def test_long_form(tmp_path: Path, ending: str) -> None:
    """Only cells that are asked for; a teacher goes by its name or its model; more rows of a cell are samples."""
    found = read(save(tmp_path / f"t.{ending}", LONG))
    assert texts(found) == {
        ("sum", "small"): ["4", "5"],
        ("sum", "big"): ["four"],
        ("product", "small"): ["<think>hm</think>6"],
    }


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "csv"])
def test_wide_form(tmp_path: Path, ending: str) -> None:
    """A column per teacher, named in the recipe, or named like the teacher's model or the teacher."""
    rows = [
        {"instruction": "2 + 2?", "col_a": "4", "org/big-9b": "four", "big": "named first", "rest": "x"},
        {"instruction": "2 * 3?", "col_a": "6", "org/big-9b": "six", "big": "", "rest": "x"},
        {"instruction": "2 + 2?", "col_a": "5", "org/big-9b": None, "big": None, "rest": "x"},
    ]
    path = save(tmp_path / f"t.{ending}", rows)
    found = read(path, prompt="instruction", responses={"small": "col_a", "big": None, "unasked": "no such"})
    expected = {("sum", "small"): ["4", "5"], ("sum", "big"): ["named first"], ("product", "small"): ["6"]}
    assert texts(found) == expected
    for row in rows:
        del row["big"]
    save(path, rows)
    found = read(path, prompt="instruction", responses={"small": "col_a", "big": None})
    assert texts(found) == expected | {("sum", "big"): ["four"]}


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
@pytest.mark.parametrize(
    ("role", "content", "names"), [("role", "content", "user assistant"), ("from", "value", "human gpt")]
)
def test_cells_with_samples_or_conversations(tmp_path: Path, ending: str, role: str, content: str, names: str) -> None:
    user, assistant = names.split()
    turns = [{role: user, content: "2 + 2?"}, {role: assistant, content: "first"}]
    longer = [*turns, {role: user, content: "sure?"}, {role: assistant, content: "last"}]
    rows = [
        {"prompt": [{role: user, content: "2 + 2? "}], "small": turns, "big": ["four", "", None, "IV"]},
        {"prompt": [{role: user, content: "2 * 3?"}], "small": longer, "big": []},
        {"prompt": [{role: user, content: "2 * 3?"}], "small": turns[:1], "big": None},
    ]
    found = read(save(tmp_path / f"t.{ending}", rows), responses={"small": None, "big": None})
    assert texts(found) == {
        ("sum", "small"): ["first"],
        ("sum", "big"): ["four", "IV"],
        ("product", "small"): ["last"],
    }


def test_a_row_may_lack_a_column(tmp_path: Path) -> None:
    rows = [{"prompt": "2 + 2?", "small": "4", "big": "four"}, {"prompt": "2 * 3?", "small": "6"}]
    found = read(
        save(tmp_path / "t.jsonl", rows),
        {"small": [SUM, PRODUCT], "big": [SUM, PRODUCT]},
        responses={"small": None, "big": None},
    )
    assert texts(found) == {("sum", "small"): ["4"], ("sum", "big"): ["four"], ("product", "small"): ["6"]}


def test_a_dataset_is_read_as_it_is_downloaded(tmp_path: Path) -> None:
    """A folder of the disk goes through the same reader as a repository of the Hub."""
    (tmp_path / "data").mkdir()
    save(tmp_path / "data" / "validation.parquet", LONG)
    settings = ImportSettings(dataset=str(tmp_path / "data"), source_split="validation")
    assert texts(read_responses(settings, (SMALL, BIG), CELLS))["sum", "small"] == ["4", "5"]
    with pytest.raises(InputError) as caught:
        read_responses(settings.model_copy(update={"source_split": "test"}), (SMALL, BIG), CELLS)
    assert str(caught.value) == (
        f"the dataset {tmp_path / 'data'} cannot be read: Bad split: test. Available splits: ['validation']; "
        "check `generate.dataset`, `config`, `revision` and `source_split`"
    )
    columns = ImportSettings(
        dataset=str(tmp_path / "data"), source_split="validation", columns=Columns(prompt="promt")
    )
    with pytest.raises(InputError) as caught:
        read_responses(columns, (SMALL, BIG), CELLS)
    assert str(caught.value) == (
        f"{tmp_path / 'data'} has no column `promt` for `columns.prompt`, did you mean `prompt`? "
        "(known: prompt, teacher, response); write `generate: {columns: {prompt: prompt}}`"
    )


def test_nothing_is_read_where_nothing_is_asked(tmp_path: Path) -> None:
    assert read(tmp_path / "no such.csv", {"small": [], "big": []}) == {}


def test_a_row_without_a_teacher_is_nobodys(tmp_path: Path) -> None:
    rows = [{"prompt": "2 + 2?", "teacher": teacher, "response": str(teacher)} for teacher in (None, "None", "small")]
    found = read(save(tmp_path / "t.jsonl", rows), {"small": [SUM]}, (Teacher(name="small"),))
    assert texts(found) == {("sum", "small"): ["small"]}


def test_a_model_of_two_teachers_names_neither(tmp_path: Path) -> None:
    twin = Teacher(name="twin", model="org/small-1b")
    rows = [*LONG, {"prompt": "2 + 2?", "teacher": "org/small-1b", "response": "whose?"}]
    rows += [{"prompt": "2 + 2?", "teacher": "twin", "response": "mine"}]
    found = read(save(tmp_path / "t.jsonl", rows), CELLS | {"twin": [SUM]}, (SMALL, BIG, twin))
    assert (texts(found)["sum", "small"], texts(found)["sum", "twin"]) == (["4", "5"], ["mine"])


def test_samples_of_what_was_imported(tmp_path: Path) -> None:
    rows = [row | {"grade": number / 2, "right": number % 2 == 0} for number, row in enumerate(LONG)]
    found = read(save(tmp_path / "t.csv", rows), quality="grade", is_correct="right")
    figures = [
        (sample.index, sample.response, sample.reasoning, sample.quality, sample.is_correct, sample.entry.error)
        for sample in samples_of(found, "small", [SUM, PRODUCT, OTHER])
    ]
    assert figures == [
        (0, "4", None, 0.0, True, None),
        (1, "5", None, 1.5, False, None),
        (0, "6", "hm", 1.0, True, None),
        (0, "", None, None, None, "no imported response"),
    ]


def test_an_empty_response_is_told_from_one_that_is_not_there(tmp_path: Path) -> None:
    rows = [
        {"prompt": "2 + 2?", "teacher": "small", "response": " "},
        {"prompt": "2 * 3?", "teacher": "small", "response": "6"},
        {"prompt": "not asked", "teacher": "small", "response": float("nan")},  # as pandas writes a null
    ]
    asked = [SUM, PRODUCT, OTHER]
    found = read(save(tmp_path / "t.jsonl", rows), {"small": asked}, (SMALL,))
    errors = [sample.entry.error for sample in samples_of(found, "small", asked)]
    assert errors == ["the imported response is empty", None, "no imported response"]


def test_messages_of_several_choices_are_samples(tmp_path: Path) -> None:
    """The messages of n choices stand one after the other, with the prompt before them or without."""
    choices = [{"role": "assistant", "content": text} for text in ("4", "5", "6")]
    asked = {"role": "user", "content": "2 + 2?"}
    rows = [{"prompt": "2 + 2?", "small": choices, "big": [asked, choices[0], asked, *choices[1:]]}]
    found = read(save(tmp_path / "t.jsonl", rows), responses={"small": None, "big": None})
    assert texts(found) == {("sum", "small"): ["4", "5", "6"], ("sum", "big"): ["5", "6"]}


def test_a_prompt_of_several_columns_is_the_same_as_in_the_prompts(tmp_path: Path) -> None:
    asked = [prompt("Add one.\n\n1"), prompt("Add one.\n\n2"), prompt("Add one.")]
    rows = [{"instruction": "Add one.", "input": value, "small": str(value)} for value in ("1", "2\r\n", "", None)]
    path = save(tmp_path / "t.jsonl", rows)
    found = read(path, {"small": asked}, (SMALL,), prompt=["instruction", "input"], responses={"small": None})
    responses = [[each.response for each in found[each_prompt["prompt_id"], "small"]] for each_prompt in asked]
    assert responses == [["1"], ["2\r\n"], ["None"]]
    with pytest.raises(InputError, match="no column `inputs` for `columns.prompt`, did you mean `input`"):
        read(path, {"small": asked}, (SMALL,), prompt=["instruction", "inputs"], responses={"small": None})


ROW = {"prompt": "2 + 2?", "teacher": "small", "response": "4", "grade": "1", "right": "true"}
COLUMNS = "(known: prompt, teacher, response, grade, right)"
TURNS = "a list of {role, content}"
STRUCT = (
    "is a struct without the field `{}` {}, where its text must be; if each teacher has a column, name that field in "
    "`columns.response`"
)
NUMBER, VERDICT = "must be a number from -1e12 to 1e12 or empty", "must be true, false or empty"
UNKNOWN_PROMPTS = "none has one of the 2 prompts that are asked for; the texts must be the same, found in"
NO_RESPONSE = "have a prompt that is asked for, but none has a response of the teacher `small` to one of its 2 prompts"
NAME = "its column `teacher` must hold the teacher's name or its model"


@pytest.mark.parametrize(
    ("rows", "columns", "said"),
    [
        (
            [ROW],
            {"response": "respone"},
            f" has no column `respone` for `columns.response`, did you mean `response`? {COLUMNS}; write "
            "`generate: {columns: {response: response}}`",
        ),
        ([ROW], {"quality": "x"}, f" has no column `x` for `columns.quality` {COLUMNS}"),
        (
            [{"prompt": "a", "smal": "b"}],
            {"responses": {"small": None}},
            " has no column `small` for `columns.responses.small`, did you mean `smal`? (known: prompt, smal)",
        ),
        ([["a"]], {}, " cannot be read as .jsonl: line 1 is list, not an object"),
        ([ROW | {"prompt": 7}], {}, f", row 1: `prompt` must be text or {TURNS}, found 7"),
        (
            [ROW | {"prompt": [{"role": "user"}]}],
            {},
            f", row 1: `prompt` must be text or {TURNS}, found [{{'role': 'user'}}]",
        ),
        (
            [ROW, ROW | {"response": 4}],
            {},
            f", row 2: `response` must be text, a struct with a text, {TURNS}, or a list of these, found 4",
        ),
        (
            [ROW | {"response": ["4", {"a": 1}]}],
            {},
            f", row 1: `response` {STRUCT.format('content', '(known: a)')}",
        ),
        ([ROW | {"grade": "good"}], {"quality": "grade"}, f", row 1: `response`: `grade` {NUMBER}, found 'good'"),
        ([ROW | {"grade": "inf"}], {"quality": "grade"}, f", row 1: `response`: `grade` {NUMBER}, found 'inf'"),
        ([ROW | {"grade": -1e308}], {"quality": "grade"}, f", row 1: `response`: `grade` {NUMBER}, found -1e+308"),
        ([ROW | {"right": "yes"}], {"is_correct": "right"}, f", row 1: `response`: `right` {VERDICT}, found 'yes'"),
        (
            [ROW | {"prompt": "x" * 99}] * 3,
            {},
            f": of 3 rows {UNKNOWN_PROMPTS} `prompt` '{'x' * 76}..., needed for example '2 + 2?'",
        ),
        ([], {}, " is empty: it holds no rows; `generate` needs at least one"),
        (
            [ROW | {"teacher": "smal"}] * 2,
            {},
            f": of 2 rows 2 {NO_RESPONSE}; {NAME}, did you mean `smal`? (known: smal)",
        ),
        ([ROW | {"response": ""}] * 2, {}, f": of 2 rows 2 {NO_RESPONSE}; {NAME}"),
        (
            [{"prompt": "2 + 2?", "a": ""}],
            {"responses": {"small": "a"}},
            f": of 1 rows 1 {NO_RESPONSE}; all of them are empty in its column `a`; name another one",
        ),
    ],
)
def test_a_table_that_does_not_fit(tmp_path: Path, rows: list[Any], columns: dict[str, Any], said: str) -> None:
    path = save(tmp_path / "t.jsonl", rows)
    with pytest.raises(InputError) as caught:
        read(path, {"small": [SUM, PRODUCT]}, (SMALL,), **columns)
    assert str(caught.value) == f"{path}{said}"


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_an_unknown_column_in_a_file_with_a_header(tmp_path: Path, ending: str) -> None:
    path = save(tmp_path / f"t.{ending}", [ROW])
    with pytest.raises(InputError) as caught:
        read(path, response="respone")
    said = (
        f"{path} has no column `respone` for `columns.response`, did you mean `response`? {COLUMNS}; write "
        "`generate: {columns: {response: response}}`"
    )
    assert str(caught.value) == said


def test_a_teacher_without_a_column(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read(save(tmp_path / "t.jsonl", [ROW]), responses={"big": None})
    assert str(caught.value) == (
        "`generate.columns.responses` names no column for the teacher `small`; add `small: COLUMN`"
    )


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    def said(name: str, content: bytes | None = None) -> str:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError) as caught:
            read(tmp_path / name)
        return str(caught.value).replace(f"{tmp_path}/", "")

    assert (
        said("t.txt")
        == "t.txt: `generate.path` must end in .parquet, .jsonl, .ndjson, .json, .csv, .tsv, found `.txt`; "
        "text may be compressed (.csv.gz)"
    )
    assert said("t.csv") == "t.csv does not exist or is no file; `generate.path` must name a file"
    assert said("b.parquet", b"no parquet").startswith("b.parquet cannot be read as .parquet: Parquet magic bytes not")
    assert said("b.jsonl", b'{"prompt": 1}\n{]') == (
        "b.jsonl cannot be read as .jsonl: line 2: Expecting property name enclosed in double quotes: "
        "line 1 column 2 (char 1)"
    )
    assert said("e.csv", b"") == "e.csv is empty: it holds no rows; `generate` needs at least one"


def test_columns_of_both_forms_are_refused() -> None:
    for given, said in (
        (
            {"columns": {"responses": {"a": None}, "teacher": "t"}},
            "generate.columns: `responses` gives each teacher a column of its own, so `teacher` has no meaning; "
            "keep one of them",
        ),
        ({"configs": {"a": None}}, "generate: `configs` are those of a `dataset`, and there is none; name it"),
        *(
            (
                {"dataset": "x", "configs": {"a": None}, **more},
                f"generate: `configs` gives each teacher a config of its own, so `{name}` has no meaning; "
                "keep one of them",
            )
            for name, more in (
                ("config", {"config": "a"}),
                ("columns.teacher", {"columns": {"teacher": "t"}}),
                ("columns.responses", {"columns": {"responses": {"a": None}}}),
            )
        ),
    ):
        with pytest.raises(RecipeError) as caught:
            read_section(ImportSettings, given, "generate")
        assert str(caught.value) == said


def test_magpie_zoo_as_it_is_published(tmp_path: Path) -> None:
    """Columns like the models' names, in each a struct of the text and what three reward models say of it."""
    rows = [
        {
            "uuid": "a",
            "instruction": "2 + 2?",
            "small-1b": {"content": "4", "ArmoRM": 0.5, "Skywork": 3.0},
            "big-9b": {"content": "four", "ArmoRM": None, "Skywork": -1.0},
        },
        {
            "uuid": "b",
            "instruction": "2 * 3?",
            "small-1b": {"content": "6", "ArmoRM": 0.25, "Skywork": 1},
            "big-9b": None,
        },
    ]
    path = save(tmp_path / "t.parquet", rows)
    columns = {"prompt": "instruction", "responses": {"small": None, "big": None}}
    found = read(path, quality="ArmoRM", **columns)
    assert texts(found) == {("sum", "small"): ["4"], ("sum", "big"): ["four"], ("product", "small"): ["6"]}
    assert [cell[0].quality for cell in found.values()] == [0.5, 0.25, None]
    assert {cell[0].quality for cell in read(path, **columns).values()} == {None}
    for more, said in (
        ({"quality": "Armo"}, "`Armo`, did you mean `ArmoRM`? (known: content, ArmoRM, Skywork)"),
        ({"response": "text"}, "`text` (known: content, ArmoRM, Skywork), where its text must be"),
    ):
        with pytest.raises(InputError) as caught:
            read(path, **columns, **more)
        assert str(caught.value).startswith(f"{path}, row 1: `small-1b` ")
        assert said in str(caught.value)


def test_a_judgement_beside_plain_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read(save(tmp_path / "t.csv", [{"prompt": "2 + 2?", "small": "4"}]), {"small": [SUM]}, (SMALL,),
             responses={"small": None}, is_correct="right")  # fmt: skip
    said = "row 1: `small` has no field `right` beside its text; name the one that its structs have"
    assert str(caught.value) == f"{tmp_path / 't.csv'}, {said}"


def test_samples_with_a_judgement_each(tmp_path: Path) -> None:
    """Lists of samples, of structs, of conversations: whatever holds the text, its judgement goes with it."""
    turns = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "IV"}]
    rows = [
        {
            "prompt": "2 + 2?",
            "teacher": "small",
            "response": ["4", "", "5"],
            "grade": [1, 2, 3],
            "right": [True, None, False],
        },
        {"prompt": "2 + 2?", "teacher": "small-1b", "response": [[turns[1]], turns], "grade": 7.0, "right": None},
        {"prompt": "2 * 3?", "teacher": "small", "response": [{"content": ["6", "six"], "grade": [1, 0]}], "grade": 9},
    ]
    found = read(
        save(tmp_path / "t.jsonl", rows), {"small": [SUM, PRODUCT]}, (SMALL,), quality="grade", is_correct="right"
    )
    figures = {key: [(each.response, each.quality, each.is_correct) for each in cell] for key, cell in found.items()}
    assert figures[SUM["prompt_id"], "small"] == [("4", 1, True), ("5", 3, False), ("IV", 7, None), ("IV", 7, None)]
    assert figures[PRODUCT["prompt_id"], "small"] == [("6", 1, None), ("six", 0, None)]
    rows[0]["grade"] = [1]
    with pytest.raises(InputError) as caught:
        read(save(tmp_path / "t.jsonl", rows), {"small": [SUM]}, (SMALL,), quality="grade")
    assert str(caught.value) == (
        f"{tmp_path / 't.jsonl'}, row 1: `response` holds 3 samples and 1 judgements of them; needed is one for each"
    )


def test_prompt_and_response_in_one_conversation(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "2 + 2? "}, {"from": "gpt", "value": "4"}]
    rows = [{"conversations": turns, "teacher": "small"}]
    found = read(
        save(tmp_path / "t.jsonl", rows), {"small": [SUM]}, (SMALL,), prompt="conversations", response="conversations"
    )
    assert texts(found) == {("sum", "small"): ["4"]}


def per_config(folder: Path, names: list[str]) -> ImportSettings:
    """A dataset as PerSyn-Math is: the same prompts under every config, one config per teacher."""
    lines = ["---", "configs:"]
    for name in names:
        (folder / name).mkdir(parents=True)
        rows = [
            {"problem": row["messages"][0]["content"], "samples": [f"{name} 1", f"{name} 2"]} for row in (SUM, PRODUCT)
        ]
        save(folder / name / "train.parquet", rows)
        lines += [f"- config_name: {name}", f"  data_files: {name}/train.parquet"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))
    columns = Columns(prompt="problem", response="samples")
    return ImportSettings(dataset=str(folder), configs={"small": "one", "big": None}, columns=columns)


def test_one_config_per_teacher(tmp_path: Path) -> None:
    settings = per_config(tmp_path / "math", ["one", "big-9b"])
    assert texts(read_responses(settings, (SMALL, BIG), CELLS)) == {
        ("sum", "small"): ["one 1", "one 2"],
        ("product", "small"): ["one 1", "one 2"],
        ("sum", "big"): ["big-9b 1", "big-9b 2"],
    }
    where = f"{tmp_path / 'math'}"
    for change, said in (
        (
            {"configs": {"small": "on", "big": None}},
            f"{where} has no config `on` for `configs.small`, did you mean `one`?",
        ),
        (
            {"configs": {"big": None}},
            "`generate.configs` names no config for the teacher `small`; add `small: CONFIG`",
        ),
        (
            {"columns": Columns(prompt="problem")},
            f"{where}, config one has no column `response` for `columns.response`",
        ),
        (
            {"source_split": "test"},
            f"the dataset {where} cannot be read: Bad split: test. Available splits: ['train']",
        ),
    ):
        with pytest.raises(InputError) as caught:
            read_responses(settings.model_copy(update=change), (SMALL, BIG), CELLS)
        assert str(caught.value).startswith(said)


PEAK = """
import re, sys
from pathlib import Path
from test_imported import read

import pyarrow.parquet
print(len(read(Path(sys.argv[1]))), re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.heavy
@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_memory_does_not_grow_with_the_table(tmp_path: Path, ending: str) -> None:
    """30 MB and 120 MB of responses to other prompts: both take what a few row groups take."""
    peaks = []
    for name, size in (("small", 4000), ("large", 16_000)):
        rows = LONG + [{"prompt": f"{row}", "teacher": "small", "response": f"{row:08}" * 1000} for row in range(size)]
        path = tmp_path / f"{name}.{ending}"
        if ending == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=500, compression="none")
        else:
            save(path, rows)
        command = [sys.executable, "-c", PEAK, str(path)]
        said = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True).stdout
        cells, peak = said.split()
        assert cells == "3"
        peaks.append(int(peak) / 1024)
    assert peaks[1] - peaks[0] < 60  # MB, of 90 MB more in the file


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"response": "reponse"}, "no column `reponse` for `columns.response`, did you mean `response`?"),
        ({"prompt": "frage"}, "no column `frage` for `columns.prompt`"),
        ({"responses": {"small": "teacher", "big": "of_big"}}, "no column `of_big` for `columns.responses.big`"),
        ({"responses": {"small": "teacher"}}, "names no column for the teacher `big`"),
    ],
)
def test_columns_are_looked_for_before_the_import_as_in_it(
    ending: str, columns: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = str(save(tmp_path / f"t.{ending}", LONG))
    settings = read_section(ImportSettings, {"path": path, "columns": columns}, "generate")
    found = []
    for call in (lambda: check_columns(settings, [SMALL, BIG]), lambda: read_responses(settings, [SMALL, BIG], CELLS)):
        with pytest.raises(InputError) as error:
            call()
        found.append(str(error.value))
    assert said in found[0] and found[0] == found[1]
    check_columns(read_section(ImportSettings, {"path": path}, "generate"), [SMALL, BIG])


def test_a_table_without_teachers_is_told_of_the_other_form(tmp_path: Path) -> None:
    rows = [{"prompt": "2 + 2?", "small": "4", "big": "four"}, {"prompt": "2 * 3?", "small": "6", "big": None}]
    path = str(save(tmp_path / "t.csv", rows))
    with pytest.raises(InputError) as error:
        read_responses(ImportSettings(path=path), [SMALL, BIG], CELLS)
    assert str(error.value).endswith(
        "for `columns.teacher` (known: prompt, small, big); where each teacher has a column of its own, write "
        "`columns: {responses: {TEACHER: COLUMN}}`"
    )
    wide = read_section(ImportSettings, {"path": path, "columns": {"responses": {"small": None, "big": "big"}}}, "x")
    assert {key[1] for key in read_responses(wide, [SMALL, BIG], CELLS)} == {"small", "big"}
