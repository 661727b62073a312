"""The YAML at the top of a card, which the Hub and `load_dataset` read.

There is no `dataset_info`: the columns and their types are in every parquet file, an all-null column's too, and a
number of rows that is wrong there keeps `load_dataset` from loading.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from persyn_hf.contract import ModelSchema
from persyn_hf.schemas import SCHEMAS
from persyn_hf.store.cards import headlines, licences, markdown
from persyn_hf.store.manifest import Manifest
from persyn_hf.text import one_line


if TYPE_CHECKING:
    from huggingface_hub import EvalResult

ADAPTER = "adapter_config.json"  # of PEFT
CATEGORIES = {"assignments": "text-classification", "rewards": "text-ranking", "pairs": "text-ranking"}


def front_matter(manifest: Manifest, evaluations: Sequence[Manifest] = ()) -> str:
    """Return the YAML at the top of an artifact's card, without the lines `---`.

    Args:
        evaluations: manifests of a student's evaluations, for the Hub's table of results.
    """
    from huggingface_hub import DatasetCardData, ModelCardData

    tags = ["persyn", f"persyn-{manifest.kind}", "arxiv:2510.10925"]
    origin: dict[str, Any] = {
        "language": [name for name in manifest.languages if licences.LANGUAGE.fullmatch(name)] or None,
        **licences.metadata(manifest.licences),
    }
    name = one_line(manifest.repo.partition("/")[2])
    if not isinstance(SCHEMAS[manifest.kind], ModelSchema):
        card = DatasetCardData(
            **origin,
            pretty_name=name,
            size_categories=[_size(sum(rows for splits in manifest.rows.values() for rows in splits.values()))],
            task_categories=[CATEGORIES.get(manifest.kind, "text-generation")],
            tags=[*tags, "synthetic"],
            configs=configs(manifest),
        )
        return str(card.to_yaml())
    results = list(_results(evaluations))
    model: Any = ModelCardData(
        **origin,
        **_base(manifest),
        datasets=[item.ref.partition("@")[0] for word, item in manifest.inputs.items() if word == "sft"] or None,
        library_name="transformers" if _is_transformers(manifest) else "persyn-hf",
        pipeline_tag="text-generation" if manifest.kind == "student" else "text-classification",
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        model_name=name,
        eval_results=results or None,
        tags=tags,
    )
    return str(model.to_yaml())


def _is_transformers(manifest: Manifest) -> bool:
    """Tell whether `from_pretrained` loads a model; a router that is no language model is persyn's own."""
    return manifest.kind == "student" or "config.json" in manifest.files


def _base(manifest: Manifest) -> dict[str, Any]:
    """Return the keys that name the model that was fine-tuned, where it is one of the Hub's; else none."""
    is_student = manifest.kind == "student"
    base = str((manifest.student or {}).get("model") if is_student else manifest.settings.get("backbone"))
    if not (_is_transformers(manifest) and markdown.HUB_ID.fullmatch(base)):
        return {}
    return {"base_model": base, "base_model_relation": "adapter" if ADAPTER in manifest.files else "finetune"}


def _results(evaluations: Iterable[Manifest]) -> "Iterator[EvalResult]":
    """Yield an entry of the Hub's table of results for every task that an evaluation scored."""
    from huggingface_hub import EvalResult

    for manifest in evaluations:
        for task, line in manifest.metrics.items():
            if isinstance(line, Mapping) and isinstance(line.get("accuracy"), int | float):
                yield EvalResult(
                    task_type="text-generation",
                    dataset_type=task,
                    dataset_name=task,
                    metric_type=headlines.metric_of(line),
                    metric_name=headlines.metric_of(line),
                    metric_value=round(line["accuracy"], 4),
                    source_name=manifest.repo,
                    source_url=f"{markdown.HUB}datasets/{manifest.repo}",
                )


def _size(rows: int) -> str:
    """Return the Hub's word for a number of rows: 2500 is `1K<n<10K`."""
    bounds = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "1B<n<10B")
    return next((word for power, word in enumerate(bounds) if rows < 1000 * 10**power), "10B<n<100B")


def configs(manifest: Manifest) -> list[dict[str, Any]]:
    """Return the `configs:` of the front matter, by which `load_dataset` and the Hub's viewer find the files.

    Where there are several configs, one more takes all files and is the default. So plain `load_dataset` leaves
    nothing out.
    """
    listed = [_config(name, name, splits) for name, splits in sorted(manifest.rows.items())]
    if len(listed) < 2:
        return listed
    name = "all"
    while name in manifest.rows:
        name = f"_{name}"
    together = _config(name, "*", {split: 0 for splits in manifest.rows.values() for split in splits})
    return [{**together, "default": True}, *listed]


def _config(name: str, folder: str, splits: Mapping[str, int]) -> dict[str, Any]:
    """Return one entry of `configs:`, whose files lie in `data/FOLDER/`."""
    files = [{"split": split, "path": f"data/{folder}/{split}-*.parquet"} for split in sorted(splits)]
    return {"config_name": name, "data_files": files}
