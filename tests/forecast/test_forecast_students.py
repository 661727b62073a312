"""`persyn plan`: what scoring for the students and their fine-tuning take, against numbers worked by hand."""

from pathlib import Path
from typing import Any

import yaml

from persyn_hf.core.cost import Cost, ledger
from persyn_hf.forecast.generation import forecast
from persyn_hf.forecast.outlook import look_ahead
from persyn_hf.recipe.file import load_recipe
from persyn_hf.recipe.recipe import Recipe
from persyn_hf.report.results import same_teacher
from persyn_hf.report.run_tables import summary
from persyn_hf.report.tables import Table
from persyn_hf.runner.fingerprint import described, fingerprint
from persyn_hf.runner.plan import make_plan
from persyn_hf.runner.run import look_up
from persyn_hf.schemas import RESPONSES
from persyn_hf.store.local import Store
from persyn_hf.store.manifest import Manifest


BASE: dict[str, Any] = {
    "name": "r",
    "until": "train_student",
    "teachers": [
        {"name": "small", "model": "org/small", "params_b": 1},
        {"name": "long", "model": "org/long", "params_b": 8, "long_cot": True},
        {"name": "large", "model": "org/large", "params_b": 72},
    ],
    "students": [{"name": "s", "model": "org/s", "params_b": 2}],
    "strategies": ["persyn"],
    "prompts": {"dataset": "org/prompts", "calibration": 10, "dev": 5, "pool": 90},
    "generate": {"max_tokens": 100},
    "train_router": {"kind": "knn"},
}
ASSUMED = (
    "2 FLOPs per parameter and token to score, 6 to fine-tune; ~: assumed, an A100 at 30% of its peak and, where no "
    "answer is stored, 100 tokens of prompt with 600 of answer, 6,000 of Long-CoT, at most "
    "`generate.max_tokens`"
)


def recipe(tmp_path: Path, **changes: object) -> Recipe:
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({**BASE, **changes}))
    return load_recipe(tmp_path / "r.yaml")


def plan(tmp_path: Path, **changes: object) -> dict[str, Table]:
    found, store = recipe(tmp_path, **changes), Store(tmp_path / "store")
    return {table.name: table for table in forecast(look_ahead(found, look_up(found, store), store))}


def tokens(tmp_path: Path, **changes: object) -> dict[str, str]:
    return {row[1]: row[2].removeprefix("~ ") for row in plan(tmp_path, **changes)["students"].rows}


def put_answers(tmp_path: Path, **changes: object) -> None:
    """Twenty answers of each teacher, 50 tokens of prompt and 60 of answer."""
    teachers = recipe(tmp_path).teachers
    one = Cost(requests=20, prompt_tokens=1000, completion_tokens=1200, seconds=1, gpu_seconds=1)
    names = [teacher.name for teacher in teachers]
    line = {"truncated": 0.0, "errors": 0.0, "mean_tokens": 40.0}
    fields = {
        "stage": "generate",
        "settings": {"max_tokens": 100},
        "teachers": [described(teacher) for teacher in teachers],
        "metrics": {"teachers": dict.fromkeys(names, line)},
        "cost": ledger(dict.fromkeys(names, one), dict.fromkeys(names, 20)),
    }
    Store(tmp_path / "store").put(repo="me/answers", schema=RESPONSES, data=RESPONSES.dataset([]), fields=fields)


def test_scoring_is_a_forward_pass_and_training_three(tmp_path: Path) -> None:
    """Rows of 100 + 100 tokens. 15 prompts x 3 answers are 9,000 tokens, x 2 x 2e9 at 93.6 TFLOPS 0.38 s; the 100 rows
    of calibration and pool are 20,000, two epochs of them 40,000, x 6 x 2e9 5.1 s."""
    table = plan(tmp_path)["students"]
    assert table.rows == [
        ["s", "score", "~ 9.00K", "~ 36.0 TFLOPs", "~ 0.38 s"],
        ["s", "SFT persyn", "~ 40.0K", "~ 480 TFLOPs", "~ 5.13 s"],
        ["total", "", "~ 49.0K", "~ 516 TFLOPs", "~ 5.51 s"],
    ]
    assert table.note == f"{ASSUMED}; an even split over the teachers for persyn"


def test_rows_are_as_long_as_their_teachers_make_them(tmp_path: Path) -> None:
    """700, 6,100 and 700 tokens: scored are 15 x 7,500; trained on 200 x 2,500 where evenly split, or those of one."""
    strategies = ["persyn", "oracle", {"kind": "strong", "teacher": "long"}, {"kind": "mix", "weights": {"small": 1}}]
    assert tokens(tmp_path, strategies=strategies, generate={"max_tokens": 8192}) == {
        "score": "788K",  # 112.5K, and the oracle's pool: 90 x 7,500
        "SFT persyn": "500K",
        "SFT oracle": "500K",
        "SFT strong": "1.22M",
        "SFT mix": "140K",
        "": "3.15M",
    }


def test_rows_are_no_longer_than_their_own_teacher_may_answer(tmp_path: Path) -> None:
    """200 rows of 100 tokens of prompt with 600 of answer, and with 50; `generate.max_tokens` is 100."""
    for own, trained in ((8192, "140K"), (50, "30.0K")):
        teachers = [{**BASE["teachers"][0], "max_tokens": own}, *BASE["teachers"][1:]]
        strategies = [{"kind": "mix", "weights": {"small": 1}}]
        assert tokens(tmp_path, teachers=teachers, strategies=strategies)["SFT mix"] == trained


def test_each_seed_is_trained_and_each_further_answer_scored(tmp_path: Path) -> None:
    found = tokens(tmp_path, seeds=[0, 1, 2], strategies=[{"kind": "persyn", "per_prompt": 2}])
    assert found == {"score": "45.0K", "SFT persyn-top2": "120K", "": "165K"}  # 9,000 and 90 x 2 x 200; 3 x 40,000


