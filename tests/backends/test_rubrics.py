"""Rubrics: those that come with persyn, a user's own, and what is wrong with one in a sentence."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persyn_hf.backends.judging.questions import Shown, make_questions, num_pairs
from persyn_hf.backends.judging.rubrics import Mode, Rubric, find_rubric, read_rubric
from persyn_hf.backends.judging.settings import JudgeSettings
from persyn_hf.backends.judging.structured import formats, is_refusal, response_format
from persyn_hf.errors import RecipeError
from persyn_hf.recipe.packaged import summaries


NAMES = {"helpfulness": (1, 10), "instruction-following": (1, 5), "correctness": (0, 1), "safety": (1, 5)}


@pytest.mark.parametrize("mode", ["pointwise", "pairwise"])
@pytest.mark.parametrize("name", NAMES)
def test_what_comes_with_persyn_is_whole(name: str, mode: Mode) -> None:
    rubric = read_rubric(find_rubric(name), mode, None)
    assert rubric.scale == NAMES[name]
    assert rubric.needs_reference is (name == "correctness")
    values = {"prompt": "P?", "answer": "one", "answer_a": "one", "answer_b": "two", "reference": "R!"}
    text = rubric.fill(**values)
    assert "{{" not in text
    assert ("R!" in text) is rubric.needs_reference
    assert "two" in text if mode == "pairwise" else "two" not in text
    assert str(rubric.scale[1]) in text


def test_they_are_listed() -> None:
    told = {name: text for name, _, text in summaries() if name.startswith("judges/")}
    assert {name.removeprefix("judges/") for name in told} == {*NAMES}


def write(folder: Path, text: str | bytes, name: str = "my.yaml") -> str:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_a_rubric_of_ones_own(tmp_path: Path) -> None:
    path = write(tmp_path, "scale: [1, 5]\ncriteria: Is it {short}? Not {{ reference }}.\n")
    rubric = read_rubric(path, "pointwise", None)
    assert rubric.scale == (1, 5)
    assert "Is it {short}? Not R." in rubric.fill(prompt="P", answer="A", reference="R")
    text = write(tmp_path, "{{prompt}}\n---\n{{answer}}", "my.txt")
    assert read_rubric(text, "pointwise", (0, 3)) == Rubric("{{prompt}}\n---\n{{answer}}", (0, 3))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("criteria: x", "does not say its scale; write `scale: [1, 10]`, the worst score and the best"),
        ("scale: [1, 10]", "has no `criteria`; write by what an answer is judged"),
        ("scale: [10, 1]\ncriteria: x", "`scale` must be two whole numbers"),
        ("scale: [1, 10.0]\ncriteria: x", "`scale` must be two whole numbers"),
        ("scale: [1, 1000]\ncriteria: x", "at most 100 apart"),
        ("scale: [-1, 1]\ncriteria: x", "`scale` must be two whole numbers"),
        ("scale: 10\ncriteria: x", "`scale` must be two whole numbers"),
        ("scale: [1, 10]\ncriterion: x", "unknown key `criterion`, did you mean `criteria`?"),
        ("scale: [1, 10]\ncriteria: ''", "`criteria` must be text that is not empty"),
        ("scale: [1, 10]\ncriteria: [x]", "`criteria` must be text that is not empty"),
        ("scale: [1, 10]\ncriteria: x {{answr}}", "placeholder {{answr}}"),
        ("scale: [1, 10]\npointwise: '{{prompt}}'", "lacks the placeholder {{answer}}"),
        ("scale: [1, 10]\npointwise: '{{prompt}} {{anwser}}'", "{{anwser}}, did you mean `answer`?"),
        ("scale: [1, 10]\npointwise: '{{prompt}} {{answer}} {{criteria}}'", "has no `criteria`"),
        ("- x", "must hold `scale` and `criteria`, found list"),
        ("scale: [1, 10", "my.yaml"),
        (b"\xff\xfe\x00", "is no text in UTF-8"),
        ("x" * 70_000, "has 70,000 characters, at most 65,536 are read"),
    ],
)
def test_a_bad_rubric_is_refused_in_a_sentence(tmp_path: Path, text: str | bytes, fault: str) -> None:
    with pytest.raises(RecipeError) as told:
        read_rubric(write(tmp_path, text), "pointwise", None)
    assert fault in str(told.value)
    assert "\n" not in str(told.value)


def test_scales_do_not_contradict_each_other(tmp_path: Path) -> None:
    path = write(tmp_path, "scale: [1, 5]\ncriteria: x")
    with pytest.raises(RecipeError, match=r"has the scale \[1, 5\], and `score.judge.scale` is \[1, 10\]"):
        read_rubric(path, "pointwise", (1, 10))
    assert read_rubric(path, "pointwise", (1, 5)).scale == (1, 5)
    text = write(tmp_path, "{{prompt}} {{answer}}", "my.md")
    with pytest.raises(RecipeError, match="is plain text, which states no scale"):
        read_rubric(text, "pointwise", None)
    with pytest.raises(RecipeError, match=r"has the placeholder \{\{answer\}\}"):
        read_rubric(text, "pairwise", (1, 10))
    with pytest.raises(RecipeError, match="cannot be read"):
        read_rubric(str(tmp_path / "none.yaml"), "pointwise", None)


@given(st.text(), st.text())
def test_what_stands_in_an_answer_is_never_filled_in(prompt: str, answer: str) -> None:
    """Braces in a text that is judged are no placeholders; the text comes through as it is."""
    rubric = Rubric("<{{prompt}}|{{answer}}>", (1, 10))
    tricky = answer + "{{reference}}{{prompt}}"
    assert rubric.fill(prompt=prompt, answer=tricky, reference="SECRET") == f"<{prompt}|{tricky}>"


def shown(prompt_id: str, *texts: str, reference: str | None = None) -> list[Shown]:
    prompt = {"prompt_id": prompt_id, "messages": [{"role": "user", "content": "P?"}], "reference": reference}
    return [Shown(prompt=prompt, text=text) for text in texts]


def settings(**values: Any) -> JudgeSettings:
    return JudgeSettings.model_validate({"model": "m", "server": {"urls": ["http://h"]}, **values})


def test_pairs_are_asked_about_in_both_orders_and_equal_texts_are_not() -> None:
    rubric = read_rubric(find_rubric("helpfulness"), "pairwise", None)
    answers = [*shown("p", "x", "y", "x"), *shown("q", "z")]
    found = make_questions(settings(mode="pairwise"), rubric, answers)
    assert [question.places for question in found] == [(0, 1), (1, 0), (1, 2), (2, 1)]
    assert '"winner": W' in found[0].text
    assert "<answer_a>\nx\n</answer_a>\n\n<answer_b>\ny\n" in found[0].text
    assert "<answer_a>\ny\n</answer_a>\n\n<answer_b>\nx\n" in found[1].text


@given(st.integers(1, 12), st.one_of(st.none(), st.integers(2, 13)))
def test_each_answer_meets_as_many_others_as_are_asked_for(number: int, opponents: int | None) -> None:
    rubric = read_rubric(find_rubric("helpfulness"), "pairwise", None)
    answers = shown("p", *(f"answer {place}" for place in range(number)))
    found = make_questions(settings(mode="pairwise", opponents=opponents), rubric, answers)
    orders = [question.places for question in found]
    assert len(set(orders)) == len(orders) == 2 * num_pairs(number, opponents)
    assert orders[1::2] == [order[::-1] for order in orders[0::2]]
    met = [sum(place in order for order in orders[0::2]) for place in range(number)]
    wanted = number - 1 if opponents is None else min(number - 1, opponents + opponents % 2)
    assert met == [wanted] * number


def test_a_further_answer_changes_few_pairs() -> None:
    rubric = read_rubric(find_rubric("helpfulness"), "pairwise", None)
    texts = [f"answer {place}" for place in range(10)]
    asked = settings(mode="pairwise", opponents=2)
    few, more = (
        {question.text for question in make_questions(asked, rubric, shown("p", *some))} for some in (texts[:9], texts)
    )
    assert len(few - more) == 2, "one pair of neighbours, in both orders"


def test_a_conversation_is_shown_with_its_roles() -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    answer = Shown(prompt={"prompt_id": "p", "messages": turns, "reference": None}, text="Hello")
    rubric = read_rubric(find_rubric("helpfulness"), "pointwise", None)
    (question,) = make_questions(settings(reason=False), rubric, [answer])
    assert "<prompt>\n[system]\nBe brief.\n\n[user]\nHi\n</prompt>" in question.text
    assert question.text.endswith('nothing else: {"score": N}. N is a whole number from 1 (worst) to 10 (best).')


REFUSALS = [  # as `replies` writes them, in the words of real servers
    "HTTP 400: This response_format type is unavailable now",  # DeepSeek
    "HTTP 422: Failed to deserialize the JSON body into the target type: response_format: response_format.type "
    "`json_schema` is unavailable now at line 1 column 1193",
    "HTTP 400: Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model.",  # OpenAI
    "HTTP 400: The model only supports response formats: [json text].",  # Groq
    "HTTP 400: 'response_format.type' must be 'json_schema' or 'text'",  # LM Studio
    'HTTP 500: response_format type must be one of "text" or "json_object", but got: json_schema (attempts: 5)',
    'HTTP 400: Either "json_schema" or "grammar" can be specified, but not both',  # llama.cpp
    "HTTP 400: The provided JSON schema contains features not supported by xgrammar.",  # vLLM
    "error 400: Structured outputs are not supported by this provider",
]
OTHERS = [
    None,
    "HTTP 400: This model's maximum context length is 4096 tokens",
    "HTTP 500: out of memory",
    "HTTP 429: rate limit",
    "no answer within 600 s",
    "the model refused: I cannot rate a json_schema",
    "the answer is empty",
]


@pytest.mark.parametrize("error", REFUSALS)
def test_a_refusal_of_the_form_is_known_by_its_words(error: str) -> None:
    assert is_refusal(error)


@pytest.mark.parametrize("error", OTHERS)
def test_other_errors_are_none(error: str | None) -> None:
    assert not is_refusal(error)


def test_the_schema_holds_what_is_asked_for() -> None:
    assert formats("auto") == ("json_schema", "json_object", "none")
    assert response_format("none", "pointwise", (0, 1), True) is None
    sent = response_format("json_schema", "pairwise", (0, 1), False)
    assert sent is not None
    assert sent["json_schema"]["schema"]["properties"] == {"winner": {"type": "string", "enum": ["A", "B", "tie"]}}
    assert sent["json_schema"]["schema"]["required"] == ["winner"]
