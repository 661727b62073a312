"""The alpha sweep of a real run: what is stored, what is drawn, and that another alpha costs no forward pass."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from persyn_hf.backends.scoring.likelihood import LikelihoodScorer
from persyn_hf.cli.main import main
from persyn_hf.core.assignment import route
from persyn_hf.core.rewards import recombine, to_matrix
from persyn_hf.store.load import load_artifact
from persyn_hf.store.local import Store


TEACHERS = ("qwen-gen", "gemma-terse", "llama-long")


@pytest.fixture(scope="module")
def scored(heavy: None, tmp_path_factory: pytest.TempPathFactory, root: Path, zoo: Path) -> tuple[Path, Path]:
    """A recipe that was run as far as its rewards, and its store."""
    folder = tmp_path_factory.mktemp("scored")
    recipe = {
        "name": "scored",
        "until": "score",
        "teachers": [{"name": name, "model": str(zoo / name), "long_cot": name == "llama-long"} for name in TEACHERS],
        "students": [{"name": "s", "model": str(zoo / "qwen-student")}],
        "prompts": {
            "path": str(root / "recipes/tiny/prompts.jsonl"),
            "columns": {"prompt": "question", "reference": "answer"},
            "references": "math",
            **{"calibration": 12, "dev": 4, "pool": 4, "limit": 20},
        },
        "generate": {"samples": 1, "max_tokens": 120},
    }
    (folder / "scored.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["run", str(folder / "scored.yaml"), "--store", str(folder / "store")]) == 0
    return folder / "scored.yaml", folder / "store"


def report(recipe: Path, store: Path, folder: Path, *overrides: str) -> str:
    sets = [part for override in overrides for part in ("--set", override)]
    assert main(["report", str(recipe), "--store", str(store), "--out", str(folder), *sets]) == 0
    return (folder / "report.md").read_text()


def test_the_sweep_of_a_run_is_what_its_rewards_say(scored: tuple[Path, Path], tmp_path: Path) -> None:
    rewards: Any = load_artifact("local/scored-rewards-s@v1", store=scored[1])
    columns = {name: sum((rewards[split][name][:] for split in rewards), []) for name in rewards["dev"].column_names}
    sweep = Store(scored[1]).get("local/scored-rewards-s@v1").manifest.metrics["alpha"]
    assert sweep["prompts"] == 16
    here = to_matrix(columns["prompt_id"], columns["teacher"], recombine(columns, 0.4)["reward"], TEACHERS)[1]
    before = route(here).teacher
    for alpha in (0.0, 0.3, 1.0):
        again = recombine(columns, alpha)["reward"]
        matrix, raw, logprob = (
            to_matrix(columns["prompt_id"], columns["teacher"], values, TEACHERS)[1]
            for values in (again, columns["quality_raw"], columns["mean_logprob"])
        )
        best = route(matrix, stay=before).teacher
        measures = sweep["measures"][f"{alpha:g}"]
        assert measures["quality_raw"] == pytest.approx(raw[range(16), best].mean())
        assert measures["mean_logprob"] == pytest.approx(logprob[range(16), best].mean())
        assert measures["moved"] == pytest.approx((best != before).mean())
        shares = [float((best == teacher).mean()) for teacher in range(3)]
        assert sweep["allocation"][f"{alpha:g}"] == pytest.approx(dict(zip(TEACHERS, shares, strict=True)))
    quality, logprobs = ([m[key] for m in sweep["measures"].values()] for key in ("quality_raw", "mean_logprob"))
    assert quality[0] == max(quality) and logprobs[-1] == max(logprobs), "each end is best at what it chooses by"
    text = report(*scored, tmp_path)
    assert f"| quality | {quality[0]:.3f} |" in text and f"| {logprobs[-1]:.3f} |" in text
    table = (tmp_path / "alpha-s.csv").read_text().splitlines()
    assert table[0] == "alpha,0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1"
    assert [line.split(",")[0] for line in table[1:]] == [
        *TEACHERS,
        "quality",
        "log-prob per token",
        "teachers",
        "several best",
        "moved",
    ]
    assert float(table[4].split(",")[1]) == quality[0] and float(table[5].split(",")[-1]) == logprobs[-1]
    assert (
        "moved: prompts whose teacher at the recipe's alpha is no longer a best one, for it keeps a prompt wherever "
        "it still is"
    ) in text
    assert "on 16 measured prompts (alpha here: 0.4)" in text and "![alpha-s](alpha-s.png)" in text
    drawn = (tmp_path / "alpha-s.svg").read_text()
    for label in ("llama-long (Long-CoT)", "qwen-gen", "this recipe", "mean log-prob per token", "best teacher of 16"):
        assert label in drawn
    card = (Store(scored[1]).get("local/scored-rewards-s@v1").path / "README.md").read_text()
    assert (
        "### alpha\n" in card and "|  | effective\\_teachers | mean\\_logprob | moved | quality\\_raw | tied |" in card
    )


def test_another_alpha_costs_no_forward_pass(
    scored: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(LikelihoodScorer, "__init__", lambda *_, **__: pytest.fail("the student was loaded again"))
    recipe, store = map(str, scored)
    assert main(["run", recipe, "--store", store, "--set", "score.alpha=0.3", "--set", "until=score"]) == 0
    assert "\nall steps are done: 1 run now, 3 reused" in capsys.readouterr().out
    first, second = (Store(store).get(f"local/scored-rewards-s@{tag}") for tag in ("v1", "v2"))
    assert (first.manifest.settings["alpha"], second.manifest.settings["alpha"]) == (0.4, 0.3)
    before, after = (Store(store).read_dataset(item)[:] for item in (first, second))
    assert after["mean_logprob"] == before["mean_logprob"] and after["reward"] != before["reward"]
    assert after == before | recombine(before, 0.3), "as the snippet of the README makes it from v1"
    assert second.manifest.metrics["alpha"] == first.manifest.metrics["alpha"], "the sweep is the same from anywhere"
    assert "(alpha here: 0.3)" in report(*scored, tmp_path, "score.alpha=0.3")


def test_the_measure_in_use_is_shown_by_its_name(scored: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, store = scored
    measure = "score.learnability=rank_surprisal"
    assert main(["run", str(recipe), "--store", str(store), "--set", measure]) == 0
    text = report(recipe, store, tmp_path, measure)
    manifests = [item.manifest for item in Store(store).artifacts() if item.repo == "local/scored-rewards-s"]
    (found,) = (one for one in manifests if one.settings["learnability"] == "rank_surprisal")
    values = [of["rank_surprisal"] for of in found.metrics["alpha"]["measures"].values()]
    assert "negative rank-surprisal: means of the chosen answers" in text and "log-prob" not in text
    line = next(line for line in (tmp_path / "alpha-s.csv").read_text().splitlines() if "rank-surprisal" in line)
    assert [float(cell) for cell in line.split(",")[1:]] == values
    assert " | ".join(["| negative rank-surprisal", *(f"{value:.3f}" for value in values)]) in text
    assert values[-1] == max(values) and values[-1] < 0
    drawn = (tmp_path / "alpha-s.svg").read_text()
    assert "mean negative rank-surprisal" in drawn and "log-prob" not in drawn


def test_without_learnability_there_is_no_sweep(scored: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, store = scored
    overrides = ["score.learnability=none", "score.alpha=0"]
    sets = [part for override in overrides for part in ("--set", override)]
    assert main(["run", str(recipe), "--store", str(store), *sets]) == 0
    assert "alpha-s" not in report(recipe, store, tmp_path, *overrides)
    assert not list(tmp_path.glob("alpha*"))
    newest = max(
        (store / "datasets--local--scored-rewards-s").glob("snapshots/*"), key=lambda path: path.stat().st_ctime
    )
    assert "alpha" not in json.loads((newest / "persyn.json").read_text())["metrics"]
