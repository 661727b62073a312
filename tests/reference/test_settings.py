"""Every setting says what it is, takes what it says, and runs anew what the plan and the fingerprints make of it."""

import importlib
import re
from pathlib import Path
from typing import Any

from smoke_run import SMALL

from persyn_hf.errors import RecipeError
from persyn_hf.recipe.file import load_recipe
from persyn_hf.recipe.recipe import STAGES
from persyn_hf.recipe.schema_file import read_schema
from persyn_hf.recipe.strict import read_section
from persyn_hf.reference.anew import follow, runs_anew
from persyn_hf.reference.schema import Node
from persyn_hf.reference.settings import list_settings
from persyn_hf.runner.plan import BY_CALIBRATION, BY_SCORE, BY_STRATEGY, PHASES
from persyn_hf.runner.run import look_up
from persyn_hf.store.local import Store


SETTINGS = list_settings(read_schema())
LEAVES = [setting for setting in SETTINGS.values() if not setting.is_section]
LATER = ("train_router", "assign", "generate", "score_chosen", "mix", "train_student", "evaluate")

# Texts that have to be of a certain shape.
OF_A_SHAPE = {"train_router.candidates", "train_router.extend", "evaluate.livebench.release"}
OF_A_SHAPE |= {"score.quality", "score.judge.rubric"}
LISTS = (["evaluate", "tasks"], ["score", "judge", "panel"])  # sections of which there are several

# Setting -> an override of the recipe that was run, which may change nothing else.
OVERRIDES = {
    "seed": "1",
    "seeds": "[3, 4]",
    "license": "mit",
    "prompts.pool": "5",
    "assign.beta": "2",
    "assign.device": "cpu",
    "generate.temperature": "0.5",
    "generate.device": "cpu",
    "generate.server.urls": "['http://h:1/v1']",
    "generate.server.extra": "{a: 1}",
    "generate.vllm.concurrency": "3",
    "generate.think_tags": "[['<a>', '</a>']]",
    "score.alpha": "0.3",
    "score.device": "cpu",
    "pair.tie": "0.1",
    "train_router.tau": "0.3",
    "train_router.device": "cpu",
    "mix.unknown_ends": "true",
    "train_student.epochs": "2",
    "train_student.save_steps": "10",
    "evaluate.limit": "7",
    "evaluate.batch_size": "3",
}


def test_every_description_is_short_and_said_in_sentences() -> None:
    for path, setting in SETTINGS.items():
        meaning = setting.meaning
        sentences = re.findall(r"[.!?](?= \D|$)", meaning.replace("...", ""))
        assert len(meaning) <= 200 and len(sentences) in (1, 2), f"{path}: {meaning}"
        assert re.match(r"[A-Z]|[a-z]+: ", meaning) and meaning.endswith("."), f"{path}: {meaning}"
        assert "  " not in meaning, f"{path}: {meaning}"


def test_the_settings_are_the_fields_of_the_sections_but_those_that_are_decided_elsewhere() -> None:
    for stage in STAGES:
        fields = set(importlib.import_module(f"persyn_hf.stages.{stage}").Settings.model_fields)
        known = {path.split(".")[1] for path in SETTINGS if path.startswith(f"{stage}.")}
        assert fields - known == {key for by in (BY_STRATEGY, BY_CALIBRATION, BY_SCORE) for key in by.get(stage, ())}
        assert known <= fields


def test_types_bounds_and_defaults_are_said_in_words() -> None:
    words = {path: (SETTINGS[path].kind, SETTINGS[path].default) for path in SETTINGS}
    assert words["score.alpha"] == ("number, at least 0 and at most 1", "0.4")
    assert words["calibration.share"] == ("number, above 0 and below 1", "0.4")
    assert words["generate.max_tokens"] == ("whole number, at least 1", "2048")
    assert words["train_student.learning_rate"] == ("number, above 0, or null", "null")
    assert words["generate.configs"] == ("mapping of names to texts or null, or null", "null")
    assert words["generate.think_tags"] == ("list of pairs of texts", "[]")
    assert words["generate.rerun"] == ("truncated or errors or list of truncated or errors", "[]")
    assert words["students.name"] == ("text", "")
    assert words["strategies.name"] == ("text", '""')
    assert words["calibration.anchors"] == ("mapping of names to whole numbers, at least 2", "{}")


