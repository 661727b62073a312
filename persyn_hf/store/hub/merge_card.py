"""Merge a card with the one on the Hub: what others wrote into its metadata stays."""

from typing import Any


def merge_card(ours: str, theirs: str | None) -> str:
    """Return our card with the metadata keys and tags of the Hub's card that ours does not have.

    Args:
        ours: the whole README.md, metadata and text.
        theirs: the same from the Hub; None where there is no card yet. A card whose metadata cannot be read has
            none.
    """
    from huggingface_hub.repocard import REGEX_YAML_BLOCK
    from huggingface_hub.utils import yaml_dump

    own, kept = _metadata(ours), _metadata(theirs or "")
    merged = {**own, **{key: value for key, value in kept.items() if key not in own}}
    tags = [*_listed(own.get("tags")), *(tag for tag in _listed(kept.get("tags")) if tag not in own.get("tags", []))]
    if tags:
        merged["tags"] = tags
    if merged == own:
        return ours
    body = REGEX_YAML_BLOCK.sub("", ours, count=1)
    return f"---\n{yaml_dump(merged)}---\n{body}"


def _metadata(card: str) -> dict[str, Any]:
    """Return the metadata at the top of a card; empty where it has none that can be read."""
    import yaml
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    block = REGEX_YAML_BLOCK.search(card)
    try:
        values = yaml.safe_load(block[2]) if block else {}
    except yaml.YAMLError:
        return {}
    return values if isinstance(values, dict) else {}


def _listed(tags: Any) -> list[Any]:
    """Return tags as a list, whether the card gives several, one or none."""
    return tags if isinstance(tags, list) else [] if tags is None else [tags]
