"""The views as HTML: what each asks of the artifacts, and the template that shows it."""

from collections.abc import Callable

from persyn_hf.space.scene import Scene
from persyn_hf.space.views import cost, lineage, map, overview, prompt, prompts, router, try_prompt, whatif


VIEW_OF: dict[str, Callable[[Scene], str]] = {
    "allocation": overview.show,
    "prompts": prompts.show,
    "map": map.show,
    "whatif": whatif.show,
    "router": router.show,
    "try": try_prompt.show,
    "cost": cost.show,
    "lineage": lineage.show,
}

__all__ = ["VIEW_OF", "prompt"]
