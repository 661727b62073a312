"""What a first look should tell: who teaches, how well the choice is made, and what it saves."""

import math
from dataclasses import dataclass
from typing import Any

from persyn_hf.core.metrics import effective_teachers
from persyn_hf.errors import InputError
from persyn_hf.recipe.strategies import KINDS
from persyn_hf.space.costs import costs
from persyn_hf.space.decisions import decisions
from persyn_hf.space.router_quality import best_single, router_quality
from persyn_hf.space.scene import Scene
from persyn_hf.store.manifest_parts import judged_on, router_row


Z = 1.959963984540054  # the normal quantile of a 95 % interval


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One answer: `value` large, `words` below it; `address` leads to where it is explained."""

    question: str
    value: str
    words: str
    address: str


def verdicts(scene: Scene, counts: dict[str, int]) -> list[Verdict]:
    """Return the answers for an assignment.

    Args:
        counts: prompts of the split per teacher.
    """
    first = who_teaches(scene, counts)
    return [first, how_well(scene), what_it_saves(scene)] if len(counts) > 1 else [first]


def interval(part: int, whole: int) -> tuple[float, float]:
    """Return the 95 % interval of a share by Wilson's score (scipy.stats has it, and takes 50 MB of memory)."""
    share, spread = part / whole, Z**2 / whole
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def who_teaches(scene: Scene, counts: dict[str, int]) -> Verdict:
    """Return which teacher answers most, and how many an even allocation of the same entropy would use."""
    total = sum(counts.values())
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    (first, number), rest = ranked[0], [(name, count) for name, count in ranked[1:3] if count]
    low, high = interval(number, total)
    if len(counts) == 1:
        words = f"All {total:,} prompts. It is the only teacher, so nothing is chosen."
        return Verdict(question="Who teaches?", value=first, words=words, address=scene.state.prompts())
    among = effective_teachers([count / total for count in counts.values()])
    more = "".join(f", {name} {count / total:.0%}" for name, count in rest)
    return Verdict(
        question="Who teaches most?",
        value=f"{first}: {number / total:.0%}",
        words=f"({low:.0%} to {high:.0%}){more}. As even as {float(among):.1f} of {len(counts)} teachers.",
        address=scene.state.prompts(teacher=first),
    )


def how_well(scene: Scene) -> Verdict:
    """Return how much of what the choice of a teacher can gain is gained."""
    kind = KINDS.get(str(scene.assignment.manifest.settings.get("kind")))
    address = scene.state.only(view="router")
    if kind is not None and kind.chooses == "router" and (found := _gap(scene)):
        gap, where = found
        low, high, best = gap["low"], gap["high"], best_single(scene.database, scene.assignment) or "the best teacher"
        between = "" if low is None else f" ({_percent(low)} to {_percent(high)})"
        closed = round(100 * gap["value"])
        return Verdict(
            question="How good is the router?",
            value=f"closes {closed}% of the gap" if closed > 0 else "closes none of the gap",
            words=f"{between} between always {best} and a perfect choice, by reward, on {where}.".strip(),
            address=address,
        )
    return _share_of_best(scene)


def _gap(scene: Scene) -> tuple[dict[str, Any], str] | None:
    """Return the share of the gap that the router closes, with its interval, and on which prompts; None: not known.

    It is what was measured on the prompts that it decided, where these are few enough to be read for a first view;
    else what dev said when the router was trained.
    """
    if scene.reads_soon:
        try:
            quality = router_quality(scene.database, scene.assignment, scene.split)
            gap = quality.table["router"]["gap_closed"]
            if gap["value"] is not None:
                return gap, f"{quality.sampled:,} prompts whose rewards were measured"
        except InputError:
            pass
    router = scene.shelf.input(scene.assignment, "router")
    gap = router_row(router.manifest.metrics, "router").get("gap_closed", {}) if router else {}
    if router is None or gap.get("value") is None:
        return None
    return gap, judged_on(router.manifest.metrics, router.manifest.counts.get("dev_prompts", 0))


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("-", "−")


def _share_of_best(scene: Scene) -> Verdict:
    """Return how often no teacher would have been better than the chosen one."""
    question, address = "How good is the choice?", scene.state.prompts(agreement="same")
    if scene.reads_soon and scene.shelf.rewards(scene.assignment):
        table = decisions(scene.database, scene.assignment, ["rewards"])
        where = "regret IS NOT NULL AND $1 IN ('', split)"
        select = f"SELECT count(*), count(*) FILTER (regret = 0) FROM {table} WHERE {where}"
        known, best = scene.database.rows(select, [scene.split])[0]
        if known:
            low, high = interval(best, known)
            words = f"({low:.0%} to {high:.0%}) of {known:,} prompts with measured rewards no teacher is better."
            return Verdict(question=question, value=f"{best / known:.0%}", words=words, address=address)
    words = "No rewards of these prompts are here; the strategy `oracle` of a recipe measures them."
    return Verdict(question=question, value="not measured", words=words, address=scene.state.only(view="router"))


def what_it_saves(scene: Scene) -> Verdict:
    """Return what it cost against asking every teacher, all splits together: a choice is learnt on one of them."""
    question, address = "What did it save?", scene.state.only(view="cost")
    try:
        spent = costs(scene.database, scene.assignment)  # with its calibration, whichever split is shown
    except InputError:
        words = "No answers here say what every teacher's answer costs."
        return Verdict(question=question, value="not known", words=words, address=address)
    own, everything = spent.ways["this assignment"], spent.ways["generate-then-select"]
    if not own.requests:
        return Verdict(question=question, value="nothing asked", words="No answer had to be made.", address=address)
    if everything.requests == own.requests:
        words = "Every teacher was asked for every prompt."
        return Verdict(question=question, value="nothing", words=words, address=address)
    compute = f" and {everything.flops / own.flops:.1f}× less compute" if own.flops and everything.flops else ""
    learnt = (
        f" {spent.labelled:,} of {spent.prompts:,} prompts were answered by all of them." if spent.labelled else ""
    )
    return Verdict(
        question=question,
        value=f"{everything.requests / own.requests:.1f}× fewer answers",
        words=f"{compute.removeprefix(' ')} than asking every teacher.{learnt}".strip(),
        address=address,
    )
