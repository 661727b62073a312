"""The specs of the tiny models: architecture, size, curriculum and seed, exactly as the kept weights were trained."""

from dataclasses import dataclass

from persyn_hf.tiny.questions import SKILLS
from persyn_hf.tiny.styles import STYLES


@dataclass(frozen=True)
class Phase:
    """A stretch of pretraining on one corpus."""

    styles: dict[str, float]
    """Style -> share of the question and response pairs."""
    steps: int
    """Optimiser steps."""
    batch: int = 32
    """Documents per step."""
    drill: float = 0.4
    """Share of drill documents: true steps without a question. Without them models learn form, not arithmetic."""
    muon_lr: float = 0.02
    adamw_lr: float = 3e-3


@dataclass(frozen=True)
class ModelSpec:
    """A model of the zoo. Strong skills have weight 1 in its corpus, all others `weak_weight` and level 1 only."""

    name: str
    role: str
    """teacher or student."""
    architecture: str
    """qwen2, llama, gemma2 or mistral; also the name of the family."""
    width: int
    layers: int
    phases: tuple[Phase, ...]
    level_2_share: float
    """Share of level 2 among the questions of strong skills."""
    seed: int
    strong: tuple[str, ...] = SKILLS
    weak_weight: float = 0.0

    @property
    def style(self) -> str:
        """The style of the last phase; the most frequent one where it mixes several."""
        doses = self.phases[-1].styles
        return max(doses, key=lambda style: doses[style])

    def skill_weights(self) -> dict[str, float]:
        """Return how often each skill is drawn, as a weight."""
        return {skill: 1.0 if skill in self.strong else self.weak_weight for skill in SKILLS}


# Students have 3 layers: with 2 and all else equal the main one reached .47 on validation instead of .70.
# A little of every style, in different doses: a style that a student has never seen costs it 7 to 9 nats per token
# against .2 to .9 for the others, which turns learnability into a flag.
_STUDENT_STYLES = {"eq": 0.5, "verbal": 0.2, "markdown": 0.12, "terse": 0.1, "long": 0.08}

ZOO = (
    # The strongest and most verbose. A curriculum, as for real long-chain models: trained on long chains from the
    # start it learns their form and not the arithmetic.
    ModelSpec(
        "llama-long",
        "teacher",
        "llama",
        128,
        3,
        level_2_share=0.65,
        seed=1,
        phases=(
            Phase({"eq": 1.0}, 2600),
            Phase({"long": 1.0}, 1800, batch=20, drill=0.2, muon_lr=0.01, adamw_lr=2e-3),
        ),
    ),
    ModelSpec(
        "qwen-student",
        "student",
        "qwen2",
        80,
        3,
        level_2_share=0.1,
        seed=8,
        phases=(Phase(_STUDENT_STYLES, 3500, drill=0.5),),
    ),
    ModelSpec(
        "llama-student",
        "student",
        "llama",
        80,
        3,
        level_2_share=0.1,
        seed=9,
        phases=(Phase(_STUDENT_STYLES, 3500, drill=0.5),),
    ),
    ModelSpec(
        "qwen-gen",
        "teacher",
        "qwen2",
        96,
        2,
        level_2_share=0.6,
        seed=2,
        strong=("add", "sub", "list", "word"),
        weak_weight=0.35,
        phases=(Phase({"eq": 1.0}, 2100),),
    ),
    ModelSpec(
        "qwen-math",
        "teacher",
        "qwen2",
        96,
        2,
        level_2_share=0.6,
        seed=3,
        strong=("mul", "eqn", "cost"),
        weak_weight=0.2,
        phases=(Phase({"eq": 1.0}, 1900),),
    ),
    # A decent all-round teacher of another family than the main student, in the style that student knows best.
    ModelSpec(
        "mistral-eq", "teacher", "mistral", 80, 2, level_2_share=0.45, seed=4, phases=(Phase({"eq": 1.0}, 1900),)
    ),
    ModelSpec(
        "llama-verbal",
        "teacher",
        "llama",
        96,
        2,
        level_2_share=0.6,
        seed=5,
        strong=("word", "cost", "list"),
        weak_weight=0.25,
        phases=(Phase({"eq": 1.0}, 1400), Phase({"verbal": 1.0}, 800, drill=0.15, muon_lr=0.01, adamw_lr=2e-3)),
    ),
    ModelSpec(
        "gemma-md",
        "teacher",
        "gemma2",
        96,
        2,
        level_2_share=0.6,
        seed=6,
        strong=("add", "mul", "sub", "eqn"),
        weak_weight=0.25,
        phases=(Phase({"markdown": 1.0}, 1900),),
    ),
    ModelSpec(
        "gemma-terse",
        "teacher",
        "gemma2",
        64,
        2,
        level_2_share=0.6,
        seed=7,
        strong=("list", "add"),
        weak_weight=0.3,
        phases=(Phase({"terse": 1.0}, 1800, batch=48, drill=0.3),),
    ),
)


def find_spec(name: str) -> ModelSpec:
    """Return the spec of a model of the zoo.

    Raises:
        ValueError: there is none of this name.
    """
    for spec in ZOO:
        if spec.name == name:
            return spec
    raise ValueError(f"No tiny model {name!r}; there are: {', '.join(spec.name for spec in ZOO)}.")


def check_spec(spec: ModelSpec) -> None:
    """Check the skills, styles and doses of a spec.

    Raises:
        ValueError: a skill or style is unknown, or doses do not sum to 1.
    """
    for phase in spec.phases:
        if set(phase.styles) - set(STYLES) or abs(sum(phase.styles.values()) - 1) > 1e-9:
            raise ValueError(f"{spec.name}: doses of {', '.join(STYLES)} must sum to 1, not {phase.styles}.")
    if set(spec.strong) - set(SKILLS):
        raise ValueError(f"{spec.name}: skills are {', '.join(SKILLS)}, not {spec.strong}.")
