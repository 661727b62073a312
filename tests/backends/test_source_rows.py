"""Files as people have them: other separators, encodings and compressions, late columns, rows that do not fit."""

import codecs
import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from persyn_hf.backends.source_rows import HEAD, rows_of_file
from persyn_hf.errors import InputError


TABLE = 'question,answer\r\n"1, or 2?",é\r\n"two\r\nlines",2\r\n'
ROWS = [{"question": "1, or 2?", "answer": "é"}, {"question": "two\r\nlines", "answer": "2"}]


def read(path: Path, *columns: str) -> list[dict[str, Any]]:
    def choose(known: Any) -> Any:
        missing = [column for column in columns if column not in known]
        if missing:
            raise InputError(f"no column {missing} in {known}")
        return columns or known

    return list(rows_of_file(path, "prompts", choose))


def refused(path: Path, *columns: str) -> str:
    with pytest.raises(InputError) as error:
        read(path, *columns)
    assert "\n" not in str(error.value)
    return str(error.value)


def save(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("ending", ["csv", "csv.gz", "jsonl", "jsonl.gz", "ndjson", "json", "json.gz"])
def test_text_is_read_by_its_mark_and_its_compression(tmp_path: Path, encoding: str, ending: str) -> None:
    texts = {"csv": TABLE, "json": json.dumps(ROWS, ensure_ascii=False)}
    lines = "\r\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)
    data = texts.get(ending.removesuffix(".gz"), lines).encode(encoding)
    path = save(tmp_path / f"q.{ending}", gzip.compress(data) if ending.endswith(".gz") else data)
    assert read(path, "answer") == ROWS


def test_json_lines_under_the_name_of_json_are_read(tmp_path: Path) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    assert read(save(tmp_path / "q.json", lines)) == ROWS


@pytest.mark.parametrize(("separator", "name"), [(",", "q.csv"), (";", "q.csv"), ("\t", "q.csv"), ("\t", "q.tsv")])
def test_the_header_tells_what_separates_cells(tmp_path: Path, separator: str, name: str) -> None:
    written = io.StringIO()
    writer = csv.writer(written, delimiter=separator)
    writer.writerows([["question", " answer"], ["a, b; c\td", "1,5"]])
    path = save(tmp_path / name, written.getvalue())
    assert read(path, "question") == [{"question": "a, b; c\td", "answer": "1,5"}]


def test_a_header_of_one_name_has_no_separator(tmp_path: Path) -> None:
    assert read(save(tmp_path / "q.csv", "question\nWhat?\n\nWhy?\n")) == [{"question": "What?"}, {"question": "Why?"}]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("q,a\nx,1\nWhat is 1,000 plus 5?,1005\n", ["row 2 (line 3)", "3 cells", "header 2", "`,`", "quotes"]),
        ("q;a\nx\n", ["row 1 (line 2)", "1 cells", "`;`"]),
        ('q,a\n"two\nlines",1\nx\n', ["row 2 (line 4)"]),
        ('q,a\nx,1\n"never closed,1\nx,2\n', ["a quote that opens in row 2 (line 3) is never closed"]),
        ('"q,a\nx,1\n', ["a quote that opens in the header (line 1) is never closed"]),
        ('q,a\n"two\nlines",1\n"closed" too early,1\n', ["row 2 (line 4): ',' expected after", "double a quote"]),
        ("q,a,q\nx,1,y\n", ["two columns", "`q`"]),
    ],
)
def test_a_row_that_does_not_fit_its_header_is_refused_by_its_number(
    tmp_path: Path, text: str, words: list[str]
) -> None:
    said = refused(save(tmp_path / "q.csv", text))
    assert all(word in said for word in ["q.csv", *words]), said


@pytest.mark.parametrize("ending", ["csv", "tsv", "csv.gz"])
def test_rows_that_do_not_fit_are_left_out_and_counted_where_that_is_wanted(tmp_path: Path, ending: str) -> None:
    text = 'q,a\nx,1\n1,000,2\n\ny\n"z,z",3\n'
    data = text.replace(",", "\t").encode() if ending == "tsv" else text.encode()
    path = save(tmp_path / f"q.{ending}", gzip.compress(data) if ending.endswith("gz") else data)
    skipped: list[int] = []
    rows = list(rows_of_file(path, "prompts", lambda known: known, lambda: skipped.append(1)))
    last = "z\tz" if ending == "tsv" else "z,z"
    assert rows == [{"q": "x", "a": "1"}, {"q": last, "a": "3"}]
    assert len(skipped) == 2  # an empty line is no row
    assert "`ragged_rows: skip`" in refused(path)


