"""The view of how good the router is."""

from persyn_hf.errors import InputError
from persyn_hf.formats import HIT_MEANING, METRIC_TITLES
from persyn_hf.space import pages
from persyn_hf.space.router_quality import router_quality
from persyn_hf.space.scene import Scene
from persyn_hf.store.manifest_parts import router_row


# The calibration error is shown with the reliability, the divergence of the allocation not at all.
METRICS = {name: title for name, title in METRIC_TITLES.items() if name not in ("calibration_error", "allocation_js")}
ROWS = ("router", "random", "global_best", "oracle")  # of a router's table


def show(scene: Scene) -> str:
    """Return how good the router is on dev prompts, and on those that it decided, as HTML."""
    assignment = scene.assignment
    router = scene.shelf.input(assignment, "router")
    metrics = router.manifest.metrics if router is not None else {}
    dev = {row: cells for row in ROWS if (cells := router_row(metrics, row))}
    words, parts = {"metric_names": METRICS, "hit_meaning": HIT_MEANING}, []
    if "router" in dev and router is not None:
        title = f"On {router.manifest.counts.get('dev_prompts', 0):,} dev prompts that the router never saw"
        parts.append(scene.render("router", metrics=dev, metrics_title=title, found=None, **words))
    try:
        quality = router_quality(scene.database, assignment, scene.split)
    except InputError as error:
        return "".join([pages.message("No measured decisions of a router", str(error)), *parts])
    title = f"On {quality.sampled:,} of the prompts that it decided"
    shown = {
        "found": quality,
        "most": max(int(quality.confusion.max()), 1),
    }
    shown["most_pairs"] = max((row["pairs"] for row in quality.reliability), default=1)
    return "".join([*parts, scene.render("router", metrics=quality.table, metrics_title=title, **words, **shown)])
