"""The form in which a reference with alternatives is stored: JSON, `{"any": ["4", "four"]}`."""

import json


ANY = "any"


def alternatives(reference: str) -> list[str]:
    """Return the references of which any one is right; one that has no alternatives is the only one."""
    if not reference.startswith('{"any": ['):
        return [reference]
    try:
        found = json.loads(reference)[ANY]
    except (ValueError, RecursionError, KeyError):
        return [reference]
    return found if found and all(isinstance(each, str) for each in found) else [reference]
