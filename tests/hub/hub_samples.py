"""A chain of real artifacts, small: what the tests push and pull."""

from store_samples import dataset_of, fields, link, model_folder, rows_of

from persyn_hf.contract import ModelSchema
from persyn_hf.schemas import SCHEMAS
from persyn_hf.store.local import Store
from persyn_hf.store.stored import Stored


CHAIN = {  # name -> kind, inputs
    "prompts": ("prompts", ()),
    "responses": ("responses", ("prompts",)),
    "student": ("student", ("responses",)),
    "evaluation": ("evaluation", ("student",)),
}


def put(store: Store, name: str, inputs: tuple[Stored, ...] = (), *, seed: int = 0, rows: int = 6, **more) -> Stored:
    """An artifact alice/NAME; `tag`, `figures`, `others` (more inputs) and fields of the manifest as keywords."""
    kind, tag, others, figures = CHAIN[name][0], more.pop("tag", None), more.pop("others", {}), more.pop("figures", {})
    schema = SCHEMAS[kind]
    if isinstance(schema, ModelSchema):
        data = model_folder(store.root.parent / f"model-{name}-{seed}", seed)
    else:
        data = dataset_of(schema, rows_of(schema, rows, seed))
    if kind == "evaluation":
        score = {"accuracy": 0.5, "stderr": 0.1, "low": 0.3, "high": 0.7, "num_items": 6, "unjudged": 0}
        more.setdefault("metrics", {"svamp": score | {"mean_tokens": 12.0}})
    about = fields(inputs=link(*inputs) | others, fingerprint=f"{seed:x}{kind}".ljust(64, "0"), **more)
    return store.put(repo=f"alice/{name}", schema=schema, data=data, fields=about, figures=figures, tag=tag)


def chain(store: Store, until: str = "evaluation", seed: int = 0) -> dict[str, Stored]:
    """prompts <- responses <- student <- evaluation"""
    made: dict[str, Stored] = {}
    for name, (_, inputs) in CHAIN.items():
        made[name] = put(store, name, tuple(made[word] for word in inputs), seed=seed)
        if name == until:
            break
    return made
