"""The view of the prompts as a map."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from persyn_hf.errors import InputError
from persyn_hf.recipe.strategies import KINDS
from persyn_hf.space import flow, projection
from persyn_hf.space.explorer import previews
from persyn_hf.space.projection import Axes, Region
from persyn_hf.space.scene import Scene
from persyn_hf.space.url_state import EVERYWHERE
from persyn_hf.text import readable


WIDTH, HEIGHT = 680, 496
PLOT = (12, 26, 668, 446)  # left, top, right, bottom
SIGNIFICANT = 0.4  # of the largest weight of an axis: teachers with less are not named beside it
SHORT = 70  # characters of a prompt in a title
TOPICS = ("#4a78b8", "#c2572b", "#3f8f5f", "#9468b0", "#8a7023", "#2f8589", "#b5566e")  # 3 to 1 on both themes
STEPS = 3  # shades of regret above 0
PARTS = ("prompts", "rewards")  # of the decisions, for topics and regrets


def show(scene: Scene) -> str:
    """Return the map as HTML."""
    if len(scene.pool) < 2:
        return elsewhere(
            scene, "There is no map", "One teacher answers every prompt, so nothing tells them apart.", ()
        )
    try:
        axes = projection.axes(scene.database, scene.assignment, scene.split)
    except InputError as error:
        return elsewhere(scene, "There is no map of these prompts", sentence(error), ("router", "measured"))
    here, parts, colour = (scene.database, scene.assignment, scene.split), _parts(scene), scene.state["colour"]
    regions = projection.regions(*here, parts)
    if not regions:
        return elsewhere(scene, "There is no map", "No prompt of this split has all scores.", ("router", "measured"))
    beside = {"teacher": [], "topic": ["prompts"], "regret": ["rewards"]}[colour]
    drawn = projection.points(*here, [*dict.fromkeys([*parts, *beside])])
    left, bottom, right, top = zip(*(region.box for region in regions), strict=True)
    bounds = [min(left), min(bottom), max(right), max(top)]
    x, y = _scale(bounds[0], bounds[2], PLOT[0], PLOT[2]), _scale(bounds[1], bounds[3], PLOT[3], PLOT[1])
    return scene.render(
        "map",
        classes=_classes(scene, drawn, x, y),
        regions=[_region(scene, region, x, y, name) for region, name in zip(regions, _names(regions), strict=True)],
        sides=_sides(axes),
        axes=axes,
        bounds=bounds,
        plot=PLOT,
        size=(WIDTH, HEIGHT),
        prompts=sum_of(scene, axes),
        drawn=len(drawn),
        colour=colour,
        clip=flow.clip,
        kept=[(name, text) for name, text in scene.state.fields() if name in EVERYWHERE],
        reads_all=len(parts) == len(PARTS),
    )


def sentence(error: Exception) -> str:
    """Return the message of an error, which begins with a plain word, as a sentence."""
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."


def elsewhere(scene: Scene, title: str, words: str, chosen_by: Sequence[str]) -> str:
    """Return a message in place of a view, with links to the assignments that can be shown in it.

    Args:
        chosen_by: values of `Kind.chooses` of these; none: no links.
    """
    kinds = {item.ref: KINDS.get(str(item.manifest.settings.get("kind"))) for item in scene.shelf.assignments}
    others = [
        (ref, scene.names[ref])
        for ref, kind in kinds.items()
        if kind is not None and kind.chooses in chosen_by and ref != scene.assignment.ref
    ]
    where = "There is one of" if len(others) == 1 else "There are those of"
    return scene.render("elsewhere", title=title, words=readable(words), others=others, where=where)


def sum_of(scene: Scene, axes: Axes) -> int:
    """Return how many prompts of the split lie on the map."""
    table = projection.places(scene.database, scene.assignment, axes)
    return int(scene.database.rows(f"SELECT count(*) FROM {table} WHERE $1 IN ('', split)", [scene.split])[0][0])


def _parts(scene: Scene) -> list[str]:
    """Return what is read of all prompts: topics and rewards where that is soon done, or was done already."""
    return [part for part in PARTS if scene.reads_soon or scene.database.made(f"{part} of {scene.assignment.ref}")]


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Return the function from a coordinate of the map to one of the picture."""
    return lambda value: round(start + (value - low) / ((high - low) or 1.0) * (end - start), 1)


