"""A report as files: markdown, CSV, and figures as PNG and SVG. What recipes share comes first, then each alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from persyn_hf.backends.journal import read_spent
from persyn_hf.report.experiment_figures import experiment_figures
from persyn_hf.report.figures import save_figure, write_figures
from persyn_hf.report.outcomes import Part, outcomes
from persyn_hf.report.result_tables import experiment_tables
from persyn_hf.report.run_tables import summary
from persyn_hf.report.student_agreement import students
from persyn_hf.report.tables import Table
from persyn_hf.report.teachers import draw_teachers, measured, teacher_table
from persyn_hf.store.local import Store


class Written(NamedTuple):
    """The report that was written: its first file, and how many tables and figures it has."""

    path: Path
    tables: int
    figures: int


def part_tables(part: Part, store: Store) -> list[Table]:
    """Return the tables that concern one recipe alone."""
    recipe, stored = part
    manifests = {key: item.manifest for key, item in stored.items()}
    tables = summary(recipe, manifests, read_spent(store.journal, recipe.full_name))
    of_teachers = [teacher_table(measured(store, stored, each, recipe.teachers), each) for each in recipe.students]
    compared = students(recipe, store, stored)
    return [*(table for table in of_teachers if table.rows), *tables, *([compared] if compared.rows else [])]


def write_report(parts: Sequence[Part], store: Store, folder: Path) -> Written:
    """Write `report.md` with its tables as CSV and its figures into a folder.

    With several recipes, `report.md` holds what they share, and each recipe gets a folder of its own for the rest.

    Args:
        parts: the recipes, with what is stored of each.
        folder: made where it is not there; files of an earlier report are overwritten.
    """
    folder.mkdir(parents=True, exist_ok=True)
    compared = outcomes(parts, store)
    tables, figures = experiment_tables(parts, compared), []
    for name, figure in experiment_figures(compared).items():
        figures += save_figure(figure, folder / name)
    names = list(dict.fromkeys(part.recipe.name for part in parts))
    text = [f"# {', '.join(names)}", *_written(tables, figures, folder)]
    num_tables, num_figures = len(tables), len(figures)
    for number, part in enumerate(parts, 1):
        own = folder if len(parts) == 1 else folder / f"{number}-{part.recipe.name}"
        own.mkdir(exist_ok=True)
        tables = part_tables(part, store)
        figures = write_figures(part.recipe, {key: item.manifest for key, item in part.stored.items()}, own)
        for student in part.recipe.students:
            found = measured(store, part.stored, student, part.recipe.teachers)
            if found.drawable:
                figures += save_figure(draw_teachers(found, student), own / f"teachers-{student.name}")
        below = _written(tables, figures, own)
        if len(parts) == 1:
            text += below
        else:
            whom = ", ".join(student.name for student in part.recipe.students)
            text.append(f"[{part.recipe.name}: {whom}]({own.name}/report.md)")
            _write(own / "report.md", [f"# {part.recipe.name}", *below])
        num_tables, num_figures = num_tables + len(tables), num_figures + len(figures)
    _write(folder / "report.md", text)
    return Written(folder / "report.md", num_tables, num_figures)


def _written(tables: Sequence[Table], figures: Sequence[Path], folder: Path) -> list[str]:
    """Write tables as CSV, and return tables and figures as parts of a Markdown text."""
    for table in tables:
        (folder / f"{table.name}.csv").write_text(table.csv(), encoding="utf-8")
    shown = [f"![{figure.stem}]({figure.name})" for figure in figures if figure.suffix == ".png"]
    return [*(table.markdown() for table in tables), *shown]


def _write(path: Path, parts: Sequence[str]) -> None:
    """Write the parts of a Markdown text, with an empty line between them."""
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
