"""Licences and languages of an artifact: from the recipe, the cards of its models, and its inputs."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from persyn_hf.recipe.recipe import Recipe
from persyn_hf.runner.licences import languages, licences
from persyn_hf.runner.plan import make_plan
from persyn_hf.runner.step import Step
from persyn_hf.store.local import Stored
from persyn_hf.store.manifest import Manifest


@pytest.fixture
def model(tmp_path: Path) -> str:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "README.md").write_text("---\nlicense: gemma\nlanguage: en\n---\n")
    return str(folder)


def steps(model: str, **more: Any) -> tuple[Recipe, dict[str, Step]]:
    """The steps of a recipe by stage, the last of each."""
    values: dict[str, Any] = {
        "name": "r",
        "teachers": [
            {"name": "a", "model": model, "license": "mit"},
            {"name": "b", "model": model},
            {"name": "c", "model": "org/c"},
        ],
        "students": [{"name": "s", "model": model}],
        "strategies": ["persyn"],
        "prompts": {"dataset": "org/prompts"},
        **more,
    }
    recipe = Recipe(**values)
    return recipe, {step.stage: step for step in make_plan(recipe)}


def stored(repo: str, **fields: Any) -> Stored:
    manifest = Manifest(stage="x", kind="prompts", schema_version=1, repo=repo, **fields)
    return Stored(repo=repo, kind="prompts", tag="v1", digest="", path=Path(), manifest=manifest)


def test_the_recipe_comes_before_the_card_and_without_both_it_is_unknown(model: str) -> None:
    recipe, by_stage = steps(model, license="cc-by-4.0")
    assert licences(by_stage["prompts"], recipe, {}) == {"prompts of org/prompts": "cc-by-4.0"}
    found = licences(by_stage["generate"], recipe, {})
    assert found == {"teacher a": "mit", "teacher b": "gemma", "teacher c": None}
    assert licences(by_stage["train_student"], recipe, {}) == {"student s": "gemma"}
    assert licences(by_stage["score"], recipe, {}) == {}
    recipe, by_stage = steps(model)
    assert licences(by_stage["prompts"], recipe, {}) == {"prompts of org/prompts": None}


def test_a_router_that_is_a_language_model_has_the_licence_of_its_backbone(model: str) -> None:
    for settings, found in (
        ({"kind": "llm", "backbone": model}, {"router backbone model": "gemma"}),
        ({"kind": "knn", "backbone": model}, {}),
        (
            {"kind": "auto", "candidates": ["knn", {"kind": "llm", "backbone": model}]},
            {"router backbone model": "gemma"},
        ),
    ):
        recipe, by_stage = steps(model, train_router=settings)
        assert licences(by_stage["train_router"], recipe, {}) == found


def test_two_inputs_that_know_a_source_otherwise_are_both_heard(model: str) -> None:
    recipe, by_stage = steps(model)
    inputs = {
        "one": stored("me/one", licences={"prompts": "mit", "teacher a": "mit"}),
        "two": stored("me/two", licences={"prompts": "cc-by-nc-4.0", "teacher a": "mit"}),
        "three": stored("me/three", licences={"prompts": None}),
    }
    assert licences(by_stage["mix"], recipe, inputs) == {
        "prompts": "mit",
        "teacher a": "mit",
        "prompts (me/two)": "cc-by-nc-4.0",
        "prompts (me/three)": None,
    }


def test_imported_responses_have_the_licence_of_their_dataset(model: str) -> None:
    settings = {"engine": "import", "dataset": "org/answers", "columns": {"responses": {"a": "x", "b": "y", "c": "z"}}}
    recipe, by_stage = steps(model, generate=settings)
    assert licences(by_stage["generate"], recipe, {})["responses of org/answers"] is None


def test_a_dataset_of_the_hub_tells_licence_and_language(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its card, which the Hub's client finds in its cache where there is no network."""
    repo = tmp_path / "hub" / "datasets--org--told"
    card = repo / "snapshots" / ("0" * 40) / "README.md"
    card.parent.mkdir(parents=True)
    card.write_text("---\nlicense: odc-by\nlanguage: [en, fr]\n---\n")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    recipe, by_stage = steps(model, prompts={"dataset": "org/told"})
    assert licences(by_stage["prompts"], recipe, {}) == {"prompts of org/told": "odc-by"}
    assert languages(by_stage["prompts"], recipe, {}) == ("en", "fr")
    recipe, by_stage = steps(model, prompts={"dataset": "org/told"}, language="de")
    assert languages(by_stage["prompts"], recipe, {}) == ("de",)


class OneModel(BaseHTTPRequestHandler):
    """Answers for `org/told` as the Hub does."""

    def do_GET(self) -> None:
        known = self.path.startswith("/api/models/org/told")
        answer = {"id": "org/told", "siblings": [], "cardData": {"license": "llama3.1", "language": ["en"]}}
        text = json.dumps(answer if known else {"error": "Repository not found"}).encode()
        self.send_response(200 if known else 404)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("X-Error-Code", "" if known else "RepoNotFound")
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None: ...


def test_the_hub_is_asked_about_a_model_that_is_not_in_its_cache(tmp_path: Path) -> None:
    code = (
        "from persyn_hf.store.cards.licences import read_source\n"
        "print(*(read_source(f'org/{name}').licence for name in ('told', 'unheard')))"
    )
    with ThreadingHTTPServer(("127.0.0.1", 0), OneModel) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        hub = {
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(tmp_path),
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        }
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, **hub}, capture_output=True, text=True, timeout=60
        )
        server.shutdown()
    assert (done.stdout, done.stderr) == ("llama3.1 None\n", "")


def test_languages_of_recipe_and_inputs(model: str) -> None:
    inputs = {"one": stored("me/one", languages=("zh", "en"))}
    recipe, by_stage = steps(model, language="de")
    assert languages(by_stage["mix"], recipe, inputs) == ("de", "en", "zh")
    recipe, by_stage = steps(model)
    assert languages(by_stage["mix"], recipe, inputs) == ("en", "zh")
    assert languages(by_stage["prompts"], recipe, {}) == ()
