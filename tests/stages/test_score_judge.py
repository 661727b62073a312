"""Stage `score` with a judge behind a real server: what it is asked, what it is not asked twice, what is refused."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batch_server import BatchServer
from openai_server import OpenAIServer, Response, completion
from rows import prompt, response
from tiny_models import save_model

from persyn_hf.backends.judging.settings import JudgeSettings
from persyn_hf.errors import BudgetReached, EngineError, RecipeError, UnderWay
from persyn_hf.recipe.roles import Teacher
from persyn_hf.recipe.strict import read_section
from persyn_hf.schemas import PROMPTS, RESPONSES, REWARDS
from persyn_hf.stage import Context, Limits, Result
from persyn_hf.stages import score
from persyn_hf.stages.score.criteria import Judged
from persyn_hf.stages.score.judging import judge as judge_them
from persyn_hf.stages.score.judging import position_bias


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


def settings(at: OpenAIServer | BatchServer, one_by_one: bool = False, **judge: Any) -> score.Settings:
    one = {"concurrency": 1, "max_concurrency": 1} if one_by_one else {}
    judge = {"model": "m", "server": {"urls": [at.url], "attempts": 1, "patience_s": 1, **one}} | judge
    values = {"quality": "judge", "learnability": "none", "alpha": 0, "judge": judge}
    read: score.Settings = read_section(score.Settings, values, "score")
    return read


def run(folder: Path, at: OpenAIServer | BatchServer, reference: str | None = None, **judge: Any) -> Result:
    prompts, responses = table(reference)
    context = judge.pop("context", {})
    return score.run(
        settings(at, **judge),
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
        assert found.counts["replies"] == 6
        assert found.cost["total"]["requests"] == found.cost["total"]["new"] == 6
        assert found.metrics["judges"]["m"] == {"questions": 6, "mean": pytest.approx(6 + 5 / 6), "unread": 0}


def refuse(server: OpenAIServer, *unknown: str) -> None:
    """Have a server that is asked one by one refuse some forms of structured output."""

    def behave(text: str, times: int) -> Response:
        words = {"error": {"message": "This response_format type is unavailable now"}}
        return Response(status=400, body=words) if form(server.bodies[-1]) in unknown else by_length(text, times)

    server.behaviour = behave


def form(body: dict[str, Any]) -> str:
    return str(body.get("response_format", {"type": "none"})["type"])


@pytest.mark.parametrize(
    ("unknown", "asked"),
    [
        (("json_schema",), ["json_schema"] + 6 * ["json_object"]),
        (("json_schema", "json_object"), ["json_schema", "json_object"] + 6 * ["none"]),
    ],
)
def test_a_form_that_the_server_refuses_is_tried_once(
    tmp_path: Path, unknown: tuple[str, ...], asked: list[str]
) -> None:
    with OpenAIServer() as server:
        refuse(server, *unknown)
        found = run(tmp_path, server, one_by_one=True)
        assert [form(body) for body in server.bodies] == asked
        assert None not in quality(found).values()
        again = run(tmp_path, server)
        assert quality(again) == quality(found)
        assert len(server.bodies) == len(asked), "what was refused is in the journal, too"
        assert again.cost["total"]["new"] == 0


def test_a_form_that_is_set_is_not_left(tmp_path: Path) -> None:
    with OpenAIServer() as server:
        refuse(server, "json_schema")
        with pytest.raises(EngineError) as told:
            run(tmp_path, server, one_by_one=True, response_format="json_schema")
        assert "judge `m`: " in str(told.value)
        assert "response_format type is unavailable now" in str(told.value)
        assert "`score.judge.max_error_rate`" in str(told.value)
        server.bodies.clear()
        assert None not in quality(run(tmp_path / "none", server, response_format="none")).values()
        assert not any("response_format" in body for body in server.bodies)


def test_equal_answers_to_a_prompt_are_asked_about_once(tmp_path: Path) -> None:
    prompts, responses = table()
    same = responses.map(lambda row: {"response": "the same"}).cast(responses.features)
    with OpenAIServer(by_length) as server:
        context = Context(seed=0, work_dir=tmp_path, teachers=tuple(Teacher(name=name) for name in ANSWERS))
        found = score.run(settings(server), context, prompts=prompts, responses=same)
        assert len(server.bodies) == 3
        assert set(quality(found).values()) == {8}
        pairs = score.run(settings(server, mode="pairwise"), context, prompts=prompts, responses=same)
        assert len(server.bodies) == 3
        assert set(quality(pairs).values()) == {0}


def test_what_cannot_be_read_is_null_and_counted(tmp_path: Path) -> None:
    replies = {"two": "I like it.", "red": '{"score": 12}', "Rhine": '{"score": 3}\n{"score": 4}'}

    def behave(text: str, times: int) -> Response:
        reply = replies.get(answer_in(text))
        return Response(body=completion(reply)) if reply else by_length(text, times)

    with OpenAIServer(behave) as server:
        found = run(tmp_path, server)
    assert [value for (teacher, _), value in quality(found).items() if teacher == "terse"] == [None] * 3
    assert [value for (teacher, _), value in quality(found).items() if teacher == "long"] == [10] * 3
    counts = {name: number for name, number in found.counts.items() if name.startswith("unread")}
    assert counts == {"unread_no_verdict": 1, "unread_off_scale": 1, "unread_several": 1}
    assert found.counts["unjudged"] == 3
    assert found.metrics["judges"]["m"]["unread"] == 0.5


def test_a_judge_that_never_gives_a_verdict_is_stopped_early(tmp_path: Path) -> None:
    with OpenAIServer(lambda text, times: Response(body=completion("Sehr gut!"))) as server:
        sentence = (
            "judge `m`: 4 of 6 replies hold no verdict (no_verdict 4), the bound `score.judge.max_error_rate` is 0.5; "
            "one of them: 'Sehr gut!'. Take another judge, rubric or `max_tokens`, or raise the bound: what was "
            "answered is kept"
        )
        with pytest.raises(EngineError) as told:
            run(tmp_path, server, one_by_one=True)
        assert str(told.value) == sentence
        assert len(server.bodies) < 6
        with pytest.raises(EngineError, match="6 of 6 replies hold no verdict"):
            run(tmp_path, server, one_by_one=True, max_error_rate=0.9)


def test_errors_are_asked_again_only_on_demand(tmp_path: Path) -> None:
    broken = [True]

    def behave(text: str, times: int) -> Response:
        if answer_in(text) == "red" and broken[0]:
            return Response(status=500, body={"error": {"message": "out of luck"}})
        return by_length(text, times)

    with OpenAIServer(behave) as server:
        assert [*quality(run(tmp_path, server)).values()].count(None) == 1
        broken[0] = False
        asked = len(server.bodies)
        assert [*quality(run(tmp_path, server)).values()].count(None) == 1
        assert len(server.bodies) == asked
        assert None not in quality(run(tmp_path, server, rerun="errors")).values()
        assert len(server.bodies) == asked + 1


def test_several_samples_are_averaged(tmp_path: Path) -> None:
    with OpenAIServer(lambda text, times: Response(body=completion(f'{{"score": {times}}}'))) as server:
        found = run(tmp_path, server, samples=3, temperature=0.7, response_format="none")
        assert set(quality(found).values()) == {2}
        assert len(server.bodies) == 18
        assert len({body["seed"] for body in server.bodies}) == 9, "of a prompt and a sample"


def test_limits_hold_for_teachers_and_judges_together(tmp_path: Path) -> None:
    with OpenAIServer(by_length) as server:
        with pytest.raises(BudgetReached, match="next batch of `judge m` holds 1 and 2 answers of it are left"):
            run(tmp_path, server, one_by_one=True, context={"limits": Limits(max_generations=4), "recipe": "a/b"})
        assert len(server.bodies) == 4
        price = {"prompt": 0, "completion": 1}
        limit = 4 * 3e-6 + 1024e-6 + 0.5e-6  # four replies of 3 tokens, and room for a fifth, but for no sixth
        with pytest.raises(BudgetReached, match="max_cost"):
            run(
                tmp_path,
                server,
                one_by_one=True,
                price=price,
                context={"limits": Limits(max_cost=limit), "recipe": "a/b"},
            )
        assert len(server.bodies) == 5
        found = run(tmp_path, server, context={"limits": Limits(max_generations=6), "recipe": "a/b"})
        assert len(server.bodies) == 6
        assert found.cost["teachers"]["judge m"]["new"] == 1


def test_a_reference_is_shown_and_what_has_none_is_not_asked_about(tmp_path: Path) -> None:
    def behave(text: str, times: int) -> Response:
        right = text.split("<reference>\n")[1].split("\n</reference>")[0] in answer_in(text)
        return Response(body=completion(f'{{"score": {int(right)}}}'))

    with OpenAIServer(behave) as server:
        found = run(tmp_path, server, reference="two", rubric="correctness")
        assert [*quality(found).values()] == [1, 1, 0, 0, 0, 0]
        with pytest.raises(Exception, match="the judge has no verdict on any of the 6 answers"):
            run(tmp_path, server, rubric="correctness")
        assert len(server.bodies) == 6


@pytest.mark.parametrize(
    ("judge", "sentence"),
    [
        ({"rubric": "helpfullness"}, "score.judge.rubric: no rubric is called `helpfullness`, did you mean `helpfuln"),
        ({"rubric": "my.yaml"}, "a file of your own begins with ./"),
        (
            {"samples": 3},
            "score.judge: 3 greedy samples would all be the same; set `temperature: 0.7`, or `samples: 1`",
        ),
        ({"panel": [{"model": "x/m"}]}, "score.judge: two judges are called `m`; give one of them another `name`"),
        ({"panel": [{"model": "n", "server": {"url": []}}]}, "score.judge.panel.n.server: unknown key `url`"),
        ({"modes": "pairwise"}, "score.judge: unknown key `modes`, did you mean `mode`?"),
        ({"server": {}}, "score.judge: the judge `m` is to be asked at a server, but no url is given; set `server: {"),
        ({"max_tokens": 0}, "score.judge.max_tokens: must be at least 1, got 0"),
    ],
)
def test_settings_are_refused_in_a_sentence(tmp_path: Path, judge: dict[str, Any], sentence: str) -> None:
    with OpenAIServer(by_length) as server:
        with pytest.raises(RecipeError) as told:
            run(tmp_path, server, **judge)
        assert sentence in str(told.value)
        assert not server.bodies


def test_a_judge_and_its_quality_belong_together() -> None:
    judge = {"model": "m", "server": {"urls": ["http://h"]}}
    for values in ({"quality": "judge"}, {"judge": judge}):
        with pytest.raises(RecipeError, match="belong together, found only one of them"):
            read_section(score.Settings, values, "score")


def two_in(text: str) -> tuple[str, str]:
    first, second = (text.split(f"<answer_{name}>\n")[1].split(f"\n</answer_{name}>")[0] for name in "ab")
    return first, second


def longer(text: str, times: int) -> Response:
    first, second = two_in(text)
    return Response(body=completion(json.dumps({"winner": "A" if len(first) > len(second) else "B"})))


def test_pairs_are_judged_in_both_orders_and_strengths_come_out(tmp_path: Path) -> None:
    with OpenAIServer(longer) as server:
        found = run(tmp_path, server, mode="pairwise")
        assert len(server.bodies) == 6
        assert quality(run(tmp_path, server, mode="pairwise")) == quality(found)
        assert len(server.bodies) == 6
    assert quality(found) == {
        (teacher, question): pytest.approx(sign * math.log(5) / 2)
        for teacher, sign in (("terse", -1), ("long", 1))
        for question in QUESTIONS
    }
    assert found.metrics["position"]["m"] == {"pairs": 3, "consistent": 1, "first": 0, "second": 0}


def test_a_taste_for_the_first_place_is_seen_and_decides_nothing(tmp_path: Path) -> None:
    with OpenAIServer(lambda text, times: Response(body=completion('{"winner": "A"}'))) as server:
        found = run(tmp_path, server, mode="pairwise")
    assert [*quality(found).values()] == pytest.approx([0] * 6)
    assert found.metrics["position"]["m"] == {"pairs": 3, "consistent": 0, "first": 1, "second": 0}


def test_a_pair_with_a_verdict_in_one_order_only_is_none(tmp_path: Path) -> None:
    def behave(text: str, times: int) -> Response:
        broken = two_in(text)[0] == "red"
        return Response(body=completion("hm")) if broken else longer(text, times)

    with OpenAIServer(behave) as server:
        found = run(tmp_path, server, mode="pairwise")
    assert [question for (_, question), value in quality(found).items() if value is None] == ["Name a colour."] * 2
    assert found.counts["unread_no_verdict"] == 1
    assert found.metrics["position"]["m"]["pairs"] == 2


def test_position_bias_by_hand() -> None:
    verdicts = np.array([1, 0, 1, 1, 0, 0, 0.5, 0.5, 1, 0.5, np.nan, 1])
    assert position_bias(verdicts) == {"pairs": 5, "consistent": 2 / 5, "first": 1 / 5, "second": 1 / 5}


def test_a_batch_api_is_asked_for_all_but_the_first_question(tmp_path: Path) -> None:
    def outcome(line: dict[str, Any], times: int) -> dict[str, Any]:
        body = by_length(line["body"]["messages"][-1]["content"], times).body
        assert form(line["body"]) == "json_schema"
        return {"custom_id": line["custom_id"], "response": {"status_code": 200, "body": body}, "error": None}

    with BatchServer(outcome=outcome) as server:
        asked = {"engine": "batch", "batch": {"poll_s": 0.01}, "server": {"urls": [server.url]}}
        found = run(tmp_path, server, **asked)
        assert (server.at_once, sum(server.sent.values()), len(server.batches)) == (1, 5, 1)
        assert [*quality(found).values()] == [3, 10, 3, 10, 5, 10]
        assert quality(run(tmp_path, server, **asked)) == quality(found)
        assert (server.at_once, len(server.batches)) == (1, 1)


def test_the_batches_of_a_panel_are_sent_before_any_is_awaited(tmp_path: Path) -> None:
    """A judge's batch goes on until the other's is there."""

    def outcome(line: dict[str, Any], times: int) -> dict[str, Any]:
        body = by_length(line["body"]["messages"][-1]["content"], times).body
        return {"custom_id": line["custom_id"], "response": {"status_code": 200, "body": body}, "error": None}

    with BatchServer(outcome=outcome, looks=10**6) as server:

        def both(number: int, path: str) -> None:
            server.looks = 0 if len(server.batches) == 2 else 10**6

        asked = {"engine": "batch", "batch": {"poll_s": 0.01}, "panel": [{"model": "n"}]}
        with pytest.raises(UnderWay, match="5 requests of `judge m` in 1 batch; .* 5 .* of `judge n` in 1 batch"):
            run(tmp_path, server, context={"limits": Limits(wait_for_batches=False)}, **asked)
        server.before = both  # type: ignore[assignment]
        found = run(tmp_path, server, **asked)
        assert [*quality(found).values()] == [3, 10, 3, 10, 5, 10]
        assert (server.at_once, len(server.batches), set(server.sent.values())) == (2, 2, {1})


def test_a_panel_is_averaged_and_its_agreement_is_told(tmp_path: Path) -> None:
    """The second judge gives a point more, and nothing to one answer: this has no quality then."""

    def behave(text: str, times: int) -> Response:
        score = min(9, len(answer_in(text)))
        if server.bodies[-1]["model"] == "n":
            return Response(body=completion("no" if answer_in(text) == "red" else f'{{"score": {score + 1}}}'))
        return Response(body=completion(f'{{"score": {score}}}'))

    with OpenAIServer(models=("m", "n")) as server:
        server.behaviour = behave
        found = run(tmp_path, server, one_by_one=True, panel=[{"model": "n", "price": {"completion": 5}}])
        assert len(server.bodies) == 12
        alone = run(tmp_path, server, one_by_one=True)
        assert len(server.bodies) == 12, "who leaves the panel costs nothing"
    assert [*quality(found).values()] == [3.5, 9.5, None, 9.5, 5.5, 9.5]
    assert [*quality(alone).values()] == [3, 9, 3, 9, 5, 9]
    # Of 3 3 9 9 5: (3, 4), (9, 10) thrice, (5, 6). Observed: 10 ordered pairs that differ by 1, over 10 verdicts: 1.
    every = [3, 4, 9, 10, 9, 10, 5, 6, 9, 10]
    expected = sum((a - b) ** 2 for a in every for b in every) / 90
    assert found.metrics["agreement"] == {"alpha": pytest.approx(1 - 1 / expected), "units": 5}
    assert {name: line["questions"] for name, line in found.metrics["judges"].items()} == {"m": 6, "n": 6}
    assert found.cost["teachers"]["judge n"]["money"] == pytest.approx(6 * 3 * 5 / 1e6)
    assert "agreement" not in alone.metrics


def test_a_judge_that_runs_here_is_asked_once(tmp_path: Path, heavy: None) -> None:
    """A model without sense, so what it says holds no verdict; its replies are in the journal all the same."""
    model = save_model(tmp_path / "model", "llama", 0)
    prompts, _ = table()
    answers = [Judged({**row}, {"response": "two"}, None) for row in prompts]
    rubric = tmp_path / "short.yaml"
    rubric.write_text("scale: [1, 10]\ncriteria: x\npointwise: '{{prompt}} {{answer}}'\n")
    asked = {"model": str(model), "engine": "transformers", "rubric": str(rubric), "max_tokens": 4}
    judge = read_section(JudgeSettings, {**asked, "max_error_rate": 1}, "score.judge")
    first, second = (judge_them(judge, Context(seed=0, work_dir=tmp_path), answers) for _ in range(2))
    assert first.values == second.values
    assert (first.cost["total"]["new"], second.cost["total"]["new"]) == (3, 0)
    assert first.counts["replies"] == 3


def replies(result: Result) -> dict[tuple[str, str], list[tuple[Any, ...]]]:
    """What judges said of each answer: (judge, shown, verdict, reason, fault), by teacher and prompt."""
    rows = zip(*(result.data[name] for name in ("teacher", "prompt_id", "verdicts")), strict=True)
    keys = ("judge", "shown", "verdict", "reason", "fault")
    return {(t, p): [tuple(said[key] for key in keys) for said in some or ()] for t, p, some in rows}


def test_the_reasons_of_judges_are_kept_with_the_answers(tmp_path: Path) -> None:
    def behave(text: str, times: int) -> Response:
        if answer_in(text) == "red":
            return Response(body=completion("<think>hm</think>I would rather not say."))
        return by_length(text, times)

    with OpenAIServer(behave) as server:
        found = run(tmp_path, server)
    REWARDS.check(found.data, "the rewards")
    said = list(replies(found).values())
    assert said[0] == [("m", "", 3, "length", None)]
    assert [("m", "", None, "I would rather not say.", "no_verdict")] in said
    assert len(said) == 6


def test_a_reply_to_a_pair_stands_with_the_answer_that_was_shown_first(tmp_path: Path) -> None:
    def first(text: str, times: int) -> Response:
        return Response(body=completion(json.dumps({"reason": "first", "winner": "A"})))

    with OpenAIServer(first) as server:
        found = run(tmp_path, server, mode="pairwise")
    assert {teacher: some for (teacher, _), some in replies(found).items()} == {
        "terse": [("m", "as A, against long", 1, "first", None)],
        "long": [("m", "as A, against terse", 1, "first", None)],
    }
