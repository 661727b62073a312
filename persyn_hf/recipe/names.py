"""The names of a recipe's steps. They are made here and nowhere else; whoever looks for a step asks here.

A name is the key of its step within the recipe and, behind NAMESPACE/RECIPE-, the name of its artifact:
`rewards-small` is the step that scores for the student `small`, and `lab/study-rewards-small` what it emits. The
*matrix* is every teacher on every prompt of some splits; a recipe has one for calibration and dev, and may have more
(`POOL`, the rounds of a calibration that is paid for in part), which differ by a suffix.
"""

from persyn_hf.recipe.roles import Student
from persyn_hf.recipe.strategies import KINDS, Strategy


PROMPTS = "prompts"

# Suffixes of a matrix. CALIBRATION is the one of calibration and dev, POOL that of the pool, which an oracle needs.
CALIBRATION = ""
POOL = "-pool"


def round_suffix(number: int) -> str:
    """The suffix of the matrix of an earlier round of a calibration in part; the last round is `CALIBRATION`."""
    return f"-round{number}"


def matrix_assignments(suffix: str = CALIBRATION) -> str:
    """The step that gives the prompts of a matrix to every teacher."""
    return f"assignments-all{suffix}"


def matrix_responses(suffix: str = CALIBRATION) -> str:
    """The step that has a matrix answered."""
    return f"responses{suffix}"


def matrix_rewards(student: Student, suffix: str = CALIBRATION) -> str:
    """The step that scores a matrix for one student."""
    return f"rewards-{student.name}{suffix}"


def pairs(student: Student) -> str:
    """The step that compares teachers by the rewards of one student."""
    return f"pairs-{student.name}"


def router(student: Student, strategy: Strategy) -> str:
    """The step that trains the router of a strategy; strategies share one unless they ask for another.

    A router of its own has each strategy that names a router kind, an alpha, or whose kind fixes one.
    """
    suffix = f"-{strategy.router}" if strategy.router else ""
    suffix += f"-{strategy.kind}" if KINDS[strategy.kind].alpha is not None else ""
    suffix += f"-alpha{strategy.alpha:g}" if strategy.alpha is not None else ""
    return f"router-{student.name}{suffix}"


def assignments(student: Student, strategy: Strategy) -> str:
    """The step that assigns by a strategy."""
    return f"assignments-{student.name}-{strategy.name}"


def responses(student: Student, strategy: Strategy) -> str:
    """The step that has the assigned teachers answer."""
    return f"responses-{student.name}-{strategy.name}"


def chosen_rewards(student: Student, strategy: Strategy) -> str:
    """The step that scores a strategy's own answers, where several teachers answer a prompt."""
    return f"rewards-{student.name}-{strategy.name}"


def sft(student: Student, strategy: Strategy) -> str:
    """The step that makes the training data of a strategy."""
    return f"sft-{student.name}-{strategy.name}"


def trained_student(student: Student, strategy: Strategy, seed_suffix: str = "") -> str:
    """The step that trains a student on it; `seed_suffix` as in `Recipe.sft_seeds`."""
    return f"student-{student.name}-{strategy.name}{seed_suffix}"


def evaluation(student: Student, strategy: Strategy | None = None, seed_suffix: str = "") -> str:
    """The step that evaluates the trained student; without a strategy, the student before training."""
    return f"evaluation-{student.name}-{'base' if strategy is None else strategy.name}{seed_suffix}"


def without_kind(name: str) -> str:
    """A name without the artifact kind that it begins with: `small-knn` of `router-small-knn`."""
    return name.partition("-")[2]
