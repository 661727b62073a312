"""Prompts of two topics with rewards."""

import numpy as np

from persyn_hf.backends.routers import Labelled


TEACHERS = ("maths-teacher", "poetry-teacher", "weak-teacher")
TOPICS = (
    ["add", "subtract", "number", "sum", "equation", "digit"],
    ["poem", "verse", "rhyme", "moon", "river", "heart"],
)
SHARED = ["please", "write", "what", "is", "the", "for", "me", "now"]


def corpus(num_prompts: int, seed: int, missing: float = 0.0) -> Labelled:
    """Two topics; each has a teacher of its own, the third is always worst; rewards in [0, 1] with noise."""
    rng = np.random.default_rng(seed)
    conversations, rewards = [], []
    for index in range(num_prompts):
        topic = index % 2
        words = [*rng.choice(TOPICS[topic], 3), *rng.choice(SHARED, 4)]
        rng.shuffle(words)
        conversations.append([{"role": "user", "content": " ".join(words)}])
        best = [0.9, 0.3, 0.0] if topic == 0 else [0.3, 0.9, 0.0]
        rewards.append(np.clip(np.array(best) + rng.normal(size=3) * 0.05, 0, 1))
    matrix = np.array(rewards)
    matrix[rng.random(matrix.shape) < missing] = np.nan
    return Labelled(conversations, matrix)
