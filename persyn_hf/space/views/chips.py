"""The filters of the list of prompts in words, each with the address that takes it away."""

from collections.abc import Callable
from typing import Any

from persyn_hf.space.scene import Scene


# What is asked of a prompt -> its words for the value; what stands for one filter together is taken away together.
WORDS: dict[str, Callable[[Any], str]] = {
    "q": lambda text: f"contains “{text}”",
    "teacher": lambda name: f"teacher: {name}",
    "best": lambda name: f"best measured: {name}",
    "topic": lambda name: "no topic" if name == "none" else f"topic: {name}",
    "origin": lambda name: f"from {name}",
    "source": lambda name: f"decided by {name}",
    "agreement": lambda value: {"same": "chosen is a best one", "other": "another was better"}[value],
    "tied": lambda value: {"tied": "several best teachers", "sole": "one best teacher"}[value],
    "correct": lambda value: f"answer {'not judged' if value == 'unjudged' else value}",
    "margin": lambda number: f"lead at most {number:g}",
    "lead": lambda number: f"lead at least {number:g}",
    "shortest": lambda number: f"at least {number:,} tokens",
    "longest": lambda number: f"at most {number:,} tokens",
}
DIFFERS, MOVES = ("differs", "there"), ("moved", "was", "becomes")
FILTERS = (*WORDS, *DIFFERS, *MOVES, "box")


def chips(scene: Scene) -> list[tuple[str, str]]:
    """Return the filters that the state asks for: (words, the address of the list without it)."""
    state = scene.state
    given: list[tuple[str, tuple[str, ...]]] = [
        (words(state[name]), (name,)) for name, words in WORDS.items() if state[name] not in (state.defaults[name], "")
    ]
    if state["differs"]:
        given.append((f"{called(scene, state['differs'])} chooses {state['there'] or 'another teacher'}", DIFFERS))
    if any(state[name] for name in MOVES):
        given.append((_moved(scene), MOVES))
    if state["box"]:
        given.append(("a part of the map", ("box",)))
    cleared = [(words, {name: state.defaults[name] for name in names}) for words, names in given]
    return [(words, state.link(values)) for words, values in cleared]


def called(scene: Scene, ref: str) -> str:
    """Return the name of an assignment, with its student where that is another one than on this page."""
    name = scene.names[ref]
    same = name.student == scene.names[scene.assignment.ref].student
    return name.label if same else f"{name.label} for {name.student}"


def _moved(scene: Scene) -> str:
    """Return what changes under other weights, in words."""
    state = scene.state
    weights = [f"alpha {state['alpha']:g}"]
    weights += [f"normalisation {state['how']}"] if state["how"] != state.defaults["how"] else []
    weights += [f"lambda {state['lambda']:g}"] if state["lambda"] else []
    ways = [f"{word} {state[name]}" for word, name in (("from", "was"), ("to", "becomes")) if state[name]]
    return " ".join(["best teacher moves" if state["moved"] else "best teacher", *ways, "at", ", ".join(weights)])
