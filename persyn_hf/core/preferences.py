"""Choose which answers to a prompt are preferred to which others, for trainers that learn from preferences."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Candidate:
    """An answer that could be trained on. Its verdict and its reward are None where there is none."""

    teacher: str
    text: str
    is_correct: bool | None = None
    reward: float | None = None


@dataclass(frozen=True)
class Pair:
    """An answer that is preferred to another, and by how much reward; None: not both have one."""

    chosen: Candidate
    rejected: Candidate
    margin: float | None


def pairs_of(
    candidates: Sequence[Candidate], *, most: int = 1, margin: float = 0.0, same_teacher: bool = False
) -> list[Pair]:
    """Choose pairs among the answers to one prompt, the clearest first, `most` at most.

    Args:
        candidates: the answers.
        most: pairs.
        margin: the reward by which one answer must be ahead of the other where no verdicts tell them apart.
        same_teacher: pairs within a teacher's own answers, too. By default the two are of different teachers.

    A right answer is preferred to a wrong one, whatever their rewards are. Where both are right, or one is not judged,
    the higher reward is preferred. Of two wrong answers neither is: a trainer would learn to be wrong. Equal texts are
    no pair. Right against wrong comes first, then the larger margin, then the order of `candidates`.

    Example: A right with reward 0.9, B wrong with 0.8, C right with 0.5. The pairs are (A, B), (C, B), (A, C).
    """
    found: list[tuple[bool, float, Pair]] = []
    seen: set[tuple[str, str]] = set()
    for chosen in candidates:
        for rejected in candidates:
            ahead = _lead(chosen, rejected)
            decided = chosen.is_correct is True and rejected.is_correct is False
            if chosen.is_correct is False or not (decided or (ahead is not None and ahead > margin)):
                continue
            if rejected.is_correct is True and not chosen.is_correct:  # a reward does not outweigh a verdict
                continue
            if chosen.text.strip() == rejected.text.strip() or (chosen.teacher == rejected.teacher) > same_teacher:
                continue
            texts = chosen.text.strip(), rejected.text.strip()
            if texts in seen:  # two teachers said the same
                continue
            seen.add(texts)
            found.append((decided, 0.0 if ahead is None else ahead, Pair(chosen, rejected, ahead)))
    found.sort(key=lambda item: (not item[0], -item[1]))  # stable, so the order of candidates decides at last
    return [pair for _, _, pair in found[:most]]


def labels_of(candidates: Sequence[Candidate], *, margin: float = 0.0) -> list[bool | None]:
    """Label each answer to one prompt as desirable or not, in order; None where nothing tells.

    A verdict decides. An answer without one is desirable where its reward is above the median of the prompt's rewards
    by more than `margin`, and undesirable where it is below by more.
    """
    rewards = [candidate.reward for candidate in candidates if candidate.reward is not None]
    middle = median(rewards) if rewards else 0.0

    def label(candidate: Candidate) -> bool | None:
        if candidate.is_correct is not None:
            return candidate.is_correct
        ahead = 0.0 if candidate.reward is None else candidate.reward - middle
        return ahead > 0 if abs(ahead) > margin else None

    return [label(candidate) for candidate in candidates]


def _lead(one: Candidate, other: Candidate) -> float | None:
    return None if one.reward is None or other.reward is None else one.reward - other.reward
