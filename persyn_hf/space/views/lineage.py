"""The view of where an assignment comes from."""

from persyn_hf.report.show import describe
from persyn_hf.space.lineage import hub_address, origin
from persyn_hf.space.scene import Scene
from persyn_hf.store.lineage import Node


def show(scene: Scene) -> str:
    """Return the origin of the assignment as HTML."""

    def about(node: Node) -> str:
        """Return the line of an artifact without its reference."""
        return describe(node).partition("  ")[2]

    def address_of(node: Node) -> str:
        """Return where an artifact is on the Hub, "" for one that did not come from there."""
        return hub_address(node.ref, node.kind) if node.on_hub else ""

    return scene.render("lineage", found=origin(scene.shelf, scene.assignment), address_of=address_of, describe=about)
