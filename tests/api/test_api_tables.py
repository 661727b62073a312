"""Tables of every form are read alike, and what is no table is refused in one sentence."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st

import persyn_hf
from persyn_hf.api.tables import columns_of, prompt_table
from persyn_hf.errors import InputError
from persyn_hf.schemas import prompt_id


ROWS = [
    {"prompt": "one", "teacher": "a", "quality": 1.0, "learnability": -0.4},
    {"prompt": "one", "teacher": "b", "quality": 0.0, "learnability": -0.9},
    {"prompt": "two", "teacher": "a", "quality": None, "learnability": -0.5},
]
COLUMNS = {name: [row[name] for row in ROWS] for name in ROWS[0]}
FORMS = {
    "list of dicts": ROWS,
    "tuple of dicts": tuple(ROWS),
    "dict of lists": COLUMNS,
    "dict of arrays": COLUMNS | {"quality": np.array([1.0, 0.0, np.nan]), "teacher": np.array(COLUMNS["teacher"])},
    "frame": pd.DataFrame(ROWS),
    "frame of nullable types": pd.DataFrame(ROWS).convert_dtypes(),
    "dataset": Dataset.from_list(ROWS),
    "dataset as torch sees it": Dataset.from_list(ROWS).with_format("numpy"),
    "splits": DatasetDict(first=Dataset.from_list(ROWS[:2]), second=Dataset.from_list(ROWS[2:])),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_table_gives_the_same_rewards(form: str) -> None:
    assert persyn_hf.rewards(FORMS[form]).to_list() == persyn_hf.rewards(ROWS).to_list()


def test_a_key_that_some_rows_lack_is_missing_there() -> None:
    assert columns_of([{"a": 1, "b": 2}, {"a": 3}], "rows") == {"a": [1, 3], "b": [2, None]}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("rows.csv", "`rows` must be a list of dicts, a dict of columns, a pandas DataFrame or a datasets.Dataset, "),
        (None, "got NoneType"),
        ([{"teacher": "a"}, 7], "got a list that holds int 7"),
        ([], "`rows` holds no rows, at least one is needed"),
        ({"prompt": ["one"], "teacher": ["a", "b"]}, "found `prompt` 1, `teacher` 2; give one value per row"),
        (Dataset.from_list(ROWS).to_iterable_dataset(), "got IterableDataset"),
        ([{"teacher": "a", "quality": 1, "learnability": 0}], "has none of the columns `prompt`, `messages`"),
        ([{"prompt": "one", "quality": 1, "learnability": 0}], "`rows` has no column `teacher`, who has answered"),
        ([{"prompt": "one", "teacher": "a", "qualty": 1, "learnability": 0}], "did you mean `qualty`?"),
        ([ROWS[0] | {"quality": "yes"}], "`quality` of row 0 must be a number, true, false or missing, got 'yes'"),
        ([ROWS[0] | {"teacher": None}], "`teacher` of row 0 must be a text, got None"),
        ([ROWS[0] | {"prompt": 7.5}], "prompt number 0 must be a text"),
        ([ROWS[0] | {"split": "train"}], "`split` of row 0 must be calibration, dev, pool or missing, got 'train'"),
        ([ROWS[0], ROWS[0]], "the rewards hold 2 rows for prompt"),
    ],
)
def test_what_is_wrong_with_a_table_is_one_sentence(table: Any, said: str) -> None:
    with pytest.raises(InputError) as error:
        persyn_hf.rewards(table)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ("What is 1 + 1?", "got one text; put it into a list: [...]"),
        ([{"role": "user", "content": "hi"}], "got one conversation; put it into a list: [...]"),
        (["hi", 7], "prompt number 1 must be a text, or a list of turns {role, content} that ends with the user's"),
        (["hi", " "], "prompt number 1 must be a text, or a list of turns {role, content} that ends with the user's"),
        ([[{"role": "system", "content": "x"}]], "prompt number 0"),
    ],
)
def test_what_is_no_prompt_is_named_by_its_number(prompts: Any, said: str) -> None:
    with pytest.raises(InputError) as error:
        prompt_table(prompts)
    assert said in str(error.value)


@settings(max_examples=20)
@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="["), min_size=1).filter(str.strip),
        min_size=1,
        max_size=5,
    )
)
def test_a_text_and_its_conversation_are_one_prompt_in_every_form(texts: list[str]) -> None:
    turns = [[{"role": "user", "content": text}] for text in texts]
    forms: list[Any] = [
        texts,
        turns,
        {"prompt": texts},
        {"messages": turns},
        pd.DataFrame({"prompt": texts}),
        Dataset.from_dict({"messages": turns}),
        np.array(texts, dtype=object),
    ]
    ids = [prompt_table(form)["prompt_id"][:] for form in forms]
    assert all(each == ids[0] for each in ids)
    assert ids[0] == [prompt_id(messages) for messages in prompt_table(texts)["messages"]]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["prompt", "teacher", "x"]), inner),
    max_leaves=6,
)


@given(JSON)
def test_whatever_comes_as_a_table_is_read_or_refused(value: Any) -> None:
    for read in (lambda: columns_of(value, "rows"), lambda: prompt_table(value)):
        try:
            assert len(json.dumps(dict(read()[:]) if hasattr(read(), "features") else read())) >= 2
        except InputError as error:
            assert "\n" not in str(error)
