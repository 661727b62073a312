"""Reading a recipe of any content ends in a plan or in one of our sentences, within a bounded time."""

import contextlib
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from persyn_hf.errors import PersynError, RecipeError
from persyn_hf.recipe.file import load_recipe
from persyn_hf.recipe.yaml_text import read_yaml
from persyn_hf.runner.plan import make_plan


SAMPLES = ("tiny/smoke.yaml", "real/gsm8k.yaml", "server/gsm8k.yaml", "real/router-bench.yaml")
# What YAML, people and programs write in place of a value.
ODD = [
    *("2020-99-99", "2020-01-01", "!!binary aGk=", "!!set {a, b}", "!!python/object:os.system x", "0x_", "!!int x"),
    *(
        "1" * 5000,
        "-1",
        "1e-5",
        ".inf",
        "-.nan",
        "99999999999999999999",
        "on",
        "~",
        "[]",
        "{}",
        "[[[]]]",
        "{a: {b: {}}}",
    ),
    *('"\\ud800"', '"\\0"', '"v1\\n"', "~nobodyatall/x", "./" + "a" * 5000, "*nowhere", "&a [*a]", "<<", "{1: 2}"),
    *("{? [a] : b}", "!!float x", "!!timestamp x", "!!bool x", "%", "- -", "'", '"\\x1b[2J"', "1:2:3", "é", "\u2028"),
]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.dates()
    | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def whole_text(root: Path, name: str) -> str:
    """A recipe of the repository with all that it extends, as one text."""
    recipe = load_recipe(root / "recipes" / name)
    return yaml.safe_dump(recipe.model_dump(mode="json", exclude_unset=True, by_alias=True))


def reads(path: Path) -> None:
    """Plan the recipe; only our own errors may come out, each a sentence that can be printed."""
    try:
        make_plan(load_recipe(path))
    except PersynError as error:
        assert str(error).strip()
        str(error).encode("utf-8")


def changed_text(text: str, draw: random.Random) -> str:
    """One to three lines lost, doubled, indented or with another value; or characters lost and put in."""
    lines = text.splitlines()
    for _ in range(draw.randrange(1, 4)):
        row = draw.randrange(len(lines))
        line, odd = lines[row], draw.choice(ODD)
        key, colon, _value = line.partition(":")
        cut = draw.randrange(len(line) + 1)
        lines[row] = draw.choice(
            ["", f"{line}\n{line}", f"  {line}", f"{key}{colon} {odd}", line[:cut] + odd + line[cut:], line[:cut], odd]
        )
    return "\n".join(lines)


def test_the_texts_are_valid_as_they_are(root: Path, tmp_path: Path) -> None:
    for name in SAMPLES:
        (tmp_path / "recipe.yaml").write_text(whole_text(root, name))
        assert make_plan(load_recipe(tmp_path / "recipe.yaml"))


def check_changed_recipes(root: Path, folder: Path, number: int, seed: int) -> None:
    draw = random.Random(seed)
    texts = [whole_text(root, name) for name in SAMPLES]
    for _ in range(number):
        text = changed_text(draw.choice(texts), draw)
        (folder / "recipe.yaml").write_text(text, encoding="utf-8", errors="surrogatepass")
        reads(folder / "recipe.yaml")


def test_a_changed_recipe_is_planned_or_refused_in_a_sentence(root: Path, tmp_path: Path) -> None:
    check_changed_recipes(root, tmp_path, 150, seed=0)


@pytest.mark.slow
def test_thousands_of_changed_recipes_are_planned_or_refused(root: Path, tmp_path: Path) -> None:
    check_changed_recipes(root, tmp_path, 2000, seed=1)


@pytest.mark.heavy
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), value=VALUES)
def test_any_value_anywhere_in_a_recipe(root: Path, tmp_path: Path, data: st.DataObject, value: Any) -> None:
    recipe = yaml.safe_load(whole_text(root, "tiny/smoke.yaml"))
    inside, key = recipe, data.draw(st.sampled_from(sorted(recipe)))
    while isinstance(inside[key], dict) and inside[key] and data.draw(st.booleans()):
        inside, key = inside[key], data.draw(st.sampled_from(sorted(inside[key])))
    inside[key] = value
    with contextlib.suppress(yaml.YAMLError, UnicodeEncodeError):
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe, allow_unicode=True), encoding="utf-8")
        reads(tmp_path / "recipe.yaml")


