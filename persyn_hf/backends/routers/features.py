"""Compute features of prompts for the cheap routers: weighted words, or hidden states of a model, with length 1."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from persyn_hf.backends import loading as models
from persyn_hf.backends.batches import pad, plan_batches
from persyn_hf.backends.chat import render
from persyn_hf.backends.routers import Advance, RouterSettings, arrays
from persyn_hf.errors import EngineError, InputError, require


TERMS = "vocabulary.json"
WEIGHTS = "tfidf.safetensors"
ENCODER = "encoder"  # folder with a copy of an encoder that is no Hub model
ENCODER_FILES = (*models.DIGESTED, "*.txt")  # and vocab.txt, merges.txt
TOKEN = r"(?u)\w+|[^\w\s]"  # signs and single digits count: they tell one kind of maths question from another
WINDOW = 2048  # prompts that are tokens in memory at a time


class Features(Protocol):
    """The interface of features: rows (num_texts, num_features), as a scipy CSR matrix or a float32 array."""

    def transform(self, texts: Sequence[str], advance: Advance | None = None) -> Any:
        """Compute the rows of texts; `advance` gets the number of texts that are done."""

    def save(self, folder: Path) -> dict[str, Any]:
        """Write what `load_features` needs, and return what `router.json` must say of it."""


class Tfidf:
    """The features of words and word pairs, weighted by how rare they are."""

    def __init__(self, vectorizer: Any) -> None:
        self.vectorizer = vectorizer

    @classmethod
    def fit(cls, texts: Sequence[str], max_features: int) -> "Tfidf":
        """Learn a vocabulary of at most `max_features` terms. Raises `InputError` where the texts hold no words."""
        try:
            return cls(_vectorizer(max_features=max_features).fit(texts))
        except ValueError:
            raise InputError(
                "the calibration prompts hold no words, a router over tfidf needs some; see `messages`"
            ) from None

    @classmethod
    def load(cls, folder: Path) -> "Tfidf":
        """Read vocabulary and weights from a router's folder."""
        idf = arrays.read(folder / WEIGHTS)["idf"]
        try:
            terms = json.loads((folder / TERMS).read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"the router in {folder} lacks a file ({error}); fetch it again") from None
        vectorizer = _vectorizer(vocabulary={term: column for column, term in enumerate(terms)})
        vectorizer.idf_ = idf
        return cls(vectorizer)

    def transform(self, texts: Sequence[str], advance: Advance | None = None) -> Any:
        rows = self.vectorizer.transform(texts)
        if advance is not None:
            advance(len(texts))
        return rows

    def save(self, folder: Path) -> dict[str, Any]:
        terms = self.vectorizer.get_feature_names_out().tolist()  # in column order
        (folder / TERMS).write_text(json.dumps(terms, ensure_ascii=False) + "\n", encoding="utf-8")
        arrays.write(folder / WEIGHTS, {"idf": self.vectorizer.idf_})
        return {"features": "tfidf"}


class Embeddings:
    """The mean of a model's last hidden states over the tokens of a prompt; all 0 for a prompt without tokens.

    The model is any encoder or causal language model. A tokenizer with a chat template puts prompts into it.
    """

    def __init__(self, encoder: str, revision: str | None, max_length: int, device: str) -> None:
        require("transformers", extra="models", feature="a router over embeddings")
        self.name = encoder
        self.revision = models.find_commit(encoder, revision) or revision  # the commit, of a Hub model
        model = models.load_model("AutoModel", encoder, self.revision, "float32", device)
        self.model = model.get_encoder() if model.config.is_encoder_decoder else model
        self.tokenizer: Any = models.read_tokenizer(encoder, self.revision, f"the encoder `{encoder}`", "it")
        models.check_template(self.tokenizer, encoder, "take another encoder")
        self.tokenizer.truncation_side = "left"
        config = self.model.config.get_text_config()
        config.use_cache = False
        self.width = int(config.hidden_size)
        limit = getattr(config, "max_position_embeddings", None) or max_length
        self.max_length = min(max_length, limit, self.tokenizer.model_max_length)  # the latter knows RoBERTa's offset

    def transform(self, texts: Sequence[str], advance: Advance | None = None) -> NDArray[np.float32]:
        rows = np.zeros((len(texts), self.width), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda text: (-len(texts[text]), text))
        for start in range(0, len(order), WINDOW):
            window = order[start : start + WINDOW]
            ids = self.encode([texts[text] for text in window])
            for batch in plan_batches([len(tokens) for tokens in ids], models.suitable_batch(self.model)):
                rows[[window[place] for place in batch]] = self._embed([ids[place] for place in batch])
                if advance is not None:
                    advance(len(batch))
        return rows

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode prompts as token ids; the beginning of a long one is cut."""
        templated = self.tokenizer.chat_template is not None
        if templated:
            texts = [render(self.tokenizer, [{"role": "user", "content": text}]) for text in texts]
        ids: list[list[int]] = self.tokenizer(
            list(texts), add_special_tokens=not templated, truncation=True, max_length=self.max_length
        )["input_ids"]
        return ids

    def _embed(self, rows: Sequence[list[int]]) -> NDArray[np.float32]:
        import torch

        ids, mask = pad(rows, self.tokenizer.pad_token_id or 0)
        device = self.model.device
        try:
            with torch.inference_mode():
                mask = mask.to(device)
                states = self.model(input_ids=ids.to(device), attention_mask=mask).last_hidden_state
                mean = states.masked_fill(mask[..., None] == 0, 0).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
                embedded: NDArray[np.float32] = torch.nn.functional.normalize(mean, dim=1).cpu().numpy()
        except torch.OutOfMemoryError:
            raise EngineError(
                f"the encoder `{self.name}` ran out of memory at {ids.shape[0]} prompts of {ids.shape[1]} tokens; "
                "lower `train_router.max_length`, or take a smaller encoder"
            ) from None
        return embedded

    def save(self, folder: Path) -> dict[str, Any]:
        """Name a Hub model by its commit, or copy a local one: paths lead nowhere on other machines."""
        if not Path(self.name).is_dir():
            return {"features": "embeddings", "encoder": self.name, "encoder_revision": self.revision}
        copy = folder / ENCODER
        copy.mkdir(exist_ok=True)
        for file in (file for pattern in ENCODER_FILES for file in Path(self.name).glob(pattern)):
            shutil.copyfile(file, copy / file.name)
        return {"features": "embeddings", "encoder": None, "encoder_revision": None}


def fit_features(settings: RouterSettings, texts: Sequence[str]) -> Features:
    """Make the features that the settings name, fitted to the training prompts where there is something to fit."""
    if settings.features == "tfidf":
        return Tfidf.fit(texts, settings.max_features)
    assert settings.encoder is not None  # `RouterSettings` checked it
    return Embeddings(settings.encoder, settings.encoder_revision, settings.max_length, settings.device)


def load_features(folder: Path, saved: Mapping[str, Any], device: str) -> Features:
    """Read features from a router's folder; `saved` is its `router.json`."""
    if saved["features"] == "tfidf":
        return Tfidf.load(folder)
    encoder = saved["encoder"] or str(folder / ENCODER)
    return Embeddings(encoder, saved["encoder_revision"], saved["settings"]["max_length"], device)


def _vectorizer(**options: Any) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=TOKEN, **options)
