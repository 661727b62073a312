"""The router bench of a real run, from the recipe to tables, figures and the router's card."""

import csv
from pathlib import Path

import pytest

from persyn_hf.cli.main import main
from persyn_hf.report.router_comparison import _learning_curve
from persyn_hf.store.local import Store


BENCH = (
    "until=train_router",
    "strategies=[persyn]",
    "train_router={kind: auto, candidates: [knn, logistic, global_best], seeds: 2, curve: [10, 25]}",
)
SETS = [part for override in BENCH for part in ("--set", override)]
LEARNED = {"knn over tfidf", "logistic over tfidf"}


@pytest.fixture(scope="module")
def ran(heavy: None, tmp_path_factory: pytest.TempPathFactory, root: Path) -> tuple[Path, Path]:
    """Store and report of 100 questions that two real models answered; learnability left out."""
    store, out = (tmp_path_factory.mktemp(name) for name in ("store", "report"))
    recipe = str(root / "recipes/real/model-results.yaml")
    assert main(["run", recipe, "--store", str(store), *SETS]) == 0
    assert main(["report", recipe, "--store", str(store), "--out", str(out), *SETS]) == 0
    return store, out


def rows(file: Path) -> dict[str, dict[str, str]]:
    with file.open(newline="") as stream:
        return {row["router"]: row for row in csv.DictReader(stream)}


def test_the_table_has_every_candidate_beside_its_bars(ran: tuple[Path, Path]) -> None:
    store, out = ran
    bench = rows(out / "router-bench-any.csv")
    assert list(bench)[2:] == ["global best", "random", "oracle"] and set(list(bench)[:2]) == LEARNED
    assert list(bench["oracle"]) == [
        *("router", "Hit@1", "Hit@3", "Hit@5", "regret", "NDCG@3", "tau", "pairs", "JS"),
        *("ECE", "at T", "train s", "prompts/s"),
    ]
    assert bench["oracle"]["regret"] == "0" and bench["oracle"]["train s"] == ""
    assert bench["knn over tfidf"]["ECE"] == "" and bench["knn over tfidf"]["at T"] != ""
    text = (out / "report.md").read_text()
    assert any(line.startswith("| oracle | ") and "| 0.000 |" in line for line in text.splitlines())
    assert any(line.startswith("| knn over tfidf | ") and "| – |" in line for line in text.splitlines())
    assert float(bench["logistic over tfidf"]["ECE"]) < 0.6
    assert float(bench["knn over tfidf"]["prompts/s"]) > 10
    manifest = Store(store).get("real/model-results-router-any@v1").manifest
    means = manifest.metrics["comparison"]["means"]
    assert float(bench["knn over tfidf"]["regret"]) == means["knn over tfidf"]["regret"]
    assert f"| {means['knn over tfidf']['regret']:.3f} |" in text
    regrets = [float(row["regret"]) for row in bench.values()]
    assert regrets[0] <= regrets[1]


def test_differences_are_paired_with_global_best_and_with_the_best(ran: tuple[Path, Path]) -> None:
    found = rows(ran[1] / "router-differences-any.csv")
    best = next(iter(found))
    assert best in LEARNED
    for one, column in (
        ("global best", "gap closed"),
        ("global best", "reward over global best"),
        (best, "reward over the best"),
    ):
        assert [found[one][column + end] for end in ("", " low", " high")] == ["0", "0", "0"]
    assert "| 0.00 [0.00, 0.00] | +0.0000 [+0.0000, +0.0000] |" in (ran[1] / "report.md").read_text()


def test_curve_and_reliability_as_tables_and_figures(ran: tuple[Path, Path]) -> None:
    _, out = ran
    curve = rows(out / "learning-curve-any.csv")
    assert "| 0 (0 to 0) |" in (out / "report.md").read_text()
    columns = [f"{size}{end}" for size in ("10", "25", "50") for end in ("", " low", " high")]
    assert list(curve["global best"]) == ["router", *columns] and set(curve) == {*LEARNED, "global best"}
    assert [curve["global best"][column] for column in columns[-3:]] == ["0", "0", "0"]
    with (out / "reliability-any.csv").open(newline="") as stream:
        reliability = list(csv.DictReader(stream))
    pairs = [name for name in reliability[0] if name.startswith("pairs, ")]
    assert len(pairs) == 1 and sum(int(row[pairs[0]]) for row in reliability) == 2 * 30
    text = (out / "report.md").read_text()
    for name in ("learning-curve", "reliability"):
        assert f"![{name}-any]({name}-any.png)" in text
        assert (out / f"{name}-any.svg").stat().st_size > 3000


def test_a_folder_that_cannot_be_written(
    ran: tuple[Path, Path], root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "report"
    recipe = str(root / "recipes/real/model-results.yaml")
    assert main(["report", recipe, "--store", str(ran[0]), "--out", str(out), *SETS]) == 2
    assert capsys.readouterr().err == (
        f"error: the folder {out} cannot be written (Not a directory); make room or name another with --out\n"
    )


def test_steps_stand_below_the_curve() -> None:
    gap = {"llm": {"10": 0.25, "50": 0.5}, "knn over tfidf": {"10": 0.0, "50": None}}
    curve = {**dict.fromkeys(("mean", "lowest", "highest"), gap), "steps": {"llm": {"10": 4.0, "50": 1234.5}}}
    table = _learning_curve("s", curve, ["knn over tfidf", "llm", "global_best"])
    assert table.rows == [
        ["knn over tfidf", "0 (0 to 0)", "–"],
        ["llm", "25 (25 to 25)", "50 (50 to 50)"],
        ["steps of llm", "4", "1,234"],
    ]
    assert table.note.endswith("; steps: optimiser steps, mean over the trainings")


def test_the_card_shows_it_and_its_times_are_no_part_of_the_digest(ran: tuple[Path, Path]) -> None:
    stored = Store(ran[0]).get("real/model-results-router-any@v1")
    card = (stored.path / "README.md").read_text()
    assert "It was chosen among 3 candidates; `comparison`" in card
    for name in ("learning-curve", "reliability"):
        assert f"]({name}.png)" in card and (stored.path / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    assert "### candidates\n\n|  | prompts\\_per\\_s | training\\_s |" in card
    other = stored.manifest.model_copy(update={"cost": {}})
    assert other.content_digest() == stored.digest