def sample(node: Node) -> Any:
    """A value that a node allows, as YAML would give it: lists, and no tuples."""
    if "anyOf" in node:
        return sample(node["anyOf"][-1])
    if "enum" in node or "const" in node:
        return node.get("const") or node["enum"][0]
    if "prefixItems" in node:
        return [sample(item) for item in node["prefixItems"]]
    kind = node["type"][0] if isinstance(node["type"], list) else node["type"]
    if kind == "array":
        return [sample(node["items"])]
    if kind == "object":
        values = node.get("additionalProperties")
        return {"key": sample(values)} if isinstance(values, dict) else {}
    whole, number = node.get("minimum", 2), node.get("maximum", node.get("exclusiveMaximum", 4) / 2)
    text = "http://h" if "http" in node.get("pattern", "") else "text"
    return {"string": text, "boolean": True, "number": number, "integer": whole, "null": None}[kind]


def test_what_a_type_says_is_read() -> None:
    """Whether it goes with other settings is another question: only faults of the key itself count."""
    for setting in LEAVES:
        stage, *keys = setting.path.split(".")
        if stage not in STAGES or setting.path in OF_A_SHAPE:
            continue
        values = sample(setting.node)
        for place in range(len(keys), 0, -1):
            entry = {keys[place - 1]: values}
            values = [entry] if [stage, *keys[: place - 1]] in LISTS else entry
        try:
            read_section(importlib.import_module(f"persyn_hf.stages.{stage}").Settings, values, stage)
        except RecipeError as error:
            found = re.sub(r"(tasks|panel)\.0", r"\1", str(error))
            assert not re.search(rf"(^|; ){re.escape(setting.path)}(\.\d+)*: ", found), found


def test_what_follows_goes_down_the_chain() -> None:
    assert follow("train_student") == ("evaluate",)
    assert follow("evaluate") == ()
    assert follow("pair") == ()
    assert follow("train_router") == LATER[1:]
    assert follow("prompts") == tuple(phase for phase in PHASES if phase not in ("prompts", "label"))


def test_strategies_and_calibration_run_anew_what_the_plan_makes_of_them() -> None:
    assert runs_anew("strategies.router") == LATER
    assert runs_anew("strategies.escalate") == ("generate", "mix", "train_student", "evaluate")
    assert runs_anew("strategies.per_prompt") == LATER[1:]
    assert runs_anew("strategies.budget.max") == ("assign", "generate", "mix", "train_student", "evaluate")
    assert runs_anew("assign.budget.max")[0] == "assign"  # the assignments of calibration know no budget
    assert runs_anew("calibration.share")[:2] == ("label", "assign_all")
    assert runs_anew("students.family")[0] == "score"
    assert runs_anew("teachers.price.completion") == ("assign", "generate", "mix", "train_student", "evaluate")
    assert runs_anew("teachers.samples")[0] == "assign_all"
    assert runs_anew("generate.executor.replicas") == ()  # it is in a section that fingerprints leave out


def test_what_depends_on_the_recipe_is_said() -> None:
    assert SETTINGS["teachers.price.prompt"].anew == "where a budget is in money: `assign` (pool) and what follows"
    assert SETTINGS["inputs"].anew == "what reads the artifact"
    assert SETTINGS["pair.tie"].anew == "`pair`"


def test_only_these_settings_run_nothing_anew() -> None:
    whole = {setting.path for setting in LEAVES if setting.anew == "nothing"}
    assert {path for path in whole if path.split(".")[0] not in STAGES} == {
        *("extends", "version", "until", "license", "language"),
        *("teachers.license", "students.params_b", "students.license"),
    }
    assert {"score.device", "train_student.save_steps", "generate.server.urls", "generate.vllm.timeout_s"} <= whole


def test_what_runs_anew_is_what_a_store_does_not_have(finished: tuple[Path, float], root: Path) -> None:
    store = Store(finished[0])
    for path, value in OVERRIDES.items():
        recipe = load_recipe(root / "recipes" / "tiny" / "smoke.yaml", [*SMALL, f"{path}={value}"])
        steps = {item.step.phase for item in look_up(recipe, store) if item.stored is None}
        assert steps == set(runs_anew(path)) - {"score_chosen"}, path  # no strategy there asks several teachers
