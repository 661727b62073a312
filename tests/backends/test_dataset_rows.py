import random

import numpy as np
import pytest
from datasets import Dataset

from persyn_hf.backends import dataset_rows
from persyn_hf.backends.dataset_rows import Grouped, NameIndex, Rows, Texts


@pytest.fixture
def table() -> Dataset:
    """30,000 rows: further apart than what is read as one stretch."""
    return Dataset.from_dict({"prompt_id": [f"p{number}" for number in range(30_000)], "size": range(30_000)})


@pytest.mark.parametrize(
    "numbers", [[], [3], [5, 6, 7], [7, 5, 6], [0, 29_999, 4], [9, 9, 1], list(range(0, 5000, 3))]
)
def test_rows_come_in_the_order_of_their_numbers(table: Dataset, numbers: list[int]) -> None:
    for dataset in (table, table.select(range(len(table)))):
        rows = Rows(dataset, ["size"]).at(np.array(numbers, dtype=int))
        assert rows == [{"size": number} for number in numbers]
    assert [row["size"] for row in Rows(table.select(range(2500)))] == list(range(2500))


def test_names_are_found_where_they_first_stand() -> None:
    index = NameIndex([["b", "a"], ["c", "a", ""]])
    assert index.rows(["a", "b", "c", "", "d"]).tolist() == [1, 0, 2, 4, -1]
    assert index.rows([]).tolist() == [] and len(index) == 5
    assert NameIndex([]).rows(["a"]).tolist() == [-1]


def test_rows_by_prompt_are_those_of_a_plain_dictionary(table: Dataset) -> None:
    draw = random.Random(0)
    prompts = table.select(range(50))
    names = [f"p{draw.randrange(60)}" for _ in range(300)]  # p50 to p59 are no prompts
    about = Dataset.from_dict({"prompt_id": names, "place": range(300)})
    grouped = Grouped.by_prompt(about, NameIndex.of(prompts), ["place"])
    plain = {number: [place for place, name in enumerate(names) if name == f"p{number}"] for number in range(50)}
    asked = [4, 7, 8, 30, 49]
    assert [[row["place"] for row in rows] for rows in grouped.of(np.array(asked))] == [plain[one] for one in asked]
    assert grouped.sizes(np.array(asked)).tolist() == [len(plain[one]) for one in asked]
    assert grouped.groups.tolist() == [number for number in range(50) if plain[number]]
    assert grouped.strangers.tolist() == [place for place, name in enumerate(names) if int(name[1:]) >= 50]


def test_texts_are_a_sequence(table: Dataset) -> None:
    texts = Texts(Rows(table), np.array([8, 2, 5]), lambda row: f"<{row['prompt_id']}>")
    assert (list(texts), texts[1], texts[::2], len(texts)) == (["<p8>", "<p2>", "<p5>"], "<p2>", ["<p8>", "<p5>"], 3)
    assert dataset_rows.AT_A_TIME == 1000
