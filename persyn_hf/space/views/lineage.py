"""The view of where an assignment comes from."""

from typing import Any

from persyn_hf.report.show import describe
from persyn_hf.space.lineage import hub_address, origin
from persyn_hf.space.scene import Scene


def show(scene: Scene) -> str:
    """Return the origin of the assignment as HTML."""
    chain = origin(scene.shelf, scene.assignment)

    def about(node: Any) -> str:
        """Return the line of an artifact without its reference."""
        return describe(node).partition("  ")[2]

    return scene.render("lineage", found=chain, address=hub_address, describe=about)
