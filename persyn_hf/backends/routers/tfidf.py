"""Router kind `tfidf`: words and word pairs into a linear Bradley-Terry head; minutes on a CPU, no model needed.

The head is trained on all comparisons of a prompt at once with the same loss as `llm` (`core.bradley_terry`).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from persyn_hf.backends.routers import Advance, Conversation, Labelled, RouterSettings
from persyn_hf.core.conversations import user_text
from persyn_hf.core.metrics import regret
from persyn_hf.core.rewards import FloatArray
from persyn_hf.errors import InputError, require


WEIGHTS = "tfidf.safetensors"
VOCABULARY = "vocabulary.json"
TOKEN = r"(?u)\w+|[^\w\s]"  # signs and single digits count: they tell one kind of maths question from another


class Tfidf:
    """scores = tfidf(user turns) @ weights + bias."""

    def __init__(self, teachers: tuple[str, ...], vectorizer: Any, weights: FloatArray, bias: FloatArray) -> None:
        self.teachers = teachers
        self.vectorizer = vectorizer
        self.weights = weights  # (num_terms, num_teachers)
        self.bias = bias  # (num_teachers,)

    def scores(self, conversations: Sequence[Conversation], advance: Advance | None = None) -> FloatArray:
        if not conversations:
            return np.zeros((0, len(self.teachers)))
        features = self.vectorizer.transform([user_text(messages) for messages in conversations])
        if advance is not None:
            advance(len(conversations))
        return np.asarray(features @ self.weights + self.bias)


def fit(
    settings: RouterSettings,
    teachers: tuple[str, ...],
    train: Labelled,
    validation: Labelled,
    folder: Path,
    seed: int,
    advance: Advance | None,
) -> dict[str, Any]:
    """Try every `l2`; keep the one with the least regret on the validation prompts, then the least loss."""
    safetensors = require("safetensors.numpy", extra="models", feature="the tfidf router")
    vectorizer = _vectorizer(max_features=settings.max_features)
    try:
        features = vectorizer.fit_transform([user_text(messages) for messages in train.conversations])
    except ValueError:
        raise InputError("the calibration prompts hold no words, a tfidf router needs some; see `messages`") from None
    held_out = [user_text(messages) for messages in validation.conversations]
    held_out_features = vectorizer.transform(held_out) if held_out else None
    tried = []
    heads: list[FloatArray] = []
    start = np.zeros((features.shape[1] + 1, len(teachers)))
    grid = sorted(set(settings.l2), reverse=True)  # strong to weak, each from where the last one ended
    if held_out_features is None:
        grid = grid[len(grid) // 2 :][:1]
    for l2 in grid:
        start = _solve(features, train.rewards, l2, start, settings)
        heads.append(start)
        found = {"l2": l2}
        if held_out_features is not None:
            scores = held_out_features @ start[:-1] + start[-1]
            found["regret"] = float(np.nanmean(regret(scores, validation.rewards)))
            found["loss"] = _loss(scores, validation.rewards, settings)[0]
        tried.append(found)
    best = min(range(len(tried)), key=lambda i: (tried[i].get("regret", 0.0), tried[i].get("loss", 0.0)))
    _save(folder, safetensors, vectorizer, heads[best])
    return {"l2": tried[best]["l2"], "tried": tried, "num_terms": int(features.shape[1])}


def _solve(features: Any, rewards: FloatArray, l2: float, start: FloatArray, settings: RouterSettings) -> FloatArray:
    """Minimise grouped loss + l2/2 |weights|^2 by L-BFGS; the last row is the bias and goes free."""
    from scipy.optimize import minimize

    def objective(flat: FloatArray) -> tuple[float, FloatArray]:
        head = flat.reshape(start.shape)
        weights, bias = head[:-1], head[-1]
        loss, by_score = _loss(features @ weights + bias, rewards, settings)
        gradient = np.vstack([features.T @ by_score + l2 * weights, by_score.sum(axis=0)])
        return loss + l2 / 2 * float((weights**2).sum()), gradient.ravel()

    found = minimize(objective, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 300})
    return np.asarray(found.x).reshape(start.shape)


def _loss(scores: FloatArray, rewards: FloatArray, settings: RouterSettings) -> tuple[float, FloatArray]:
    """Grouped loss and its gradient with respect to the scores (N, n)."""
    torch = require("torch", extra="models", feature="training a router")
    from persyn_hf.core.bradley_terry import grouped_loss

    leaf = torch.tensor(scores, dtype=torch.float64, requires_grad=True)
    loss = grouped_loss(leaf, torch.tensor(rewards, dtype=torch.float64), settings.objective, settings.tau)
    loss.backward()
    return float(loss.detach()), leaf.grad.numpy()


def _vectorizer(**options: Any) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=TOKEN, **options)


def _save(folder: Path, safetensors: Any, vectorizer: Any, head: FloatArray) -> None:
    terms = vectorizer.get_feature_names_out().tolist()  # in column order
    (folder / VOCABULARY).write_text(json.dumps(terms, ensure_ascii=False) + "\n", encoding="utf-8")
    arrays = {"idf": vectorizer.idf_, "weights": head[:-1], "bias": head[-1]}
    safetensors.save_file(
        {name: np.ascontiguousarray(a, dtype=np.float64) for name, a in arrays.items()}, folder / WEIGHTS
    )


def load(folder: Path, saved: Mapping[str, Any], device: str) -> Tfidf:
    safetensors = require("safetensors.numpy", extra="models", feature="the tfidf router")
    try:
        terms = json.loads((folder / VOCABULARY).read_text(encoding="utf-8"))
        arrays = safetensors.load_file(folder / WEIGHTS)
    except OSError as error:
        raise InputError(f"the tfidf router in {folder} lacks a file ({error}); fetch it again") from None
    vectorizer = _vectorizer(vocabulary={term: column for column, term in enumerate(terms)})
    vectorizer.idf_ = arrays["idf"]
    return Tfidf(tuple(saved["teachers"]), vectorizer, arrays["weights"], arrays["bias"])
