"""What nothing reads is refused, where one would take it for done."""

from pathlib import Path

import pytest

from persyn_hf.errors import RecipeError
from persyn_hf.recipe.file import load_recipe
from persyn_hf.runner.fingerprint import fingerprint
from persyn_hf.runner.plan import make_plan
from persyn_hf.runner.plan_checks import check_references


def plan(root: Path, *overrides: str) -> None:
    make_plan(load_recipe(root / "recipes" / "tiny" / "smoke.yaml", overrides))


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "train_router.seeds=3",
            "train_router: only `kind: auto` reads `seeds`, and the recipe trains global_best, llm, logistic; leave "
            "it out, or set `kind: auto` with these kinds as its `candidates`",
        ),
        ("train_router.curve=[10]", "train_router: only `kind: auto` reads `curve`"),
        (
            "score.quality=[{correct: 1}, {column: 1}]",
            "score: `quality: column` is what imported answers bring along, and `generate.engine` is transformers",
        ),
        (
            "generate.choose_by=quality",
            "`generate.choose_by: quality` has the judge or the command of `score.quality` choose among samples, and "
            "that is correct; set `score.quality: judge` or `command`, or leave `choose_by` out",
        ),
        (
            "generate.chosen_by={weights: {judge: 1}}",
            "generate: `chosen_by` is decided by `score`; set it there, not here",
        ),
        ("prompts.config=main", "`config` is of a `dataset`, and none is read; take it out"),
        ("prompts.revision=abc", "`revision` is of a `dataset`, and none is read; take it out"),
        ("generate.revision=abc", "`revision` is of a `dataset`, and none is read; take it out"),
        (
            "evaluate.tasks=[{name: t, path: ./a.jsonl, config: main}]",
            "`t`: `config` is of a `dataset`, and none is read; take it out",
        ),
    ],
)
def test_what_nothing_reads_is_refused(root: Path, override: str, sentence: str) -> None:
    with pytest.raises(RecipeError) as error:
        plan(root, override)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ("train_router.kind=auto",),
            "train_router: `kind: auto` chooses among its candidates on dev prompts, and `prompts.dev` is 0; raise "
            "it, or train one kind of router, as in `kind: stacking`",
        ),
        (
            ("train_router.extend=lab/router@v1", "strategies=[persyn]"),
            "train_router: `extend` has its router judged on dev prompts, and `prompts.dev` is 0",
        ),
        (
            ("strategies=[{kind: persyn, per_prompt: 2, confidence: 0.8}]",),
            "a strategy's `confidence` is learnt from dev prompts, and `prompts.dev` is 0; raise it, or leave "
            "`confidence` out",
        ),
    ],
)
def test_what_needs_dev_prompts_is_refused_before_anything_is_paid(
    root: Path, overrides: tuple[str, ...], sentence: str
) -> None:
    plan(root, *overrides)
    with pytest.raises(RecipeError) as error:
        plan(root, *overrides, "prompts.dev=0")
    assert sentence in str(error.value)
    plan(root, "prompts.dev=0", "train_router.kind=stacking")


IN_PART = "calibration={strategy: uncertainty, prior: lab/other-rewards-s@v1}"


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "calibration={strategy: uncertainty, prior: tiny/smoke-rewards-qwen-student@v1}",
            "calibration: `prior` names tiny/smoke-rewards-qwen-student@v1, which this recipe makes itself; name the "
            "rewards of another student or recipe",
        ),
        (
            "calibration={strategy: uncertainty, prior: tiny/smoke-rewards-qwen-student-round1}",
            "which this recipe makes itself",
        ),
        (
            "calibration={strategy: whole_prompts, prior: lab/other-rewards-s@v1}",
            "calibration: nothing reads the `prior`: `whole_prompts` asks every teacher whatever it says; set "
            "`train_router.kind: stacking`, `calibration.stop: gain` or another strategy, or leave `prior` out",
        ),
        ("calibration={prior: lab/other-rewards-s@v1}", "the strategy full knows no `prior`"),
        (
            "calibration={strategy: uncertainty, prior: quality.csv}",
            "must name rewards, NAMESPACE/NAME@TAG, or a file, as in ./quality.csv, got 'quality.csv'",
        ),
        ("train_router.prior=./quality.csv", "train_router: `prior` is decided by `calibration`; set it there"),
    ],
)
def test_a_prior_that_is_no_use_is_refused(root: Path, override: str, sentence: str) -> None:
    with pytest.raises(RecipeError) as error:
        plan(root, override)
    assert sentence in str(error.value)


