"""The pages of the repository lead where they say: links, files, modules, tests and words exist."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from doc_blocks import ROOT, pages

from persyn_hf.recipe.recipe import STAGES
from persyn_hf.recipe.strategies import KINDS
from persyn_hf.version import __version__


GUIDES = ("CONTRIBUTING.md", "docs/design.md")
FOLDERS = ("persyn_hf", "tests", "docs", "recipes", "dataset_cards", "bench", "metrics", "spaces")
WORDS = (
    *("Teacher", "Student", "Router", "Oracle", "Strategy", "Long-CoT", "Calibration", "Dev", "Pool", "Cell"),
    *(
        "Sample",
        "Labelled",
        "Anchors",
        "Learnability",
        "Reward",
        "Alpha",
        "Hit@k",
        "Tie",
        "Near-tie",
        "Regret",
        "Gap closed",
    ),
    *("Generate-then-select", "Recipe", "Store", "Artifact", "Lineage", "Journal"),
)


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """The headings of a page as the Hub and GitHub make anchors of them."""
    prose = re.sub(r"^```.*?^```", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ +(.+)$", prose, flags=re.MULTILINE)
    return {*map(anchor_of, headings)}


def anchor_of(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """The relative links of a page, and its pictures: the file, and the anchor in it ("": none)."""
    prose = re.sub(r"^```.*?^```", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r'(?:\]\(|(?:src|href)=")(?!\w+:)([^)\s"]+)[)"]', prose):
        name, _, anchor = link.partition("#")
        yield (page.parent / name if name else page), anchor


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_lead_to_a_file_and_a_heading(page: Path) -> None:
    for target, anchor in links(page):
        assert target.is_file(), f"{target}: a folder or nothing; the site can show files only"
        assert not anchor or anchor in anchors(target), f"{target.name}#{anchor}"


@pytest.mark.parametrize("guide", GUIDES)
def test_the_files_and_modules_that_a_guide_names_exist(root: Path, guide: str) -> None:
    text = text_of(root / guide)
    paths = re.findall(rf"\b(?:{'|'.join(FOLDERS)})/[\w./-]*\w", text)
    assert len(paths) >= 10
    for name in paths:
        assert "KIND" in name or (root / name).exists(), name
    for name in re.findall(r"\bpersyn_hf(?:\.\w+)+", text):
        assert (module := root / name.replace(".", "/")).is_dir() or module.with_suffix(".py").exists(), name


def test_the_tests_and_names_of_code_that_the_guide_names_exist(root: Path) -> None:
    text = text_of(root / "CONTRIBUTING.md")
    tests = "\n".join(text_of(file) for file in (root / "tests").rglob("*.py"))
    code = "\n".join(text_of(file) for file in (root / "persyn_hf").rglob("*.py"))
    named = set(re.findall(r"`(test_\w+)`", text))
    assert len(named) >= 20
    for name in named:
        assert f"def {name}(" in tests, name
    for name in set(re.findall(r"`((?:_\w+|[A-Z]+_[A-Z_]+|[a-z]+_[a-z_]+))`", text)) - named:
        assert re.search(rf"\b{name}\b", code), name


def test_make_knows_the_targets_that_the_guide_names(root: Path) -> None:
    for target in re.findall(r"\bmake ([a-z-]+)", text_of(root / "CONTRIBUTING.md")):
        assert re.search(rf"^{target}:", text_of(root / "Makefile"), flags=re.MULTILINE), target


def test_the_readme_leads_to_every_word_of_the_glossary(root: Path) -> None:
    glossary = root / "docs" / "glossary.md"
    assert sorted(re.findall(r"^### (.+)$", text_of(glossary), flags=re.MULTILINE)) == sorted(WORDS)
    linked = {anchor for target, anchor in links(root / "README.md") if target == glossary}
    assert {*map(anchor_of, WORDS)} <= linked


def test_the_method_names_every_stage_and_strategy(root: Path) -> None:
    for name in (*STAGES, *KINDS):
        assert re.search(rf"^\|[^|]*`{name}`[^|]*\|", text_of(root / "docs/method.md"), flags=re.MULTILINE), name


def test_the_readme_is_short(root: Path) -> None:
    assert len(text_of(root / "README.md").splitlines()) <= 150


def test_every_page_is_on_the_site_and_in_the_readme(root: Path) -> None:
    nav = set(re.findall(r'= "([\w/-]+\.md)"', text_of(root / "zensical.toml")))
    names = {page.relative_to(root / "docs").as_posix() for page in (root / "docs").rglob("*.md")}
    assert names <= nav, "zensical.toml: nav"
    linked = {target.resolve() for target, _ in links(root / "README.md")}
    assert {root / "docs" / name for name in names} <= linked


def test_the_files_of_the_tree_in_the_design_exist(root: Path) -> None:
    _, _, after = text_of(root / "docs/design.md").partition("```text\npersyn_hf/\n")
    tree = "persyn_hf/\n" + after.partition("```")[0]
    names = re.findall(r"^( *)((?:[\w.]+[/ ])+)", tree, flags=re.MULTILINE)
    assert len(names) >= 10
    for indent, listed in names:
        for name in listed.split():
            if "." in name or name.endswith("/"):
                assert (root / ("persyn_hf" if indent else "") / name).exists(), name


def test_the_release_has_one_number(root: Path) -> None:
    citation = yaml.safe_load(text_of(root / "CITATION.cff"))
    (number, date) = re.findall(r"^## (\S+), (\S+)$", text_of(root / "CHANGELOG.md"), flags=re.MULTILINE)[0]
    assert citation["version"] == number == __version__
    assert str(citation["date-released"]) == date


def test_issue_templates_are_forms_that_github_takes(root: Path) -> None:
    forms = [path for path in (root / ".github/ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml"]
    assert len(forms) == 2
    for path in forms:
        form = yaml.safe_load(text_of(path))
        assert {"name", "description", "body"} == form.keys()
        assert all(part["type"] == "textarea" and part["attributes"]["label"] for part in form["body"])
        assert len({part["id"] for part in form["body"]}) == len(form["body"])
