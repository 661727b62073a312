"""Stage `score` with a judge behind a real server: what it is asked, what it is not asked twice, what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from openai_server import OpenAIServer, Response, completion
from rows import prompt, response

from persyn_hf.errors import BudgetReached, EngineError, RecipeError
from persyn_hf.recipe.roles import Teacher
from persyn_hf.recipe.strict import read_section
from persyn_hf.schemas import PROMPTS, RESPONSES
from persyn_hf.stage import Context, Limits, Result
from persyn_hf.stages import score


QUESTIONS = ("Name a prime.", "Name a colour.", "Name a river.")
ANSWERS = {"terse": ("two", "red", "Rhine"), "long": ("the number two", "the colour red", "the river Rhine")}


def table(reference: str | None = None) -> tuple[Any, Any]:
    prompts = [prompt(text, split="calibration", reference=reference) for text in QUESTIONS]
    responses = [
        response(asked["prompt_id"], teacher, text, split="calibration", reasoning="secret thoughts")
        for teacher, texts in ANSWERS.items()
        for asked, text in zip(prompts, texts, strict=True)
    ]
    return PROMPTS.dataset(prompts), RESPONSES.dataset(responses)


def answer_in(text: str) -> str:
    return text.split("<answer>\n")[1].split("\n</answer>")[0]


def by_length(text: str, times: int) -> Response:
    """A judge that likes long answers: from 1 to 10."""
    return Response(body=completion(json.dumps({"reason": "length", "score": min(10, len(answer_in(text)))})))


def settings(server: OpenAIServer, **judge: Any) -> score.Settings:
    judge = {"model": "m", "server": {"urls": [server.url], "attempts": 1, "patience_s": 1}} | judge
    values = {"quality": "judge", "learnability": "none", "alpha": 0, "judge": judge}
    read: score.Settings = read_section(score.Settings, values, "score")
    return read


def run(folder: Path, server: OpenAIServer, reference: str | None = None, **judge: Any) -> Result:
    prompts, responses = table(reference)
    context = judge.pop("context", {})
    return score.run(
        settings(server, **judge),
        Context(seed=0, work_dir=folder, teachers=tuple(Teacher(name=name) for name in ANSWERS), **context),
        prompts=prompts,
        responses=responses,
    )


def quality(result: Result) -> dict[tuple[str, str], float | None]:
    return {
        (teacher, QUESTIONS[list(dict.fromkeys(result.data["prompt_id"])).index(prompt_id)]): value
        for prompt_id, teacher, value in zip(
            *(result.data[name] for name in ("prompt_id", "teacher", "quality_raw")), strict=True
        )
    }


def test_answers_are_judged_once_and_thoughts_are_not_shown(tmp_path: Path) -> None:
    with OpenAIServer(by_length) as server:
        found = run(tmp_path, server)
        assert quality(found) == {
            (teacher, question): min(10, len(text))
            for teacher, texts in ANSWERS.items()
            for question, text in zip(QUESTIONS, texts, strict=True)
        }
        assert len(server.bodies) == 6
        texts = [body["messages"][0]["content"] for body in server.bodies]
        assert not any("secret" in text for text in texts)
        assert all("from 1 (worst) to 10 (best)" in text and "helpful" in text for text in texts)
        assert server.bodies[0]["temperature"] == 0
        form = server.bodies[0]["response_format"]["json_schema"]
        assert form["schema"]["properties"]["score"] == {"type": "integer", "enum": list(range(1, 11))}
        assert list(form["schema"]["properties"]) == ["reason", "score"]
        assert quality(run(tmp_path, server)) == quality(found)
        assert len(server.bodies) == 6, "the journal has them"
        assert found.counts["verdicts"] == 6
        assert found.cost["total"]["requests"] == found.cost["total"]["new"] == 6
        assert found.metrics["judges"]["m"] == {"questions": 6, "mean": pytest.approx(6 + 5 / 6), "unread": 0}
