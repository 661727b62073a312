"""Make the names of a recipe's steps. They are made here and nowhere else; whoever looks for a step asks here.

A name is the key of its step within the recipe and, after NAMESPACE/RECIPE-, the name of its artifact:
`rewards-small` is the step that scores for the student `small`, and `lab/study-rewards-small` is what it emits. A
*matrix* is every teacher on every prompt of some splits. A recipe has one for calibration and dev, and may have more
(`POOL`, the rounds of a calibration that is paid for in part); their names differ by a suffix.
"""

from persyn_hf.recipe.roles import Student
from persyn_hf.recipe.strategies import KINDS, Strategy


PROMPTS = "prompts"

# Suffixes of matrices: of the one for calibration and dev, and of the one for the pool, which an oracle needs.
CALIBRATION = ""
POOL = "-pool"


def round_suffix(number: int) -> str:
    """Return the suffix of an earlier round's matrix, where calibration is in part; the last one is `CALIBRATION`."""
    return f"-round{number}"


def matrix_assignments(suffix: str = CALIBRATION) -> str:
    """Name the step that gives the prompts of a matrix to every teacher."""
    return f"assignments-all{suffix}"


def matrix_responses(suffix: str = CALIBRATION) -> str:
    """Name the step that has the teachers answer a matrix."""
    return f"responses{suffix}"


def matrix_rewards(student: Student, suffix: str = CALIBRATION) -> str:
    """Name the step that scores a matrix for one student."""
    return f"rewards-{student.name}{suffix}"


def pairs(student: Student) -> str:
    """Name the step that compares teachers by the rewards of one student."""
    return f"pairs-{student.name}"


def router(student: Student, strategy: Strategy) -> str:
    """Name the step that trains the router of a strategy.

    Strategies share a router unless they name a router kind or an alpha, or their kind fixes an alpha: `router-small`,
    `router-small-knn`, `router-small-alpha0.7`, `router-small-no_quality`.
    """
    suffix = f"-{strategy.router}" if strategy.router else ""
    suffix += f"-{strategy.kind}" if KINDS[strategy.kind].alpha is not None else ""
    suffix += f"-alpha{strategy.alpha:g}" if strategy.alpha is not None else ""
    return f"router-{student.name}{suffix}"


def assignments(student: Student, strategy: Strategy) -> str:
    """Name the step that assigns the pool by a strategy."""
    return f"assignments-{student.name}-{strategy.name}"


def responses(student: Student, strategy: Strategy) -> str:
    """Name the step that has the teachers answer what a strategy assigned to them."""
    return f"responses-{student.name}-{strategy.name}"


def chosen_rewards(student: Student, strategy: Strategy) -> str:
    """Name the step that scores a strategy's own answers, where several teachers answer a prompt."""
    return f"rewards-{student.name}-{strategy.name}"


def sft(student: Student, strategy: Strategy) -> str:
    """Name the step that makes the training data of a strategy."""
    return f"sft-{student.name}-{strategy.name}"


def trained_student(student: Student, strategy: Strategy, seed_suffix: str = "") -> str:
    """Name the step that trains a student on a strategy's data; `seed_suffix` is a key of `Recipe.sft_seeds`."""
    return f"student-{student.name}-{strategy.name}{seed_suffix}"


def evaluation(student: Student, strategy: Strategy | None = None, seed_suffix: str = "") -> str:
    """Name the step that evaluates a trained student; without a strategy, the student before training."""
    return f"evaluation-{student.name}-{'base' if strategy is None else strategy.name}{seed_suffix}"


def kind_of(name: str) -> str:
    """Return the artifact kind that a name begins with: `router` of `router-small-knn`."""
    return name.partition("-")[0]


def without_kind(name: str) -> str:
    """Return a name without the artifact kind that it begins with: `small-knn` of `router-small-knn`."""
    return name.partition("-")[2]
