"""Prepare the documentation for the site, and look over the pages that were made of it.

`python docs/tools/site.py stage` copies docs/ to build/site-src, and with it every file of the repository that a page
leads to: a page that leaves docs/ for `../recipes/README.md` finds it on the site as `repo/recipes/README.md`, and a
recipe or a script becomes a page of its own. `python docs/tools/site.py check` reads every page in build/site: each
link leads to a file and an anchor, nothing is loaded from another server, and no list or table is left as plain text.
"""

import re
import shutil
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from os.path import normpath, relpath
from pathlib import Path
from urllib.parse import unquote, urlsplit


ROOT = Path(__file__).resolve().parents[2]
SOURCE, SITE = ROOT / "build" / "site-src", ROOT / "build" / "site"
FENCED = re.compile(r"^(`{3,}).*?^\1$", flags=re.DOTALL | re.MULTILINE)
LINK = re.compile(r'(\]\(|(?:src|href)=")(?!\w+:|#)([^)\s"#]+)')
MARKER = re.compile(r"^<!--.*?-->\n", flags=re.MULTILINE)  # for tests and scripts; a table behind it would be text
CODE = {".yaml": "yaml", ".py": "python", ".sbatch": "bash", ".jinja": "jinja", ".toml": "toml", ".cfg": "ini"}
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
OUTSIDE = re.compile(r"(?:url\(['\"]?|@import\s+['\"])(https?:[^)'\"]+)")
LEFT_AS_TEXT = re.compile(r"^(?:[-*] |1\. |\|.*\|$)", flags=re.MULTILINE)


def staged(path: str) -> str:
    """Return where a file of the repository lies on the site: docs/router.md as router.md, others under repo/."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"repo/{path}.md" if Path(path).suffix in CODE else f"repo/{path}"


def stage() -> None:
    """Copy the pages, and all that they lead to, to build/site-src."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    waiting = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").rglob("*.md"))]
    seen = set(waiting)
    while waiting:
        path = waiting.pop()
        target = SOURCE / staged(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        language = CODE.get(Path(path).suffix)
        if language is not None:
            target.write_text(f"# {path}\n\n````{language}\n{(ROOT / path).read_text('utf-8')}````\n", "utf-8")
        elif path.endswith(".md"):
            text, found = rewritten(path)
            target.write_text(text, "utf-8")
            waiting += sorted(found - seen)
            seen |= found
        else:
            shutil.copyfile(ROOT / path, target)


def rewritten(path: str) -> tuple[str, set[str]]:
    """Return the text of a page with links as the site needs them, and the files that it leads to."""
    found: set[str] = set()

    def rewrite(link: re.Match[str]) -> str:
        leads = normpath(f"{Path(path).parent}/{unquote(link[2])}")
        if not (ROOT / leads).is_file():
            sys.exit(f"{path}: {link[2]} is no file; the site can only show files")
        found.add(leads)
        return link[1] + relpath(staged(leads), Path(staged(path)).parent)

    text = re.sub(r"\A---\n.*?\n---\n", "", (ROOT / path).read_text("utf-8"), flags=re.DOTALL)  # of a card or a Space
    parts, end = [], 0
    for block in FENCED.finditer(text):
        parts += [LINK.sub(rewrite, MARKER.sub("", text[end : block.start()])), block[0]]
        end = block.end()
    return "".join([*parts, LINK.sub(rewrite, MARKER.sub("", text[end:]))]), found


class Page(HTMLParser):
    """What a page that was made leads to, loads and holds."""

    def __init__(self, text: str) -> None:
        """Read the page."""
        super().__init__()
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.paragraphs: list[str] = []
        self._is_in_one = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note anchors, links and what is loaded."""
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag in LOADED and LOADED[tag] in given and given.get("rel") != "canonical":
            self.loads.add(given[LOADED[tag]])
        if tag == "a" and "href" in given:
            self.links.add(given["href"])
        if tag == "p":
            self.paragraphs.append("")
            self._is_in_one = True

    def handle_data(self, data: str) -> None:
        """Note the text of a paragraph."""
        if self._is_in_one:
            self.paragraphs[-1] += data

    def handle_endtag(self, tag: str) -> None:
        """End a paragraph."""
        self._is_in_one = self._is_in_one and tag != "p"


def faults(site: Path) -> Iterator[str]:
    """Yield a sentence for everything that is wrong in the pages of a site."""
    pages = {path: Page(path.read_text("utf-8")) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        name = path.relative_to(site)
        for link in sorted(page.links | page.loads):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if link in page.loads and parts.scheme != "data":
                    yield f"{name} loads {link} from another server"
                continue
            base = site if link.startswith("/") else path.parent  # only 404.html has links from the root
            target = base / unquote(parts.path).lstrip("/") if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                yield f"{name}: {link} leads to no file"
            elif parts.fragment and not _has(pages.get(Path(normpath(target))), unquote(parts.fragment)):
                yield f"{name}: {link} leads to no anchor"
        for text in page.paragraphs:
            if left := LEFT_AS_TEXT.search(text.strip()):
                yield f"{name}: a list or table needs an empty line before it: {text.strip()[left.start() :][:60]}"
    for sheet in sorted(site.rglob("*.css")):
        for url in OUTSIDE.findall(sheet.read_text("utf-8")):
            yield f"{sheet.relative_to(site)} loads {url} from another server"


def _has(page: Page | None, anchor: str) -> bool:
    return page is None or anchor in page.anchors


def main() -> int:
    """Do what the command line says."""
    if sys.argv[1:] == ["stage"]:
        stage()
        return 0
    if sys.argv[1:] == ["check"]:
        found = [*faults(SITE)]
        pages = sum(1 for _ in SITE.rglob("*.html"))
        sys.stdout.write("\n".join([*found, f"{pages} pages, {len(found)} faults\n"]))
        return 1 if found or not pages else 0
    sys.exit("usage: python docs/tools/site.py stage | check")


if __name__ == "__main__":
    sys.exit(main())