def test_lora_takes_four_above_14_billion(tmp_path: Path) -> None:
    """40,000 tokens x 6 x 14e9, x 4 x 15e9, x 4 x 2e9."""
    for size, method, flops in (
        (14, "auto", "3.36"),
        (15, "auto", "2.40"),
        (2, "lora", "0.320"),
        (15, "full", "3.60"),
    ):
        students = [{"name": "s", "model": "org/s", "params_b": size}]
        table = plan(tmp_path, students=students, train_student={"method": method})["students"]
        shown = f"~ {flops} PFLOPs" if flops != "0.320" else "~ 320 TFLOPs"
        assert table.rows[1][3] == shown
        assert ("to fine-tune, 4 with LoRA; " in table.note) == (flops in ("2.40", "0.320"))


def test_a_student_without_its_size_is_named(tmp_path: Path) -> None:
    students = [*BASE["students"], {"name": "t", "model": "org/t"}]
    table = plan(tmp_path, students=students)["students"]
    assert [row[3:] for row in table.rows[2:]] == [["–", "–"]] * 3
    assert table.rows[0][3] == "~ 36.0 TFLOPs"
    assert table.note.endswith("; –: set the `params_b` of t in `students`")


def test_what_no_recipe_gives_the_size_of_is_named(tmp_path: Path) -> None:
    more = {
        "until": "evaluate",
        "train_router": {"kind": "llm"},
        "score": {"quality": "reward_model", "reward_model": {"model": "org/rm"}},
        "evaluate": {"tasks": [{"name": "gsm8k"}]},
    }
    note = plan(tmp_path, **more)["students"].note
    assert note.endswith("; not in it: the llm router's training, the reward model, evaluation")


def test_only_what_the_recipe_does(tmp_path: Path) -> None:
    assert set(tokens(tmp_path, score={"learnability": "none", "alpha": 0})) == {"SFT persyn", ""}
    assert set(tokens(tmp_path, until="assign")) == {"score", ""}
    assert "students" not in plan(tmp_path, until="assign", students=[{"name": "s"}])
    assert "students" not in plan(tmp_path, prompts={"dataset": "org/p"}), "no sizes, no tokens"


def test_stored_answers_say_how_long_rows_are(tmp_path: Path) -> None:
    """110 tokens each: 45 answers are 4,950 tokens, 100 rows in two epochs 22,000; only the speed is assumed then."""
    put_answers(tmp_path)
    strong = [{"kind": "strong", "teacher": "small"}]
    assert plan(tmp_path, strategies=strong)["students"].rows == [
        ["s", "score", "4.95K", "19.8 TFLOPs", "~ 0.21 s"],
        ["s", "SFT strong", "22.0K", "264 TFLOPs", "~ 2.82 s"],
        ["total", "", "26.9K", "284 TFLOPs", "~ 3.03 s"],
    ]


def test_imported_answers_too_though_nobody_is_asked(tmp_path: Path) -> None:
    """100 tokens of prompt and 40 of answer."""
    imported = {"engine": "import", "dataset": "org/answers", "verify": "none", "columns": {"responses": {}}}
    assert tokens(tmp_path, generate=imported)["score"] == "112K", "15 x (700 + 6,100 + 700)"
    put_answers(tmp_path)
    tables = plan(tmp_path, generate=imported, inputs={"responses": "me/answers@v1"})
    assert set(tables) == {"steps", "students"}
    assert [row[2] for row in tables["students"].rows] == ["~ 6.30K", "~ 28.0K", "~ 34.3K"]


def test_a_students_size_changes_no_fingerprint(tmp_path: Path) -> None:
    """What was stored before the recipe said it is used again."""
    plans = []
    for size in ({}, {"params_b": 2}, {"params_b": 3}):
        steps = make_plan(recipe(tmp_path, students=[{"name": "s", "model": "org/s", **size}]))
        plans.append([fingerprint(step, 0, {}) for step in steps])
    assert plans[0] == plans[1] == plans[2]
    (student,) = recipe(tmp_path).students
    known = {"name": "s", "model": "org/s", "revision": None, "family": "unknown", "chat_template": None}
    assert described(student) == known
    assert described(recipe(tmp_path).teachers[0])["params_b"] == 1, "of a teacher it decides who is strong"


def test_strategies_that_come_to_the_same_teacher_are_named(tmp_path: Path) -> None:
    strategies = [
        {"kind": "strong", "name": "strong"},
        {"kind": "family_strong", "teacher": "large"},
        {"kind": "mix", "weights": {"large": 2}},
        {"kind": "strong", "name": "other", "teacher": "small"},
        "oracle",
        "car",
    ]
    note = plan(tmp_path, strategies=strategies)["strategies"].note
    assert note == (
        "an even split of the pool is assumed for car; "
        "strong, family_strong and mix come to the same teacher, large: one experiment"
    )
    assert same_teacher({"a": {"x": 1.0, "y": 0.0}, "b": {"y": 1.0}, "c": {"x": 0.5, "y": 0.5}}) == ""


def test_the_allocation_of_a_run_names_them_too(tmp_path: Path) -> None:
    found = recipe(tmp_path, strategies=["strong", "car"])
    shares = {"small": 0.0, "long": 0.0, "large": 1.0}
    manifests = {
        f"assignments-s-{name}": Manifest(
            stage="assign", kind="assignments", schema_version=1, repo="me/a", metrics={"allocation": shares}
        )
        for name in ("strong", "car")
    }
    (table,) = (table for table in summary(found, manifests) if table.name == "allocation-s")
    assert table.note == "strong and car come to the same teacher, large: one experiment"