def test_a_prior_reaches_the_rounds_and_the_routers_that_read_it(root: Path, tmp_path: Path) -> None:
    def given(*overrides: str) -> tuple[set[str], set[str]]:
        steps = make_plan(load_recipe(root / "recipes" / "tiny" / "smoke.yaml", overrides))
        files = {step.key for step in steps if getattr(step.settings, "prior", None)}
        return {step.key for step in steps if "prior" in step.inputs}, files

    rounds = {"assignments-all-round1", "assignments-all-round2", "assignments-all"}
    assert given(IN_PART) == (rounds, set())
    routers = {"router-qwen-student", "router-qwen-student-no_learnability", "router-qwen-student-no_quality"}
    assert given(IN_PART, "train_router.kind=stacking") == (rounds | routers, set())
    file = IN_PART.replace("lab/other-rewards-s@v1", str(tmp_path / "quality.csv"))
    assert given(file, "train_router.kind=stacking") == (set(), routers)


def test_one_router_that_is_chosen_suffices_for_the_settings_of_auto(root: Path) -> None:
    plan(root, "train_router.seeds=3", "strategies=[{kind: persyn, router: auto}]")
    plan(root, "train_router.seeds=3", "train_router.kind=auto")
    plan(root, "train_router.seeds=3", "strategies=[strong]")  # trains none
    plan(root, "train_router.seeds=1")


JUDGED = ("score.quality=judge", "score.judge={model: j, server: {urls: [http://localhost:1/v1]}}")


def test_samples_are_chosen_by_what_gives_each_a_number(root: Path) -> None:
    with pytest.raises(
        RecipeError, match="needs a number for each sample, and `score.judge.mode: pairwise` compares two"
    ):
        plan(root, *JUDGED, "score.judge.mode=pairwise", "generate.choose_by=quality")


def test_a_criterion_in_a_list_needs_references_too(root: Path) -> None:
    nothing = (
        "prompts.columns.reference=null",
        "prompts.references=none",
        "generate.verify=none",
        "strategies=[strong]",
    )
    sets = (JUDGED[1], "score.quality=[{correct: 1}, {judge: 1}]", *nothing)
    with pytest.raises(RecipeError, match="`score.quality: correct` judges answers by the references of the prompts"):
        check_references(make_plan(load_recipe(root / "recipes" / "tiny" / "smoke.yaml", sets)))


def test_what_chooses_samples_counts_in_fingerprints_and_its_address_does_not(root: Path) -> None:
    def of_generate(*overrides: str) -> list[str]:
        steps = make_plan(load_recipe(root / "recipes" / "tiny" / "smoke.yaml", overrides))
        return [fingerprint(step, 0, {}) for step in steps if step.stage == "generate"]

    plain, chosen = of_generate(*JUDGED), of_generate(*JUDGED, "generate.choose_by=quality")
    assert plain == of_generate(), "with another quality the same answers are kept"
    assert not {*plain} & {*chosen}
    elsewhere = "score.judge.server.urls=[http://localhost:2/v1]"
    assert of_generate(*JUDGED, "generate.choose_by=quality", elsewhere) == chosen
    assert not {*chosen} & {*of_generate(*JUDGED, "generate.choose_by=quality", "score.judge.model=other")}
