"""Cards of made-up manifests, for the tests of cards."""

from store_samples import DATASETS, fields

from persyn_hf.store.cards.card import render_card
from persyn_hf.store.manifest import Manifest


def manifest_of(kind, **more):
    rows = {"a": {"dev": 3, "pool": 4}, "b_1": {"pool": 2}} if kind in [schema.kind for schema in DATASETS] else {}
    known = {"kind": kind, "schema_version": 1, "repo": "me/x", "rows": rows, "digest": "d" * 64}
    return Manifest(**{**fields(created_at="2026-01-01T00:00:00+00:00"), **known, **more})


def card(kind="responses", license="mit", language="en", tag="v3", evaluations=(), **more):
    known = {"recipe": "my-recipe", "licences": {"prompts": license}, "languages": (language,)}
    return render_card(manifest_of(kind, **{**known, **more}), tag, evaluations)


EVALUATED = {
    "gsm8k": {"accuracy": 0.51234, "low": 0.48, "high": 0.54, "num_items": 1319, "unjudged": 2},
    "ifeval": {
        "accuracy": 0.25,
        "low": 0.2,
        "high": 0.3,
        "num_items": 541,
        "unjudged": 0,
        "metric": "inst_level_strict_acc",
    },
    "empty": {"accuracy": None, "low": None, "high": None, "num_items": 3, "unjudged": 3},
}


def evaluation(**more):
    settings = {"max_tokens": 64, "tasks": [{"name": "gsm8k"}]}
    return manifest_of("evaluation", **{"repo": "me/eval", "settings": settings, "metrics": EVALUATED, **more})
