"""The prompts that numbers pick out for the list: those that other weights move, and those of a part of the map."""

from persyn_hf.space import projection, whatif
from persyn_hf.space.scene import Scene


def moved_prompts(scene: Scene) -> tuple[str, ...] | None:
    """Return the ids of the prompts that `moved`, `was` and `becomes` of the address ask for; None: of all."""
    state = scene.state
    if not _by_weights(scene):
        return None
    rewards, weights = scene.load(), (float(state["alpha"]), state["how"], float(state["lambda"]))
    return tuple(whatif.moved_ids(rewards, *weights, state["was"], state["becomes"], bool(state["moved"])))


def part_of_map(scene: Scene) -> str:
    """Return SQL of the ids of the prompts in the box of the address; "": all are wanted."""
    box = scene.state["box"]
    return projection.within(scene.database, scene.assignment, scene.split, box) if box else ""


def note(scene: Scene) -> str:
    """Return a sentence on prompts that the list leaves out because of a sample; "" where it leaves out none."""
    if not _by_weights(scene):
        return ""
    rewards = scene.load()
    if rewards.drawn == rewards.prompts:
        return ""
    return (
        f"Other weights are computed on {rewards.drawn:,} of {rewards.prompts:,} measured prompts, drawn by their "
        "ids; only these are listed."
    )


def _by_weights(scene: Scene) -> bool:
    return any(scene.state[name] for name in ("moved", "was", "becomes"))
