"""`persyn probe` on tables of answers: what it asks, what it says, and what it refuses."""

import csv
from pathlib import Path

import numpy as np
import pytest
import yaml

from persyn_hf.backends.journal import read_spent
from persyn_hf.cli.main import main
from persyn_hf.core.probe import Probe
from persyn_hf.core.statistics import Interval
from persyn_hf.forecast.probe import Findings
from persyn_hf.forecast.probe_tables import probe_tables, recommendation
from persyn_hf.store.local import Store


POOL = ("ann", "bob", "cat", "dan")
WORDS = {"sums": "add the numbers", "poems": "write a poem about rivers"}


def recipe(folder: Path, better: dict[str, tuple[float, ...]]) -> Path:
    """120 prompts of two kinds; `better` gives the teachers' mean quality on each."""
    rng = np.random.default_rng(0)
    with (folder / "answers.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["prompt", "model", "response", "quality"])
        for number in range(120):
            kind = ("sums", "poems")[number % 2]
            for name, mean in zip(POOL, better[kind], strict=True):
                rows.writerow([f"{WORDS[kind]} {number}", name, "x", float(rng.random() < mean)])
    content = {
        "name": "pool",
        "teachers": [{"name": name} for name in POOL],
        "students": [{"name": "any"}],
        "strategies": ["persyn"],
        "until": "assign",
        "prompts": {"path": "./answers.csv", "calibration": 100, "dev": 20},
        "generate": {
            "engine": "import",
            "path": "./answers.csv",
            "columns": {"prompt": "prompt", "teacher": "model", "response": "response", "quality": "quality"},
        },
        "score": {"quality": "column", "learnability": "none", "alpha": 0.0},
        "train_router": {"kind": "ridge"},
    }
    path = folder / "pool.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def probe(path: Path, *more: str) -> int:
    return main(["probe", str(path), "--store", str(path.parent / "store"), *more])


def test_it_says_route_where_two_teachers_share_the_kinds(
    heavy: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe(tmp_path, {"sums": (0.95, 0.1, 0.0, 0.0), "poems": (0.1, 0.9, 0.0, 0.0)})
    assert probe(path, "--cells", "200") == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1].startswith("route, with about ")
    store = Store(tmp_path / "store")
    rounds = [store.get(f"local/pool-probe-assignments-all{end}@v1").manifest for end in ("-round1", "")]
    first, last = (manifest.metrics["labelling"]["cells"] for manifest in rounds)
    assert set(first.values()) == {25}  # half of the 200 cells, four teachers
    assert sum(last.values()) in (199, 200) and last["cat"] == last["dan"] == 25  # never right, so dropped
    assert store.get("local/pool-probe-prompts@v1").manifest.counts["rows"] == 100  # neither dev nor pool
    repeated = main(["probe", str(path), "--store", str(store.root), "--cells", "200"])
    again = capsys.readouterr().out
    assert repeated == 0 and again.splitlines()[-1] == out.splitlines()[-1]
    assert again.count("reused") == 8 and "stored" not in again


def test_it_says_one_teacher_where_one_is_best_on_everything(
    heavy: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe(tmp_path, dict.fromkeys(WORDS, (0.9, 0.3, 0.2, 0.1)))
    assert probe(path) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1].startswith("one teacher will do, ann, as far as ")
    assert "4 teachers on 300 cells" in out


def test_all_cells_are_asked_where_there_are_no_more(
    heavy: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe(tmp_path, dict.fromkeys(WORDS, (0.9, 0.3, 0.2, 0.1)))
    assert probe(path, "--set", "prompts.calibration=40") == 0
    out = capsys.readouterr().out
    assert "4 teachers on 160 cells" in out and "dropped  " not in out
    assert "40 prompts with rewards" in out


def test_a_later_run_pays_for_none_of_its_answers_again(heavy: None, tmp_path: Path, root: Path, zoo: Path) -> None:
    """60 of the 72 calibration cells and the 6 dev prompts of each of three teachers."""
    content = {
        "name": "paid",
        "until": "score",
        "teachers": [{"name": name, "model": str(zoo / name)} for name in ("qwen-gen", "gemma-md", "mistral-eq")],
        "students": [{"name": "s", "model": str(zoo / "qwen-student")}],
        "prompts": {
            "path": str(root / "recipes/tiny/prompts.jsonl"),
            "columns": {"prompt": "question", "reference": "answer"},
            **{"calibration": 24, "dev": 6, "pool": 0, "limit": 30},
        },
        "generate": {"samples": 1, "max_tokens": 60},
    }
    path = tmp_path / "paid.yaml"
    path.write_text(yaml.safe_dump(content))
    assert probe(path, "--cells", "60") == 0
    assert main(["run", str(path), "--store", str(tmp_path / "store")]) == 0
    journal = Store(tmp_path / "store").state_dir / "journal.sqlite"
    paid = [read_spent(journal, f"local/paid{end}") for end in ("-probe", "")]
    probed, later = (sum(line.requests for line in of.values()) for of in paid)
    assert 58 <= probed <= 60  # a round's cells may end within a prompt
    assert probed + later == 30 * 3


@pytest.mark.parametrize(
    ("more", "word"),
    [
        (("--cells", "79"), "too few for 4 teachers"),
        (("--set", "inputs={responses: a/b@v1}"), "`inputs` pins `responses`"),
    ],
)
def test_what_cannot_be_probed_is_refused_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], word: str
) -> None:
    path = recipe(tmp_path, dict.fromkeys(WORDS, (0.9, 0.3, 0.2, 0.1)))
    assert probe(path, *more) == 2
    told = capsys.readouterr().err
    assert word in told and told.count("\n") == 1


