"""The view of the prompts as a map."""

from persyn_hf.space import pages
from persyn_hf.space.scene import Scene


def show(scene: Scene) -> str:
    """Return the map as HTML."""
    return pages.message("There is no map yet", "It is being drawn.")
