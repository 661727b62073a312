"""The view of one prompt that is opened."""

from collections.abc import Sequence
from typing import Any

from persyn_hf.errors import InputError
from persyn_hf.recipe.strategies import KINDS
from persyn_hf.space.differences import marked
from persyn_hf.space.prompt import LONGEST, Candidate, Opened, on_hub, open_prompt
from persyn_hf.space.scene import Scene
from persyn_hf.space.views.prompts import listed


FAULTS = {  # of a judge's reply
    "empty": "an empty reply",
    "cut": "a reply that was cut off",
    "no_verdict": "no verdict that could be read",
    "off_scale": "a number off the scale",
    "several": "several verdicts that differ",
    "failed": "no reply came",
}
FEW = 3  # teachers that are named where many are tied


def show(scene: Scene) -> str:
    """Return the prompt that the state names as HTML; what is said instead of an unknown one can be closed as well."""
    state, page = scene.state, listed(scene)
    place = page.place
    moves = {
        "previous": state.link(prompt=place.before, page=page.number) if place and place.before else "",
        "next": state.link(prompt=place.after, page=page.number) if place and place.after else "",
        "close": state.link(prompt="", page=page.number),
        "row": f"#row-{place.number}" if place else "#list",
        "place": f"{place.row + 1:,} of {page.total:,}" if place else "not in the list",
    }
    try:
        found = open_prompt(scene.database, scene.assignment, state["prompt"])
    except InputError as error:
        return scene.render("prompt", found=None, fault=str(error), moves=moves)
    ordered = sorted(found.candidates, key=lambda candidate: (not candidate.chosen, _order(candidate)))
    pinned = [name for name in dict.fromkeys(state["pin"]) if name in {c.teacher.name for c in ordered if c.answers}]
    return scene.render(
        "prompt",
        found=found,
        moves=moves,
        ordered=ordered,
        faults=FAULTS,
        criteria=list(next((c.criteria for c in ordered if c.criteria), ())),
        why=why(found),
        longest=LONGEST,
        hub=on_hub(scene.database, scene.assignment, found.prompt_id),
        tied={c.teacher.name: few(found.tied_with(c)) for c in ordered},
        pinned=pinned[-2:],
        pins={name: _pin(scene, pinned[-2:], name) for name in scene.pool},
        sides=sides(found, pinned[-2:]),
    )


def _order(candidate: Candidate) -> tuple[float, float]:
    """Return the sort key of a candidate: best reward first, then best score."""
    reward, score = candidate.measures["reward"], candidate.score
    return (-reward if reward is not None else float("inf"), -score if score is not None else float("inf"))


def _pin(scene: Scene, pinned: list[str], name: str) -> dict[str, str]:
    """Return the link that pins a teacher's answer beside the last pinned one, or unpins it."""
    is_pinned, own = name in pinned, f"pin-{scene.pool.index(name)}"
    after = [other for other in pinned if other != name] if is_pinned else [*pinned, name][-2:]
    words = "Unpin" if is_pinned else "Pin"
    return {"id": own, "words": words, "to": scene.state.link(pin=after), "focus": "#pinned" if after else f"#{own}"}


def sides(prompt: Opened, pinned: Sequence[str]) -> dict[str, Any]:
    """Return two pinned answers with their differences marked; empty unless there are two."""
    shown = [c.shown for name in pinned for c in prompt.candidates if c.teacher.name == name]
    if len(shown) != 2:
        return {}
    left, right, is_whole = marked(*(answer["response"] or "" for answer in shown if answer is not None))
    return {"texts": [left, right], "answers": shown, "is_whole": is_whole, "are_equal": left == right}


