"""The view of one prompt that is opened."""

from typing import Any

from persyn_hf.space.prompt import LONGEST, Opened, open_prompt
from persyn_hf.space.scene import Scene


def show(scene: Scene) -> str:
    """Return the prompt that the state names as HTML."""
    prompt = open_prompt(scene.database, scene.assignment, scene.state["prompt"])
    ordered = sorted(prompt.candidates, key=lambda candidate: (not candidate.chosen, _order(candidate)))
    return scene.render("prompt", found=prompt, ordered=ordered, why=why(prompt), longest=LONGEST)


def _order(candidate: Any) -> tuple[float, float]:
    """Return the sort key of a candidate: best reward first, then best score."""
    reward, score = candidate.measures["reward"], candidate.score
    return (-reward if reward is not None else float("inf"), -score if score is not None else float("inf"))


def why(prompt: Opened) -> list[str]:
    """Return sentences on how the choice for a prompt came about."""
    lines = []
    for candidate in prompt.chosen:
        name = candidate.teacher.name
        if prompt.source == "rule":
            lines.append(f"{name} was given by rule: the strategy looks at no score of this prompt.")
        elif candidate.score is not None:
            what = "the router's score" if prompt.source == "router" else "the measured reward"
            ahead = "" if prompt.margin is None else f"; the best is {prompt.margin:.3g} ahead of the second"
            lines.append(f"{name} was chosen by {what}, {candidate.score:.3g}{ahead}.")
        if prompt.confidence is not None:
            lines.append(
                f"By what dev showed, such a lead is right, or as good as right, {prompt.confidence:.0%} of the time."
            )
        measures, alpha = candidate.measures, prompt.settings.get("alpha")
        parts = [measures[name] for name in ("reward", "quality_reward", "learnability_reward")]
        if alpha is not None and None not in parts:
            reward, quality, learned = parts
            lines.append(
                f"Measured: reward {reward:.3g} = {1 - alpha:.2g} × quality {quality:.3g} + "
                f"{alpha:.2g} × learnability {learned:.3g}, rank {measures['rank']} of {len(prompt.candidates)}."
            )
    best = [c for c in prompt.candidates if c.measures["rank"] == 1]
    if best and not any(c.chosen for c in best):
        lines.append(
            f"The best measured: {', '.join(c.teacher.name for c in best)}, reward {best[0].measures['reward']:.3g}."
        )
    if not any(c.is_measured for c in prompt.candidates):
        lines.append("No answer to this prompt was scored, so only the router's scores are known.")
    return lines
