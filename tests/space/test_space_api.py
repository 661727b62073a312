"""The Space asked from a program, by Gradio's own client."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from space_browser import serve, stop
from space_samples import NUMBER, assignments, prompt_id

from persyn_hf.store.local import Store


gradio_client = pytest.importorskip("gradio_client")
WRONG = [7, 7.5, True, ["y"], [None], {"a": 1}, ""]


@pytest.fixture(scope="module")
def ask(heavy: None, store: Store) -> Iterator[Any]:
    """Calls a function of the API; "error: WORDS" where it refuses."""
    process, address = serve(store.root)
    client = gradio_client.Client(address, verbose=False)

    def call(name: str, *given: Any, **named: Any) -> Any:
        try:
            return client.predict(*given, api_name=f"/{name}", **named)
        except gradio_client.exceptions.AppError as error:
            return f"error: {error}"

    yield call
    client.close()
    stop(process)


def test_what_is_left_out_or_null_is_what_the_first_page_shows(ask: Any) -> None:
    wanted = Counter(row["teacher"] for row in assignments("persyn") if row["split"] == "pool")
    for given in ((), (None,), ("",), ("?",)):
        found = ask("allocation", *given)
        assert found["split"] == "pool" and found["prompts"] == dict(wanted)
    assert ask("prompts")["total"] == ask("prompts", None, None)["total"] == sum(wanted.values())


def test_an_address_of_a_page_is_a_filter(ask: Any) -> None:
    rows = [row for row in assignments("persyn") if row["teacher"] == "large"]
    found = ask("prompts", "http://host/?view=prompts&split=all&teacher=large&sort=margin&page=1")
    assert (found["total"], found["page"], found["pages"]) == (len(rows), 1, 1)
    assert {row["prompt_id"] for row in found["rows"]} == {row["prompt_id"] for row in rows}
    margins = [row["margin"] for row in found["rows"]]
    assert margins == sorted(margins)
    assert ask("prompts", "?split=all", 99)["page"] == 1, "a page beyond the last one is the last one"


def test_a_prompt_is_whole(ask: Any) -> None:
    found = ask("prompt", prompt_id(9), "?split=all")
    assert found["messages"] == [{"role": "user", "content": "Question 9?"}] and found["reference"] == "9"
    assert [one["teacher"] for one in found["candidates"] if one["chosen"]]
    assert all(one["answers"] for one in found["candidates"])


def test_a_new_prompt_is_routed(ask: Any) -> None:
    found = ask("route", "Question 3?", "?assignment=org/assignments-s-routed@v1")
    scores = [score for _, score in found["teachers"]]
    assert sorted(name for name, _ in found["teachers"]) == ["large", "small", "thinker"]
    assert scores == sorted(scores, reverse=True) and found["lead"] == pytest.approx(scores[0] - scores[1])
    said = ask("route", "Question 3?", "?assignment=org/assignments-s-strong@v1")
    assert said == (
        "error: the router cannot be tried: no router belongs to this assignment, or it is not here; look at the "
        "prompts that are stored"
    )
    assert "1 to 20,000 characters is needed, this one has 20,001" in ask(
        "route", "x" * 20_001, "?assignment=org/assignments-s-routed@v1"
    )


@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize(
    ("name", "before"),
    [("allocation", ()), ("prompts", ()), ("prompts", (None,)), ("prompt", ()), ("prompt", ("x",)), ("route", ())],
)
def test_a_wrong_type_is_one_sentence_or_a_default(ask: Any, name: str, before: tuple[Any, ...], value: Any) -> None:
    found = ask(name, *before, value)
    if isinstance(found, str):
        assert found.startswith("error: ") and len(found) < 400 and "Traceback" not in found
        assert "verbose error reporting" not in found, "Gradio's words for a fault that was not foreseen"
    else:
        assert (name, value) in [("allocation", ""), ("prompts", ""), ("prompts", 7)]


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("?teacher=nobody", "there is no teacher `nobody`; there is "),
        ("?techer=large", "no page has a field `'techer'`, did you mean `teacher`?"),
        ("?alpha=2", "alpha is given as `2`, and 0 to 1 is needed"),
        ("&".join(f"a{n}=" for n in range(300)), "more than 200 fields; leave some out"),
    ],
)
def test_a_filter_that_is_none_is_refused(ask: Any, address: str, words: str) -> None:
    for name in ("allocation", "prompts"):
        assert words in ask(name, address)
    assert ask("prompts", "?split=all")["total"] == NUMBER