def _sides(axes: Axes) -> list[dict[str, Any]]:
    """Return, for each axis, the teachers that stand out on its low and on its high side, and the share it shows."""
    sides = []
    for direction, share in zip(axes.directions, axes.explained.tolist(), strict=True):
        least = SIGNIFICANT * np.abs(direction).max()
        order = np.argsort(-np.abs(direction), kind="stable")
        high = [axes.pool[place] for place in order if direction[place] >= least > 0]
        low = [axes.pool[place] for place in order if direction[place] <= -least < 0]
        sides.append({"low": low, "high": high, "share": share})
    return sides


def _names(regions: Sequence[Region]) -> list[str]:
    """Return a name for each region: a letter from left to right and a number from the bottom up."""
    across, up = (sorted({region.box[side] for region in regions}) for side in (0, 1))
    return [f"{chr(ord('A') + across.index(region.box[0]))}{up.index(region.box[1]) + 1}" for region in regions]


def _region(
    scene: Scene, region: Region, x: Callable[[float], float], y: Callable[[float], float], name: str
) -> dict[str, Any]:
    """Return what is shown of a region, `at` being its left, top, right and bottom edge in the picture."""
    left, bottom, right, top = region.box
    return {
        "name": name,
        "at": (x(left), y(top), x(right), y(bottom)),
        "found": region,
        "share": region.of_teacher / region.prompts,
        "address": scene.state.prompts(box=list(region.box)),
    }


def _classes(
    scene: Scene, drawn: Sequence[dict[str, Any]], x: Callable[[float], float], y: Callable[[float], float]
) -> list[dict[str, Any]]:
    """Return the points by what they look like: words, colour, shape, where the prompts are listed, and the points."""
    classes, of = _looks(scene, drawn)
    texts = previews(scene.database, scene.assignment, [point["prompt_id"] for point in drawn])
    for point in drawn:
        lost = "" if point["regret"] is None else f", regret {point['regret']:.3f}"
        about = f"{point['teacher']}{lost}{', ' + point['topic'] if point['topic'] else ''}"
        text = " ".join(texts.get(point["prompt_id"], point["prompt_id"]).split())
        classes[of(point)]["points"].append(
            {
                "x": x(point["x"]),
                "y": y(point["y"]),
                "title": f"{text[:SHORT]}{'…' if len(text) > SHORT else ''} ({about})",
                "address": scene.state.prompts(prompt=point["prompt_id"]),
            }
        )
    return [one for one in classes.values() if one["points"]]


def _looks(
    scene: Scene, drawn: Sequence[dict[str, Any]]
) -> tuple[dict[Any, dict[str, Any]], Callable[[dict[str, Any]], Any]]:
    """Return the classes of points by key, without points, and the function from a point to its key."""
    state, colour = scene.state, scene.state["colour"]

    def look(words: str, colour: str, shape: int, address: str) -> dict[str, Any]:
        return {"words": words, "colour": colour, "shape": shape, "address": address, "points": []}

    if colour == "teacher":
        looks = scene.looks.items()
        made = {name: look(name, one["colour"], one["pattern"], state.prompts(teacher=name)) for name, one in looks}
        return made, lambda point: point["teacher"]
    if colour == "topic":
        common = [topic for topic, _ in Counter(point["topic"] or "none" for point in drawn).most_common(len(TOPICS))]
        made = {topic: look(topic, TOPICS[n], n, state.prompts(topic=topic)) for n, topic in enumerate(common)}
        rest = {None: look("other topics", "var(--edge)", 6, "")}
        return made | rest, lambda point: (point["topic"] or "none") if (point["topic"] or "none") in common else None
    return _regrets(drawn, look, state)


def _regrets(drawn: Sequence[dict[str, Any]], look: Any, state: Any) -> Any:
    """Return `_looks` by regret: none, three shades that as many prompts have, and not measured."""
    above = [point["regret"] for point in drawn if point["regret"]]
    edges = [float(f"{edge:.2g}") for edge in np.quantile(above, [1 / STEPS, 2 / STEPS, 1])] if above else []
    lost = state.prompts(agreement="other")
    made: dict[Any, Any] = {0: look("as good as the best", "var(--edge)", 0, state.prompts(agreement="same"))}
    for place, edge in enumerate(edges):
        words = f"regret up to {edge:g}" if place < STEPS - 1 else f"regret over {edges[-2]:g}"
        made[place + 1] = look(
            words, f"color-mix(in srgb, var(--bad) {50 + 25 * place}%, var(--page))", 3 + place, lost
        )
    made[None] = look("not measured", "var(--line)", 6, "")

    def of(point: dict[str, Any]) -> int | None:
        if point["regret"] is None:
            return None
        return 0 if point["regret"] == 0 else 1 + sum(point["regret"] > edge for edge in edges[:-1])

    return made, of