@pytest.mark.parametrize("ending", ["jsonl", "json"])
def test_a_column_may_first_come_late(tmp_path: Path, ending: str) -> None:
    rows: list[dict[str, Any]] = [{"q": str(number)} for number in range(HEAD + 20)] + [{"q": "last", "a": "1"}]
    text = json.dumps(rows) if ending == "json" else "".join(json.dumps(row) + "\n" for row in rows)
    path = save(tmp_path / f"q.{ending}", text)
    assert read(path, "q", "a") == rows
    assert "['q', 'a']" in refused(path, "b")  # the columns that there are, the late one among them


@pytest.mark.parametrize("spell", [json.dumps, repr])
def test_messages_that_a_cell_of_a_csv_spells_are_messages(tmp_path: Path, spell: Any) -> None:
    messages = [{"role": "user", "content": "It's 1, 'or' \"2\"?"}]
    written = io.StringIO()
    csv.writer(written).writerows([["q", "a"], [spell(messages), "[1, 2]"]])
    assert read(save(tmp_path / "q.csv", written.getvalue())) == [{"q": messages, "a": "[1, 2]"}]


def test_what_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    deep = '{"q": ' + "[" * 50_000 + "]" * 50_000 + "}"
    assert "line 2 is nested too deeply" in refused(save(tmp_path / "q.jsonl", f'{{"q": 1}}\n{deep}\n'))
    assert "nested too deeply" in refused(save(tmp_path / "q.json", f"[{deep}]"))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "q.csv",
            "q\né\n".encode("latin-1"),
            ["cannot be read as .csv", "line 2 has the byte 0xe9", "save it as UTF-8"],
        ),
        ("q.csv", ("q\n" * 70_000 + "é").encode("latin-1"), ["line 70001 has the byte 0xe9, which is no UTF-8"]),
        ("q.jsonl.gz", gzip.compress("{}\n{}\né".encode("latin-1"), mtime=0), ["line 3 has the byte 0xe9"]),
        ("q.json", b"[\n{}]\xff", ["line 2 has the byte 0xff"]),
        ("q.csv", codecs.BOM_UTF16_LE + "q\na\n".encode("utf-16-le")[:-1], ["line 2", "no UTF-16"]),
        ("q.csv", "q\na\n".encode("utf-16-le"), ["line 1 holds zero bytes", "mark is missing", "save it as UTF-8"]),
        ("q.csv.gz", gzip.compress(b"q\n" * 9999, mtime=0)[:-9], ["q.csv.gz cannot be read as .csv"]),
        ("q.jsonl.gz", b'\x1f\x8b{"q": 1}', ["q.jsonl.gz cannot be read"]),
        ("q.jsonl", '{"q": ' + "9" * 5000 + "}", ["line 1", "4300"]),
        ("q.json", '{"q": 1,\n"a": 2}', ["one dict", "a list of rows"]),
        ("q.parquet.gz", b"", ["`.parquet.gz`", ".csv.gz"]),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_in_a_sentence(
    tmp_path: Path, name: str, content: bytes | str, words: list[str]
) -> None:
    said = refused(save(tmp_path / name, content))
    assert all(word in said for word in words), said


TEXTS = st.text(st.sampled_from('ab1,;\t"\\{}[]:\n\r é\ud83d\0'), max_size=40) | st.text(max_size=20)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=TEXTS | st.binary(max_size=40),
    ending=st.sampled_from(["csv", "tsv", "jsonl", "json", "csv.gz", "jsonl.gz"]),
    header=st.sampled_from(
        [b"", b"a,b\n", b"a;b\r\n", b'{"a": 1}\n', b"[", b"\xff\xfe", b"\xef\xbb\xbf", b"\x1f\x8b"]
    ),
)
def test_any_file_ends_in_rows_or_in_one_sentence(
    tmp_path: Path, text: str | bytes, ending: str, header: bytes
) -> None:
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    path = save(tmp_path / f"q.{ending}", header + data)
    try:
        rows = read(path)
    except InputError as error:
        assert "\n" not in str(error) and "q." in str(error)
    else:
        assert all(isinstance(row, dict) for row in rows)
        if "csv" in ending and rows:
            assert all(row.keys() == rows[0].keys() for row in rows)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cells=st.lists(
        st.tuples(*[st.text(st.characters(exclude_categories=["Cs"]), max_size=12) for _ in range(2)]), max_size=5
    ),
    separator=st.sampled_from(",;\t"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_a_table_comes_back_as_it_was_written(
    tmp_path: Path, cells: list[tuple[str, str]], separator: str, encoding: str
) -> None:
    written = io.StringIO(newline="")
    csv.writer(written, delimiter=separator, quoting=csv.QUOTE_ALL).writerows([("q", "a"), *cells])
    path = save(tmp_path / "q.csv", written.getvalue().encode(encoding))
    assert read(path) == [{"q": question, "a": answer} for question, answer in cells]
