"""Untrusted text for the page as Markdown."""

from markupsafe import Markup

from persyn_hf.space.maths import with_maths


def with_markdown(text: str) -> Markup:
    """Return a text as HTML."""
    return with_maths(text)
