"""The fenced blocks of the documentation, and how they are run.

A page that begins with `<!-- run: ... -->` has its bash and Python blocks run in order, in one folder. A single block
is run with `<!-- run -->` on the line before it. What cannot run here says why: `<!-- not run: needs a GPU -->`. There
is no third way: `test_every_block_is_run_or_says_why_not`.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


ROOT = Path(__file__).parents[2]
SHOWN = ("text", "jinja")  # neither run nor read
FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", flags=re.DOTALL | re.MULTILINE)
WHOLE_PAGE = re.compile(r"\A<!-- run: .+ -->\n")
ALONE = re.compile(r"<!-- (?P<what>run|not run: (?P<why>.+)) -->\n\Z")
OWN_TEST = {"docs/python.md": "tests/test_python_docs.py"}  # which runs its examples


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced block. `why` says why it is not run, and is empty where it is run; None: nothing was said."""

    page: str
    line: int
    language: str
    text: str
    why: str | None
    shown: str  # what the page shows as its output

    @property
    def where(self) -> str:
        """Return where it stands, for messages."""
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """List the pages for people: those at the top, docs/, and the guides beside recipes, metrics and the Space."""
    beside = ("recipes", "metrics")
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "spaces/allocations/README.md"]
    return sorted({*found, *(page for folder in beside for page in ROOT.glob(f"{folder}/**/*.md"))})


def blocks() -> Iterator[Block]:
    """Yield all blocks of all pages, in order."""
    for path in pages():
        page, text = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
        is_whole = WHOLE_PAGE.search(text) is not None or page in OWN_TEST
        for found in FENCE.finditer(text):
            said = ALONE.search(text[: found.start()])
            why = (said["why"] or "") if said else "" if is_whole else None
            after = re.match(r"\n+```text\n(.*?)^```$", text[found.end() :], flags=re.DOTALL | re.MULTILINE)
            yield Block(
                page=page,
                line=text.count("\n", 0, found.start()) + 1,
                language=found["language"],
                text=found["text"],
                why=why,
                shown=after[1] if after else "",
            )


def commands(script: str) -> Iterator[list[str]]:
    """Yield the simple commands of a shell script as words, without comments, redirections and here-documents.

    Commands in `$(...)` come last.
    """
    script = re.sub(r"\$\(\(.*?\)\)", "0", script)
    script = re.sub(r"<<'?(\w+)'?([^\n]*)\n.*?^\1$", r"\2", script, flags=re.DOTALL | re.MULTILINE)
    inner = re.findall(r"\$\(([^()]*)\)", script)
    script = re.sub(r"\$\([^()]*\)", "SUBSTITUTED", script)
    for line in [*script.replace("\\\n", " ").splitlines(), *inner]:
        try:
            words = list(_lexer(line))
        except ValueError as error:
            raise ValueError(f"{line}: {error}") from None
        command: list[str] = []
        skip = False
        for word in [*words, ";"]:
            if skip:
                skip = False
            elif set(word) <= set(";&|()"):
                if command := _without_assignments(command):
                    yield command
                command = []
            elif set(word) <= set("<>"):
                skip = True
                if command and command[-1] in ("1", "2"):
                    command.pop()
            else:
                command.append(word)


def _lexer(line: str) -> shlex.shlex:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = "#"
    return lexer


def _without_assignments(words: list[str]) -> list[str]:
    while words and (re.match(r"\w+=", words[0]) or words[0] in ("do", "exec", "for", "then")):
        if words[0] == "for":
            return []
        words = words[1:]
    return words