def findings(verdict: str, enough: int) -> Findings:
    behind = [Interval(0.0, 0.0, 0.0), Interval(0.02, -0.01, 0.05), Interval(0.5, 0.4, 0.6)]
    found = Probe(
        verdict=verdict,  # type: ignore[arg-type]
        best=0,
        reward=Interval(0.8, 0.7, 0.9),
        behind=behind,
        oracle_gain=Interval(0.15, 0.1, 0.2),
        router_gain=Interval(0.06, -0.01, 0.13),
        leaves=0.4,
        chance=0.001,
        prompts=60,
        enough=enough,
    )
    return Findings(["ann", "bob", "cat"], [60, 60, 20], [True, True, False], found)


def test_the_recommendation_is_one_sentence_with_its_grounds() -> None:
    assert recommendation(findings("one teacher", 140), 0.05) == (
        "one teacher will do, ann (bob may be as good), as far as 140 cells show: a cheap router gains +0.060 "
        "(-0.010 to +0.130) of reward over it, and 0.05 would be worth it"
    )
    still = findings("unknown", 140)
    still = still._replace(found=still.found._replace(router_gain=Interval(-1e-9, -0.01, 0.06)))
    assert "gains +0.000 (-0.010 to +0.060) of reward over ann (bob may be as good)" in recommendation(still, 0.05)
    assert recommendation(findings("route", 1614), 0.05).startswith("route, with about 1,700 calibration cells: ")
    assert "probe again with --cells 1700," in recommendation(findings("unknown", 1614), 0.05)
    assert "--cells 280," in recommendation(findings("unknown", 140), 0.05)  # at least as many again


def test_the_tables_hold_the_numbers_with_their_intervals() -> None:
    teachers, gains = probe_tables(findings("route", 1614), 0.05)
    assert teachers.rows == [
        ["ann", "60", "kept", "best"],
        ["bob", "60", "kept", "+0.020 [-0.010, +0.050]"],
        ["cat", "20", "dropped", "+0.500 [+0.400, +0.600]"],
    ]
    assert [row[1] for row in gains.rows] == [
        *("0.800 [0.700, 0.900]", "+0.150 [+0.100, +0.200]", "+0.060 [-0.010, +0.130]"),
        *("40%", "0.001", "1,500"),
    ]
    assert "gain,," not in gains.csv() and "further cells for a gain known to ± 0.025,1500" in gains.csv()
