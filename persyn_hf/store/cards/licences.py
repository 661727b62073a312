"""Licences and languages: read from the cards of what an artifact is made of, and shown in its own card."""

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from persyn_hf.store.cards import markdown


# What the Hub takes as `license` (docs/hub/repositories-licenses); it refuses a card with any other word there.
_IDS = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl
lgpl-2.1 lgpl-3.0 isc lppl-1.3c ms-pl mpl-2.0 odc-by odbl openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib
pddl lgpl-lr deepfloyd-if-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 gemma h-research
intel-research apple-ascl apple-amlr fair-noncommercial-research-license eupl-1.2 unknown other
"""
HUB_LICENCES = frozenset(_IDS.split())

# What a licence's name says by itself. The card claims no more than that.
HINTS = (
    (r"nc|noncommercial|non-commercial", "non-commercial use only"),
    (r"research", "research use"),
    (r"nd", "no derivatives"),
    (r"sa", "share alike"),
    (r"llama[\d.]*|gemma|.*rail.*", "the model maker's own terms, to be read"),
)

LANGUAGE = re.compile(r"[a-z]{2,3}|code|multilingual")  # others the Hub refuses


class Source(NamedTuple):
    """The licence and the languages that the card of a dataset or model states."""

    licence: str | None = None
    languages: tuple[str, ...] = ()


@functools.lru_cache(maxsize=256)
def read_source(name: str, revision: str | None = None, repo_type: str = "model") -> Source:
    """Return the licence and languages of a local folder or of a repository of the Hub, by its README.md.

    An empty `Source` is returned where there is no card to be had, or none that can be read. The result is kept for
    the process.

    Args:
        name: a folder, or the id of a repository.
        revision: branch, tag or commit on the Hub; null: `main`.
        repo_type: `model` or `dataset`.
    """
    import httpx2
    import yaml
    from huggingface_hub.repocard import metadata_load

    try:
        card = _local_card(name, revision, repo_type)
        data = _asked(name, revision, repo_type) if card is None else metadata_load(card) or {}
    except (OSError, ValueError, yaml.YAMLError, httpx2.HTTPError):  # no such repository, no network, no metadata
        return Source()
    licences = [data.get("license_name") if word == "other" else word for word in _words(data.get("license"))]
    return Source(" and ".join(word or "other" for word in licences) or None, _words(data.get("language")))


def _local_card(name: str, revision: str | None, repo_type: str) -> Path | None:
    """Return the README.md in the folder, or in the cache of the Hub's client; None where neither has one."""
    from huggingface_hub import try_to_load_from_cache

    if Path(name).is_dir() or not markdown.HUB_ID.fullmatch(name):
        return Path(name) / "README.md"
    cached = try_to_load_from_cache(name, "README.md", repo_type=repo_type, revision=revision)
    return Path(cached) if isinstance(cached, str) else None


def _asked(name: str, revision: str | None, repo_type: str) -> Mapping[str, Any]:
    """Ask the Hub once for a card's metadata: a licence that stays unknown is no reason to wait for a second try."""
    from huggingface_hub import HfApi

    info = HfApi().dataset_info if repo_type == "dataset" else HfApi().model_info
    card = info(name, revision=revision, timeout=5).card_data
    return card.to_dict() if card is not None else {}


def _words(value: Any) -> tuple[str, ...]:
    """Return the texts of a metadata field that holds one value or a list of them."""
    return tuple(word for word in (value if isinstance(value, list) else [value]) if isinstance(word, str) and word)


def metadata(licences: Mapping[str, str | None]) -> dict[str, str]:
    """Return `license` of the front matter and, where it is `other`, `license_name`."""
    identifiers = sorted({licence or "unknown" for licence in licences.values()}) or ["unknown"]
    if len(identifiers) == 1 and identifiers[0] in HUB_LICENCES - {"other"}:
        return {"license": identifiers[0]}
    names = [re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.") or "other" for name in identifiers]
    return {"license": "other", "license_name": "-and-".join(names) if len(names) <= 3 else "several"}


def section(licences: Mapping[str, str | None]) -> str:
    """Return the licence of every source as Markdown, with a warning where they differ, are unknown or limit use."""
    if not licences:
        return "Nothing is known of the licences of its sources."
    parts = [*_warnings(licences), _table(licences)]
    return "\n\n".join(parts)


def _warnings(licences: Mapping[str, str | None]) -> Iterator[str]:
    """Yield the sentences above the table of licences."""
    identifiers = sorted({licence for licence in licences.values() if licence})
    missing = [source for source, licence in licences.items() if not licence]
    if len(identifiers) > 1:
        yield (
            f"**The sources have {len(identifiers)} different licences**: {_list(identifiers)}. Each goes on applying "
            "to its own part; whether they allow together what you plan is for you to find out."
        )
    elif identifiers and not missing:
        yield f"All sources have the same licence, {_list(identifiers)}."
    if missing:
        yield f"**No licence is known** of {_list(missing)}."
    restricted = [name for name in identifiers if hint(name)]
    if restricted:
        named = "; ".join(f"{markdown.code(name)}: {hint(name)}" for name in restricted)
        yield f"**Restricted by name**: {named}."


def hint(licence: str) -> str:
    """Return what a licence's identifier itself says of its terms, such as "share alike"; "" where it says nothing."""
    parts = [licence, *re.split(r"[-_ ]", licence)]
    said = [words for form, words in HINTS if any(re.fullmatch(form, part.lower()) for part in parts)]
    return ", ".join(said)


def _table(licences: Mapping[str, str | None]) -> str:
    """Return a Markdown table of sources and their licences."""
    rows = [(markdown.text(source), markdown.code(name) if name else "unknown") for source, name in licences.items()]
    return markdown.table(("source", "licence"), rows)


def _list(names: Iterable[str]) -> str:
    """Return names as code spans, separated by commas."""
    return ", ".join(markdown.code(name) for name in names)