@given(
    st.text(max_size=200) | st.lists(st.sampled_from([*"[]{}&*:-?|>!%@,\n \t#'\"a1", "<<: *a", "&a "])).map("".join)
)
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(RecipeError):
        read_yaml(text, "the text")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: &a [*a]", "part of itself"),
        ("a: &a {b: *a}", "part of itself"),
        (
            "\n".join(["a0: &a0 [1]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))]),
            "values",
        ),
        ("[" * 200 + "]" * 200, "nested too deep"),
        ("[" * 5000 + "]" * 5000, "nested too deep"),
        ("a: 1\nb: 2\na: 3", "`a` stands twice, again in line 3"),
        ("a: !!timestamp 2020-01-01", "`a` is a YAML date"),
        ("a: !!timestamp 2020-99-99", "cannot be read"),
        ("a: !!binary aGk=", "`a` is a YAML bytes"),
        ("a: {b: !!set {x}}", "`a.b` is a YAML set"),
        ("a: [0, {b: .inf}]", "`a.1.b` is inf, a finite number is needed"),
        (f"a: {'9' * 30}", "`a` is a number of 100 bits"),
        (f"a: {'9' * 9000}", "cannot be read"),
        ('a: "\\ud800"', "`a` holds"),
        ('"\\0": 1', "holds a null character"),
        ("1: 2", "the key 1 is no text; put it in quotes"),
        ("a: " + "x" * 200_000, "characters"),
        ("a: !!python/name:os.system x", "cannot be read"),
    ],
)
def test_what_yaml_says_and_a_recipe_cannot_mean(text: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words.replace(".", r"\.")):
        read_yaml(text, "the recipe r.yaml")


def test_numbers_and_dates_are_read_as_yaml_1_2_and_json_have_them() -> None:
    assert read_yaml("[1e-5, 1E3, 2.5e+1, 1.5, -3, 7e2]", "x") == [1e-5, 1000.0, 25.0, 1.5, -3, 700.0]
    assert read_yaml("[e5, 1e, v1e5, 1-5]", "x") == ["e5", "1e", "v1e5", "1-5"]
    assert read_yaml("[030, 0x1F, 0o17, 1_000, -5, 1:10, 190:20:30, .5, 1.]", "x") == [
        *(30, 31, 15, 1000, -5, "1:10", "190:20:30", 0.5, 1.0)
    ]
    assert read_yaml("{release: 2024-11-25, odd: 2020-99-99}", "x") == {"release": "2024-11-25", "odd": "2020-99-99"}
    assert read_yaml("base: &b {x: 1}\nmore: {<<: *b, y: 2}", "x")["more"] == {"x": 1, "y": 2}


@pytest.mark.parametrize("extends", ["3", "[[a.yaml]]", "", "[a.yaml, 3]", "{a: b}", '"a\\0b"', "''"])
def test_what_a_recipe_extends_is_a_path_or_a_list_of_them(tmp_path: Path, extends: str) -> None:
    (tmp_path / "r.yaml").write_text(f"name: r\nextends: {extends}\n")
    with pytest.raises(RecipeError, match="extends|null character"):
        load_recipe(tmp_path / "r.yaml")


def test_files_that_extend_one_another_have_an_end(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number}.yaml").write_text(f"extends: {number + 1}.yaml\n")
    with pytest.raises(RecipeError, match="chain of more than 20 files"):
        load_recipe(tmp_path / "0.yaml")


def test_a_file_saved_with_a_mark_of_its_byte_order_is_read(root: Path, tmp_path: Path) -> None:
    """As Notepad saves it."""
    text = whole_text(root, "tiny/smoke.yaml")
    (tmp_path / "r.yaml").write_text(text, encoding="utf-8-sig")
    assert load_recipe(tmp_path / "r.yaml").name == load_recipe(root / "recipes/tiny/smoke.yaml").name
    (tmp_path / "r.yaml").write_text(text, encoding="utf-16")
    with pytest.raises(RecipeError, match="no text in UTF-8"):
        load_recipe(tmp_path / "r.yaml")
