"""Stage `generate` with `choose_by: quality`: the best-judged sample is kept, and what that asks and costs."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai_server import OpenAIServer, Response, completion
from rows import assignment, prompt

from persyn_hf.backends.grading.settings import CommandSettings
from persyn_hf.backends.judging.settings import JudgeSettings
from persyn_hf.errors import BudgetReached, RecipeError
from persyn_hf.recipe.roles import Price, Teacher
from persyn_hf.recipe.strict import read_section
from persyn_hf.schemas import ASSIGNMENTS, PROMPTS
from persyn_hf.stage import Context, Limits, Result
from persyn_hf.stages import generate, score
from persyn_hf.stages.generate.settings import ChosenBy


QUESTIONS = ("Name a prime.", "Name a colour.")
# What the teacher says, sample by sample; the judge likes long answers, and is silent on `mute`.
SAID = {"Name a prime.": ["2", "the number 7", "mute", "11"], "Name a colour.": ["red", "red", "red", "red"]}
VERDICT = {"2": 1, "the number 7": 10, "11": 2, "red": 3}


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    def behave(text: str, times: int) -> Response:
        if text in SAID:
            return Response(body=completion(SAID[text][times - 1]))
        answer = text.split("<answer>\n")[1].split("\n</answer>")[0]
        said = json.dumps({"reason": "r", "score": VERDICT[answer]}) if answer in VERDICT else "Who knows."
        return Response(body=completion(said))

    with OpenAIServer(behave, models=("t", "j")) as running:
        yield running


def judge(server: OpenAIServer, **values: Any) -> JudgeSettings:
    at = {"urls": [server.url], "attempts": 1, "patience_s": 1}
    read: JudgeSettings = read_section(JudgeSettings, {"model": "j", "server": at} | values, "score.judge")
    return read


def run(
    folder: Path, server: OpenAIServer, by: ChosenBy | None, reference: str | None = None, **values: Any
) -> Result:
    prompts = [prompt(text, split="calibration", reference=reference) for text in QUESTIONS]
    given = {
        "engine": "server",
        "samples": 4,
        "server": {"urls": [server.url], "concurrency": 1, "max_concurrency": 1},
        "verify": "none",
        **({"choose_by": "quality", "chosen_by": by} if by else {}),
    }
    context = {"limits": values.pop("limits")} if "limits" in values else {}
    return generate.run(
        read_section(generate.Settings, given | values, "generate"),
        Context(seed=0, work_dir=folder, teachers=(Teacher(name="t", model="t", price=Price()),), **context),
        prompts=PROMPTS.dataset(prompts),
        assignments=ASSIGNMENTS.dataset([assignment(row["prompt_id"], "t", split="calibration") for row in prompts]),
    )


def kept(result: Result) -> list[str]:
    return [row["response"] for row in result.data if row["selected"]]


def judged(server: OpenAIServer) -> list[str]:
    """The answers that the judge was asked about."""
    texts = [body["messages"][0]["content"] for body in server.bodies if body["model"] == "j"]
    return sorted(text.split("<answer>\n")[1].split("\n</answer>")[0] for text in texts)


def test_the_best_judged_sample_is_kept_and_what_cannot_tell_is_not_asked(
    tmp_path: Path, server: OpenAIServer
) -> None:
    assert kept(run(tmp_path / "first", server, None)) == ["2", "red"]
    server.times.clear()
    found = run(tmp_path, server, ChosenBy(weights={"judge": 1}, judge=judge(server)))
    assert kept(found) == ["the number 7", "red"]
    assert judged(server) == ["11", "2", "mute", "the number 7"], "four equal answers are not judged"
    assert [row["quality"] for row in found.data] == [1, 10, None, 2, None, None, None, None]
    assert {name: found.counts[name] for name in ("samples_judged", "unread_no_verdict")} == {
        "samples_judged": 4,
        "unread_no_verdict": 1,
    }
    assert found.cost["judges"]["judge j"]["requests"] == found.cost["judges"]["judge j"]["new"] == 4
    assert found.cost["total"]["requests"] == 8, "the teachers' own"
    asked = len(server.bodies)
    again = run(tmp_path, server, ChosenBy(weights={"judge": 1}, judge=judge(server)))
    assert kept(again) == kept(found)
    assert len(server.bodies) == asked


def test_score_finds_the_verdict_of_the_kept_sample_in_the_journal(tmp_path: Path, server: OpenAIServer) -> None:
    found = run(tmp_path, server, ChosenBy(weights={"judge": 1}, judge=judge(server)))
    asked = judged(server)
    settings = {"quality": "judge", "judge": judge(server), "learnability": "none", "alpha": 0}
    prompts = PROMPTS.dataset([prompt(text, split="calibration") for text in QUESTIONS])
    scored = score.run(
        read_section(score.Settings, settings, "score"),
        Context(seed=0, work_dir=tmp_path, teachers=(Teacher(name="t", model="t"),)),
        prompts=prompts,
        responses=found.data,
    )
    assert list(scored.data["quality_raw"]) == [10, 3]
    assert judged(server) == sorted([*asked, "red"]), "only the answer that had no rival is new"


def test_a_right_sample_stands_before_a_better_judged_wrong_one(tmp_path: Path, server: OpenAIServer) -> None:
    server.behaviour, before = (
        (
            lambda text, times: (
                Response(body=completion(r"\boxed{11}" if times > 2 else f"long words, {times}"))
                if text in SAID
                else before(text, times)
            )
        ),
        server.behaviour,
    )
    found = run(tmp_path, server, ChosenBy(weights={"judge": 1}, judge=judge(server)), reference="11", verify="math")
    assert kept(found) == [r"\boxed{11}"] * 2
    assert judged(server) == [], "the right ones are alike"


def test_a_command_chooses_and_both_are_weighed(tmp_path: Path, server: OpenAIServer) -> None:
    script = tmp_path / "short.py"
    script.write_text(
        "import json, sys\nfor line in sys.stdin: print(-len(json.loads(line)['answer']), flush=True)\n",
        encoding="utf-8",
    )
    command = CommandSettings(run=[sys.executable, str(script)])
    alone = run(tmp_path, server, ChosenBy(weights={"command": 1}, command=command))
    assert kept(alone) == ["2", "red"]
    assert not judged(server)
    server.times.clear()
    both = ChosenBy(weights={"command": 1, "judge": 3}, command=command, judge=judge(server))
    found = run(tmp_path, server, both)
    assert kept(found) == ["the number 7", "red"]
    # by length 1, 0, 11/12 without `mute`, which was not judged; by the judge 0, 1, 1/9
    expected = [1 / 4, 3 / 4, None, 10 / 11 / 4 + 1 / 9 * 3 / 4]
    assert [row["quality"] for row in found.data][:4] == [
        None if value is None else pytest.approx(value) for value in expected
    ]


def test_limits_hold_for_judged_samples(tmp_path: Path, server: OpenAIServer) -> None:
    by = ChosenBy(weights={"judge": 1}, judge=judge(server))
    with pytest.raises(BudgetReached, match="judge j"):
        run(tmp_path, server, by, limits=Limits(max_generations=10))
    assert len(judged(server)) == 2


def test_two_ways_to_have_a_quality_contradict_each_other(tmp_path: Path) -> None:
    columns = {"prompt": "p", "teacher": "t", "response": "r", "quality": "q"}
    given = {"engine": "import", "path": str(tmp_path), "columns": columns, "choose_by": "quality"}
    said = "generate: `choose_by: quality` judges samples, and `columns.quality` brings their quality along; leave one"
    with pytest.raises(RecipeError, match=re.escape(said)):
        read_section(generate.Settings, given, "generate")
