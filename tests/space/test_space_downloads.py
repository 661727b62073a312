"""The files that a page offers hold what is seen, and say so in their names, titles and numbers."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

import pytest
from PIL import Image
from space_samples import MANY, NUMBER, POOL, STUDENTS, assignments, fill, prompts

from persyn_hf.errors import InputError
from persyn_hf.recipe.roles import Teacher
from persyn_hf.space import downloads, pages, thumbnail
from persyn_hf.space.collection import open_shelf
from persyn_hf.space.database import Database
from persyn_hf.space.events import Desk
from persyn_hf.store.local import Store


@pytest.fixture(scope="module")
def desk(database: Database) -> Desk:
    return Desk(database.shelf)


def made(desk: Desk, name: str, address: str = "") -> tuple[str, bytes]:
    """The name and the content of a file for an address."""
    state, wrong = desk.read(parse_qs(address, keep_blank_values=True))
    assert not wrong
    file = downloads.make(name, desk.scene(state))
    return file.name, b"".join(file.content)


def table(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode())))


def picture(content: bytes) -> tuple[tuple[int, int], str]:
    opened: Any = Image.open(io.BytesIO(content))
    return opened.size, opened.text["Title"]


def test_the_csv_of_a_split_is_its_counts(desk: Desk) -> None:
    name, content = made(desk, "allocation.csv", "split=calibration")
    assert name == "allocation-s-persyn-calibration.csv"
    counts = Counter(row["teacher"] for row in assignments("persyn") if row["split"] == "calibration")
    rows = [row for row in table(content) if row["assignment"] == "org/assignments-s-persyn@v1"]
    assert {row["teacher"]: int(row["prompts"]) for row in rows} == {one: counts[one] for one in POOL}
    assert [row["share"] for row in rows] == [f"{counts[one] / sum(counts.values()):.6f}" for one in POOL]


def test_the_csv_by_topic_is_every_cell(desk: Desk) -> None:
    name, content = made(desk, "allocation.csv", "split=all&by=topic&with=")
    assert name == "allocation-s-persyn-all-topic.csv"
    topics = {prompt["prompt_id"]: prompt["topic"] or "none" for prompt in prompts()}
    counts = Counter((topics[row["prompt_id"]], row["teacher"]) for row in assignments("persyn"))
    found = {(row["group"], row["teacher"]): int(row["prompts"]) for row in table(content)}
    # a spreadsheet would take "=products" for a formula
    assert {(group.removeprefix("'"), one): n for (group, one), n in found.items() if n} == dict(counts)
    assert {group for group, _ in found} == {"sums", "'=products", "none"}


@pytest.mark.parametrize(
    ("address", "name", "title"),
    [
        ("", "allocation-s-persyn-pool.png", "Who teaches s: shares of the pool's prompts"),
        ("split=all", "allocation-s-persyn-all.png", "Who teaches s: shares of all prompts"),
        (
            "split=calibration&by=topic",
            "allocation-s-persyn-calibration-topic.png",
            "Who teaches s: shares of the calibration's prompts, by topic",
        ),
    ],
)
def test_the_png_is_called_what_it_shows(desk: Desk, address: str, name: str, title: str) -> None:
    called, content = made(desk, "allocation.png", address)
    assert called == name and picture(content)[1] == title


def test_the_png_has_a_panel_per_group_and_a_bar_per_assignment(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    kept: list[Any] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: (kept.append(figure), save(figure, *a, **k)))
    made(desk, "allocation.png", "split=all&by=split")
    panels = kept[0].get_axes()
    assert [axes.get_title(loc="left") for axes in panels] == ["pool", "calibration"]
    for axes in panels:
        assert [label.get_text() for label in axes.get_yticklabels()] == ["persyn", "strong"]
        widths = [round(sum(bar.get_width() for bar in bars), 6) for bars in zip(*axes.containers, strict=True)]
        assert widths == [1, 1]
    assert panels[-1].get_xlabel() == "share of all prompts"


def test_the_listed_prompts_are_saved_in_their_order_as_csv_and_jsonl(desk: Desk) -> None:
    address = "view=prompts&split=all&teacher=large&sort=margin"
    rows = [row for row in assignments("persyn") if row["teacher"] == "large"]
    ids = [row["prompt_id"] for row in sorted(rows, key=lambda row: row["margin"])]
    _, content = made(desk, "prompts.jsonl", address)
    lines = [json.loads(line) for line in content.decode().splitlines()]
    assert [line["prompt_id"] for line in lines] == ids
    assert [row["prompt_id"] for row in table(made(desk, "prompts.csv", address)[1])] == ids
    assert len(table(made(desk, "prompts.csv", "split=all")[1])) == NUMBER


def test_a_file_that_there_is_not(desk: Desk) -> None:
    with pytest.raises(InputError, match=r"there is no file `\.\./x`, there are allocation.csv"):
        made(desk, "../x")


# The picture of a link


def test_the_picture_of_a_link_is_as_large_as_sites_take_and_kept(desk: Desk) -> None:
    state, _ = desk.read({})
    first = desk.thumbnail(state)
    assert picture(first) == ((1200, 630), "Who teaches s?")
    assert Image.open(io.BytesIO(first)).text["Description"] == "persyn: 40 prompts of the pool, 3 teachers"
    assert desk.thumbnail(desk.read({"view": ["cost"], "teacher": ["large"]})[0]) is first
    assert desk.thumbnail(desk.read({"split": ["all"]})[0]) != first


@pytest.mark.parametrize("teachers", [MANY, MANY[:1]])
def test_the_picture_of_many_and_of_one_holds_its_texts(teachers: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    kept: list[Any] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: (kept.append(figure), save(figure, *a, **k)))
    pool = [Teacher.model_construct(**one) for one in teachers]
    shares = {one.name: (number + 1) / sum(range(len(pool) + 1)) for number, one in enumerate(pool)}
    thumbnail.draw("a-student-with-a-name-of-42-characters-$1$", "strong: 5 prompts for $5$", pool, shares)
    figure = kept[0]
    renderer = FigureCanvasAgg(figure).get_renderer()
    texts = [*figure.texts, *(text for axes in figure.get_axes() for text in axes.texts)]
    for text in texts:
        box = text.get_window_extent(renderer)
        assert box.x0 >= 0 and box.x1 <= 1200 and box.y0 >= 0 and box.y1 <= 630, text.get_text()
        assert box.height >= 14, "read at a third of the size"
    said = [text.get_text() for text in texts]
    assert "Who teaches a-student-with-a-name-of-42-characters-$1$?" in said
    assert ("14 others" in said) == (len(pool) > 1)


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    store = Store(tmp_path_factory.mktemp("several") / "store")
    fill(store, students=STUDENTS)
    yield Desk(open_shelf([], store))


def test_bars_of_several_students_name_theirs(several: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    state, _ = several.read({})
    scene = several.scene(state)
    named = downloads._labels(scene, downloads._allocated(scene))
    assert len(named) == len(set(named)) == 6 and all(any(one in label for one in STUDENTS) for label in named)


def test_the_head_of_a_page_tells_sites_what_it_is(several: Desk) -> None:
    page = several.page({"view": ["cost"]}, "https://org-space.hf.space/")
    student = several.names[several.refs[0]].student
    title = f"Cost · persyn for {student} · Who teaches what"
    assert f"<title>{title}</title>" in page
    for name in ("og:title", "twitter:title"):
        assert f'"{name}" content="{title}"' in page
    for name in ("og:image", "twitter:image"):
        assert f'"{name}" content="https://org-space.hf.space/save/thumbnail.png' in page
    assert '"og:url" content="https://org-space.hf.space/?view=cost"' in page
    assert f'<link rel="icon" href="assets/{pages.assets()["favicon.svg"]}" type="image/svg+xml">' in page
