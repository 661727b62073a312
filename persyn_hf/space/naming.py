"""The names of assignments in words: whose student it is, and how the strategy chooses."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from persyn_hf.store.stored import Stored


IN_WORDS = {  # kind of strategy -> how it chooses
    "persyn": "a router sends each prompt to the teacher from which this student should learn most",
    "no_learnability": "a router that looks at quality alone",
    "no_quality": "a router that looks at learnability alone",
    "oracle": "the best measured reward of each prompt, which needs every teacher's answer",
    "strong": "the strongest teacher for every prompt",
    "family_strong": "the strongest teacher of the student's family for every prompt",
    "mix": "a teacher drawn for each prompt",
    "car": "one teacher for every prompt, by reward against its likelihood under the student (CAR)",
    "best_mean_reward": "the one teacher with the best mean reward",
    "reassign": "another strategy's choices, some teachers replaced",
}


@dataclass(frozen=True, kw_only=True)
class Name:
    """The name of an assignment: `label` is short, and unique among those of its `student`."""

    label: str
    student: str
    words: str


def names_of(assignments: Sequence[Stored]) -> dict[str, Name]:
    """Return the names of assignments by reference.

    Example: `lab/demo-assignments-qwen-student-persyn@v1` for the student `qwen-student` is labelled `persyn`; where
    several recipes or versions are shown, what tells them apart is added.
    """
    students = {item.ref: str((item.manifest.student or {}).get("name") or "no student") for item in assignments}
    parts = {item.ref: _parts(item, students[item.ref]) for item in assignments}
    labels = {ref: strategy for ref, (_, strategy) in parts.items()}
    for further in (
        {ref: f"{strategy} of {recipe}" for ref, (recipe, strategy) in parts.items()},
        {ref: f"{labels[ref]} @{ref.rpartition('@')[2]}" for ref in labels},
        {ref: ref for ref in labels},
    ):
        seen = Counter((students[ref], label) for ref, label in labels.items())
        labels = {ref: further[ref] if seen[students[ref], label] > 1 else label for ref, label in labels.items()}
    return {
        item.ref: Name(
            label=labels[item.ref],
            student=students[item.ref],
            words=IN_WORDS.get(str(item.manifest.settings.get("kind")), "chosen outside of a recipe"),
        )
        for item in assignments
    }


def _parts(item: Stored, student: str) -> tuple[str, str]:
    """Return what stands before the student in an artifact's name, and the strategy."""
    name = item.repo.rpartition("/")[2]
    before, found, after = name.rpartition(f"assignments-{student}-")
    return (before.rstrip("-") or item.repo.partition("/")[0], after) if found else (item.repo.partition("/")[0], name)
