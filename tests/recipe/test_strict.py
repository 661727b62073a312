"""Faults in what is read: one sentence each, with both bounds where a value has two."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from persyn_hf.errors import RecipeError
from persyn_hf.recipe.recipe import Recipe
from persyn_hf.recipe.strict import Strict, nearest, read_section


class Part(Strict):
    share: float = Field(default=0.5, gt=0, lt=1)
    top: float | int | None = Field(default=None, gt=0, le=1)
    weight: float | int = Field(default=0, ge=0, alias="lambda")
    each: dict[str, Annotated[int, Field(ge=2)]] = Field(default_factory=dict)
    name: str | None = None
    names: str | list[str] = ""
    kind: Literal["one", "two"] = "one"
    numbers: tuple[float, ...] = Field(default=(1.0,), min_length=1, strict=False)


class Whole(Strict):
    parts: tuple[Part, ...] = Field(default=(), strict=False)
    alpha: float | None = Field(default=None, ge=0, le=1)
    half: float = Field(default=0.5, ge=0.25, lt=0.75)


def message(values: dict[str, Any], model: type[Strict] = Whole) -> str:
    with pytest.raises(RecipeError) as caught:
        read_section(model, values, "x")
    return str(caught.value)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"alpha": 2}, "x.alpha: must be at least 0 and at most 1, got 2"),
        ({"alpha": -0.5}, "x.alpha: must be at least 0 and at most 1, got -0.5"),
        ({"half": 0.75}, "x.half: must be at least 0.25 and below 0.75, got 0.75"),
        ({"parts": [{}, {"share": 0}]}, "x.parts.1.share: must be above 0 and below 1, got 0"),
        ({"parts": [{"top": 3}]}, "x.parts.0.top: must be above 0 and at most 1, got 3"),
        ({"parts": [{"lambda": -1}]}, "x.parts.0.lambda: must be at least 0, got -1"),
        ({"parts": [{"each": {"a": 1}}]}, "x.parts.0.each.a: must be at least 2, got 1"),
        ({"parts": [{"top": "much"}]}, "x.parts.0.top: must be a number, got 'much'"),
        ({"parts": [{"names": 3}]}, "x.parts.0.names: must be text or a list of texts, got 3"),
        ({"parts": [{"names": [3, "a"]}]}, "x.parts.0.names: must be text or a list of texts, got [3, 'a']"),
        ({"parts": [{"each": {"str": 1}}]}, "x.parts.0.each.str: must be at least 2, got 1"),
        ({"parts": [{"each": {"str": "a"}}]}, "x.parts.0.each.str: input should be a valid integer, got 'a'"),
        ({"parts": [{"name": "a", "share": 0}]}, "x.parts.a.share: must be above 0 and below 1, got 0"),
        ({"parts": [{"name": "a"}, {"name": "a", "top": 3}]}, "x.parts.1.top: must be above 0 and at most 1, got 3"),
        ({"parts": [{"name": "a/b", "top": 3}]}, "x.parts.0.top: must be above 0 and at most 1, got 3"),
        (
            {"parts": [{"kind": "ONE"}]},
            "x.parts.0.kind: input should be 'one' or 'two', got 'ONE', did you mean `one`?",
        ),
        ({"parts": 3}, "x.parts: must be a list, got 3"),
        ({"parts": [{"numbers": []}]}, "x.parts.0.numbers: must name at least one, got []"),
        ({"parts": [{"numbers": ["a"]}]}, "x.parts.0.numbers.0: input should be a valid number, got 'a'"),
        (
            {"parts": [{"shar": 1}], "alpha": 7},
            "x.parts.0: unknown key `shar`, did you mean `share`? (known: share, top, lambda, each, name, names, "
            "kind, numbers); x.alpha: must be at least 0 and at most 1, got 7",
        ),
    ],
)
def test_a_fault_names_the_key_what_was_found_and_what_is_needed(values: dict[str, Any], expected: str) -> None:
    assert message(values) == expected


def test_keys_that_are_missing_or_inside_a_plain_mapping() -> None:
    found = message({"teachers": [{}, {"name": "a"}], "students": [{"name": "s"}], "inputs": {"a": 3}}, Recipe)
    assert found == (
        "x: the key `name` is missing; x.teachers.0: the key `name` is missing; "
        "x.inputs.a: input should be a valid string, got 3"
    )


def test_nearest_names_some_of_many() -> None:
    assert nearest("alpa", ["alpha", "beta"]) == ", did you mean `alpha`? (known: alpha, beta)"
    assert nearest("zzz", [f"k{i}" for i in range(30)]).endswith(", k23, k24 and 5 more)")