def few(names: Sequence[str]) -> str:
    """Return names as a list in words: "A, B and 4 others"."""
    left = len(names) - FEW
    if left > 1:
        return f"{', '.join(names[:FEW])} and {left} others"
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def why(prompt: Opened) -> list[str]:
    """Return sentences on how the choice for a prompt came about."""
    lines = [
        line for candidate in prompt.chosen for line in (_chosen(prompt, candidate), _measured(prompt, candidate))
    ]
    if prompt.confidence is not None:
        near = prompt.choosing.get("epsilon")
        within = "" if near is None else f", within {near:g} of reward"
        often = f"{prompt.confidence:.0%} of the time"
        lines.insert(1, f"By what dev showed, with such a lead it is as good as the best{within}, {often}.")
    best = prompt.best
    if best and not any(candidate.chosen for candidate in best):
        tied = "" if len(best) == 1 else ", which are tied"
        reward = best[0].measures["reward"]
        ahead = "" if reward is None else f", reward {reward:.3g}"
        lines.append(f"The best measured: {few([c.teacher.name for c in best])}{tied}{ahead}.")
    later = sorted((c for c in prompt.candidates if c.asked_after), key=lambda c: c.asked_after)
    for candidate in later:
        lines.append(
            f"{candidate.teacher.name} was asked afterwards, in round {candidate.asked_after}, because no answer "
            f"before it was right; its own is {_judged(candidate)}."
        )
    if not any(c.is_measured for c in prompt.candidates):
        has_scores = any(c.score is not None for c in prompt.candidates)
        known = "only the scores are known" if has_scores else "no score is known"
        lines.append(f"No answer to this prompt was scored, so {known}.")
    return [line for line in lines if line]


def _judged(candidate: Candidate) -> str:
    verdicts = {answer["is_correct"] for answer in candidate.answers}
    return "right" if True in verdicts else "wrong" if False in verdicts else "not judged"


def _chosen(prompt: Opened, candidate: Candidate) -> str:
    """Return how a teacher came to be chosen."""
    name, kind = candidate.teacher.name, str(prompt.choosing.get("kind"))
    if prompt.source == "rule":
        return f"{name} was given by rule: {_rule(prompt, kind, candidate)}."
    scores = sorted((c.score for c in prompt.candidates if c.score is not None), reverse=True)
    if candidate.score is None:
        return f"{name} was chosen by {_decider(prompt)}; its score is not known."
    better = sum(score > candidate.score for score in scores)
    score = f"{candidate.score:.3g}{' (' + prompt.unit + ')' if prompt.unit != 'reward' else ''}"
    if better and len(prompt.chosen) > 1:
        return f"{name} was chosen as well: {score} is number {better + 1} by {_decider(prompt)}."
    if better:
        reason = "a budget allows no better one" if prompt.choosing.get("budget") else "so the assignment says"
        return f"{name} was chosen although {better} of {len(scores)} score higher than its {score}: {reason}."
    equal = [c.teacher.name for c in prompt.candidates if c is not candidate and c.score == candidate.score]
    lead = "" if prompt.margin is None or equal else f", with a lead of {prompt.margin:.3g}"
    return f"{name} was chosen by {_decider(prompt)}, {score}{', the same as of ' + few(equal) if equal else lead}."


def _rule(prompt: Opened, kind: str, candidate: Candidate) -> str:
    """Return what a rule that chose a teacher goes by."""
    if kind == "oracle":
        return "nothing of this prompt was measured, and its mean reward is the best"
    if kind == "reassign" and candidate.teacher.name == prompt.choosing.get("to_teacher"):
        leaving = prompt.choosing.get("from_teachers")
        before = "" if candidate.score is not None else ", or had the prompt before"
        return f"it takes over the prompts of {few(leaving) if leaving else 'the Long-CoT teachers'}{before}"
    return "the strategy looks at no score of this prompt"


def _decider(prompt: Opened) -> str:
    """Return what decided, in words."""
    if prompt.source == "router":
        return "the router's score"
    alpha = prompt.choosing.get("alpha")
    kind = KINDS.get(str(prompt.choosing.get("kind")))
    alpha = kind.alpha if kind is not None and kind.alpha is not None else alpha
    other = "" if alpha is None or alpha == prompt.settings.get("alpha") else f" at alpha {alpha:g}"
    return f"the measured reward{other}"


def _measured(prompt: Opened, candidate: Candidate) -> str:
    """Return what was measured of a chosen teacher, "" where it was not."""
    measures, alpha = candidate.measures, prompt.settings.get("alpha")
    reward, rank = measures["reward"], measures["rank"]
    if reward is None:
        return ""
    quality, learned = measures["quality_reward"], measures["learnability_reward"]
    parts = ""
    if alpha is not None and quality is not None and learned is not None:
        parts = f" = {1 - alpha:.2g} × quality {quality:.3g} + {alpha:.2g} × learnability {learned:.3g}"
    ranked = sum(c.measures["rank"] is not None for c in prompt.candidates)
    tied = few(prompt.tied_with(candidate))
    place = "" if rank is None else f", rank {rank} of {ranked}{', tied with ' + tied if tied else ''}"
    return f"Measured of {candidate.teacher.name}: reward {reward:.3g}{parts}{place}."
