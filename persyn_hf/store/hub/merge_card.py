"""A card that meets the one on the Hub: what others wrote into its metadata stays."""

from typing import Any


def merge_card(ours: str, theirs: str | None) -> str:
    """Our card, with the metadata keys and tags of the Hub's card that ours does not have.

    Args:
        theirs: None where there is no card yet. A card whose metadata cannot be read has none.
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
    import yaml
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    found = REGEX_YAML_BLOCK.search(card)
    try:
        values = yaml.safe_load(found[2]) if found else {}
    except yaml.YAMLError:
        return {}
    return values if isinstance(values, dict) else {}


def _listed(tags: Any) -> list[Any]:
    return tags if isinstance(tags, list) else [] if tags is None else [tags]
