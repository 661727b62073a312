"""The report's comparison of teachers: means, intervals and agreement from stored rewards."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau

from persyn_hf.recipe.file import load_recipe
from persyn_hf.report.teachers import Measured, draw_teachers, intervals, measured, teacher_table
from persyn_hf.schemas import REWARDS
from persyn_hf.space.collection import open_folder
from persyn_hf.store.local import Store


def of_example(root: Path, tmp_path: Path) -> tuple[Measured, pd.DataFrame]:
    example = root / "spaces/allocations/example"
    recipe, shelf = load_recipe(root / "recipes/tiny/example.yaml"), open_folder(example)
    item = next(item for item in shelf.items.values() if item.kind == REWARDS.kind)
    store, student = Store(tmp_path), recipe.students[0]
    files = sorted((item.path / "data").rglob("*.parquet"))
    return measured(store, {f"rewards-{student.name}": item}, student, recipe.teachers), pd.concat(
        [pd.read_parquet(path) for path in files]
    )


def test_means_and_agreement_are_those_of_the_rows(root: Path, tmp_path: Path) -> None:
    found, rows = of_example(root, tmp_path)
    student = load_recipe(root / "recipes/tiny/example.yaml").students[0]
    table = teacher_table(found, student)
    by_teacher = rows.groupby("teacher")
    for line in table.rows:
        name, (quality, logprob, tokens, best) = line[0], (cell.numbers for cell in line[1:])
        of = by_teacher.get_group(name)
        assert quality[0] == pytest.approx(of["quality_raw"].mean())
        assert logprob[0] == pytest.approx(of["mean_logprob"].mean())
        assert tokens[0] == pytest.approx(of["num_tokens"].mean())
        ranks = of["rank"].dropna()
        assert best[0] == pytest.approx((ranks == 1).mean())
        error = of["mean_logprob"].std() / len(of) ** 0.5
        assert logprob[1:] == pytest.approx((logprob[0] - 1.96 * error, logprob[0] + 1.96 * error), abs=0.35 * error)
    taus = [
        kendalltau(of["quality_raw"], of["mean_logprob"]).statistic
        for _, of in rows.dropna(subset=["quality_raw", "mean_logprob"]).groupby("prompt_id")
    ]
    assert f"quality and learnability {np.nanmean(taus):.2f} [" in table.note


def test_an_answer_without_a_quality_counts_where_it_can(root: Path, tmp_path: Path) -> None:
    found, _ = of_example(root, tmp_path)
    student = load_recipe(root / "recipes/tiny/example.yaml").students[0]
    whole = teacher_table(found, student)
    found.columns["quality"][0, :-1] = np.nan
    found.columns["learnability"][1, 0] = np.nan
    table = teacher_table(found, student)
    assert table.rows[0][3] == whole.rows[0][3]
    assert table.rows[0][1] != whole.rows[0][1]


def test_the_figure_has_a_point_per_measured_teacher(root: Path, tmp_path: Path) -> None:
    found, _ = of_example(root, tmp_path)
    student = load_recipe(root / "recipes/tiny/example.yaml").students[0]
    found.columns["learnability"][:, 2] = np.nan
    axes = draw_teachers(found, student).axes[0]
    drawn = [text.get_text() for text in axes.texts]
    assert sorted(drawn) == sorted(teacher.name for place, teacher in enumerate(found.teachers) if place != 2)


def test_without_learnability_there_is_neither(root: Path, tmp_path: Path) -> None:
    recipe = load_recipe(root / "recipes/tiny/example.yaml")
    nothing = measured(Store(tmp_path), {}, recipe.students[0], recipe.teachers)
    assert not nothing.drawable
    assert not teacher_table(nothing, recipe.students[0]).rows
    assert np.isnan(intervals(np.full((3, 1), np.nan))).all()
