"""The page of commands is current; the site holds what pages lead to, and its check finds what is wrong."""

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest


def tool(root: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"docs_{name}", root / "docs" / "tools" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_commands_is_current(root: Path) -> None:
    page = (root / "docs" / "cli.md").read_text(encoding="utf-8")
    assert page == tool(root, "cli_page").commands_page(), "make reference"


@pytest.fixture
def site(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The tool, for a small repository."""
    module = tool(root, "site")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "SOURCE", tmp_path / "build" / "site-src")
    (tmp_path / "docs" / "how-to").mkdir(parents=True)
    (tmp_path / "docs" / "index.md").write_text("# Home\n[deep](how-to/deep.md#a), [web](https://a.b), ![p](p.png)\n")
    (tmp_path / "docs" / "p.png").write_bytes(b"picture")
    (tmp_path / "docs" / "how-to" / "deep.md").write_text(
        "<!-- not run: a marker -->\n```bash\ncat ](../../x.md)\n```\n"
        '[r](../../recipes/a.yaml) [me](#a) <img src="../p.png"> [guide](../../CONTRIBUTING.md#set-up)\n'
    )
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "a.yaml").write_text("name: a\n")
    (tmp_path / "CONTRIBUTING.md").write_text("# Set up\n[home](docs/index.md)\n")
    return module


def test_pages_and_what_they_lead_to_are_staged(site: ModuleType, tmp_path: Path) -> None:
    site.stage()
    staged = tmp_path / "build" / "site-src"
    names = {path.relative_to(staged).as_posix() for path in staged.rglob("*") if path.is_file()}
    assert names == {"index.md", "p.png", "how-to/deep.md", "repo/recipes/a.yaml.md", "repo/CONTRIBUTING.md"}
    assert (staged / "how-to" / "deep.md").read_text() == (
        "```bash\ncat ](../../x.md)\n```\n"
        '[r](../repo/recipes/a.yaml.md) [me](#a) <img src="../p.png"> [guide](../repo/CONTRIBUTING.md#set-up)\n'
    )
    assert "[home](../index.md)" in (staged / "repo" / "CONTRIBUTING.md").read_text()
    assert (staged / "repo/recipes/a.yaml.md").read_text() == "# recipes/a.yaml\n\n````yaml\nname: a\n````\n"


def test_a_link_to_a_folder_or_to_nothing_ends_the_staging(site: ModuleType, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "recipes")
    with pytest.raises(SystemExit, match=r"docs/how-to/deep\.md: \.\./\.\./recipes/a\.yaml is no file"):
        site.stage()


def test_the_check_names_what_is_wrong(root: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "index.html").write_text("<h1 id='here'>Other</h1>")
    (tmp_path / "a.css").write_text("b{background:url(https://fonts.example/x.woff)}")
    (tmp_path / "index.html").write_text(
        "<link href='a.css' rel=stylesheet><script src='https://cdn.example/x.js'></script>"
        "<a href='other/#here'>good</a><a href='other/#gone'>bad</a><a href='none.html'>bad</a>"
        "<a href='https://elsewhere.example'>a link is no request</a><p>It says:\n- one</p><p>fine</p>"
        "<h2>1. A title</h2>"
    )
    assert list(tool(root, "site").faults(tmp_path)) == [
        "index.html loads https://cdn.example/x.js from another server",
        "index.html: none.html leads to no file",
        "index.html: other/#gone leads to no anchor",
        "index.html: a list or table needs an empty line before it: - one",
        "a.css loads https://fonts.example/x.woff from another server",
    ]
