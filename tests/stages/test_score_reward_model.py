"""Stage `score` with a reward model: judged once, whoever the student is, and by the server as in this process."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from classify_server import ClassifyServer, classification
from datasets import Dataset
from scoring_run import answers
from tiny_rewards import save_reward_model

from persyn_hf.backends.scoring import likelihood, reward_model
from persyn_hf.cli.main import main
from persyn_hf.errors import RecipeError
from persyn_hf.recipe.file import load_recipe
from persyn_hf.recipe.roles import Teacher
from persyn_hf.recipe.strict import read_section
from persyn_hf.stage import Context, Result
from persyn_hf.stages import score
from persyn_hf.store.local import Store


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_reward_model(tmp_path_factory.mktemp("judge"))


def run(folder: Path, prompts: Dataset, responses: Dataset, **reward: Any) -> Result:
    values = {"quality": "reward_model", "learnability": "none", "alpha": 0, "reward_model": reward}
    return score.run(
        read_section(score.Settings, values, "score"),
        Context(seed=0, work_dir=folder, teachers=(Teacher(name="terse"), Teacher(name="long"))),
        prompts=prompts,
        responses=responses,
    )


def quality(result: Result) -> list[float | None]:
    assert isinstance(result.data, Dataset)
    return list(result.data["quality_raw"])


def test_the_second_student_is_not_judged_again(
    tmp_path: Path, root: Path, judge: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo = root / "recipes" / "tiny" / "zoo"
    recipe = {
        "namespace": "tiny",
        "name": "judged",
        "until": "score",
        "teachers": [{"name": name, "model": str(zoo / name)} for name in ("gemma-terse", "llama-verbal")],
        "students": [{"name": name, "model": str(zoo / name)} for name in ("qwen-student", "gemma-md")],
        "strategies": ["persyn"],
        "prompts": {
            "path": str(root / "recipes" / "tiny" / "prompts.jsonl"),
            "columns": {"prompt": "question"},
            "calibration": 4,
            "dev": 2,
            "pool": 1,
        },
        "generate": {"samples": 1, "max_tokens": 16},
        "score": {
            "quality": "reward_model",
            "reward_model": {"model": str(judge), "batch_tokens": 300, "max_length": 256},
            "batch_tokens": 300,
        },
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    counted = {"judged": 0, "measured": 0}

    def count(module: Any, name: str, plain: Any) -> None:
        def counting(scorer: Any, turns: Any) -> Any:
            counted[name] += len(turns)
            return plain(scorer, turns)

        monkeypatch.setattr(module, "_score_batch", counting)

    count(reward_model, "judged", reward_model._score_batch)
    count(likelihood, "measured", likelihood._score_batch)
    assert main(["run", str(path), "--store", str(tmp_path / "store")]) == 0
    assert counted == {"judged": 12, "measured": 24}
    tables = [
        Store(tmp_path / "store").get(f"tiny/judged-rewards-{name}@v1").manifest.counts
        for name in ("qwen-student", "gemma-md")
    ]
    assert [table["unjudged"] for table in tables] == [0, 0]
    from persyn_hf import load_artifact

    rewards = [
        load_artifact(f"tiny/judged-rewards-{name}@v1", store=tmp_path / "store")
        for name in ("qwen-student", "gemma-md")
    ]
    columns = [[row for split in table.values() for row in split["quality_raw"]] for table in rewards]
    assert columns[0] == columns[1]
    assert len(set(columns[0])) > 6


def test_reasoning_is_not_judged_and_too_long_answers_neither(tmp_path: Path, judge: Path) -> None:
    prompts, responses = answers(6)
    plain = quality(run(tmp_path / "plain", prompts, responses, model=str(judge), max_length=256))
    thinking = responses.map(lambda row: {"reasoning": "let me think", "response": row["response"]})
    thinking = thinking.cast(responses.features)
    assert thinking["reasoning"][0] == "let me think"
    assert quality(run(tmp_path / "thinking", prompts, thinking, model=str(judge), max_length=256)) == plain
    short = run(tmp_path / "short", prompts, responses, model=str(judge), max_length=60)
    assert short.counts["unjudged"] == quality(short).count(None) > 0
    assert [a for a, b in zip(quality(short), plain, strict=True) if a not in (None, pytest.approx(b, abs=1e-4))] == []


def test_a_server_is_asked_once(tmp_path: Path) -> None:
    prompts, responses = answers(6)
    with ClassifyServer(lambda text, times: classification(len(text) / 8), models=("rm",)) as server:
        reward = {"model": "rm", "server": {"urls": [server.url]}}
        found = quality(run(tmp_path, prompts, responses, **reward))
        assert sorted(found) == sorted(len(text) / 8 for text in responses["response"])
        assert quality(run(tmp_path, prompts, responses, **reward)) == found
        assert len(server.bodies) == 12
        assert quality(run(tmp_path, prompts, responses, **reward, revision="other")) == found
        assert len(server.bodies) == 24


@pytest.mark.parametrize(
    ("preset", "model"),
    [
        ("skywork-v2-8b", "Skywork/Skywork-Reward-V2-Llama-3.1-8B"),
        ("skywork-v2-3b", "Skywork/Skywork-Reward-V2-Llama-3.2-3B"),
    ],
)
def test_presets_are_parts_of_a_recipe(root: Path, tmp_path: Path, preset: str, model: str) -> None:
    parents = [
        str(root / "recipes" / "tiny" / "demo.yaml"),
        str(root / "recipes" / "reward-models" / f"{preset}.yaml"),
    ]
    (tmp_path / "recipe.yaml").write_text(json.dumps({"extends": parents, "name": "judged"}))
    recipe = load_recipe(tmp_path / "recipe.yaml")
    settings = read_section(score.Settings, recipe.score, "score")
    assert settings.quality == "reward_model"
    assert (
        settings.reward_model
        == score.Settings.model_validate(
            {"quality": "reward_model", "reward_model": {"model": model, "dtype": "bfloat16", "max_length": 16384}}
        ).reward_model
    )


def test_a_reward_model_that_nobody_asks_is_refused() -> None:
    with pytest.raises(RecipeError) as error:
        read_section(score.Settings, {"reward_model": {"model": "m"}}, "score")
    assert str(error.value) == (
        "score: `quality: reward_model` and `reward_model: {model: ...}` belong together, found only one of them; "
        "give both, or another `quality`"
    )
