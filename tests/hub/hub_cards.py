"""What the Hub reads from the YAML at the top of a README.md: checks before a commit, and the repository's tags."""

import re
from typing import Any

import yaml


LICENSES = (
    "afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0 "
    "bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 "
    "cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 "
    "cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0 "
    "cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 "
    "etalab-2.0 eupl-1.1 eupl-1.2 fair-noncommercial-research-license gemma gfdl gpl gpl-2.0 gpl-3.0 h-research "
    "intel-research isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c "
    "mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 open-mdw openrail openrail++ osl-3.0 other pddl postgresql "
    "unknown unlicense wtfpl zlib"
)
LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]+)*|code|multilingual|other")
# Metadata key -> how the repository's tags are named after it.
TAGS = {
    "language": "language:{}",
    "license": "license:{}",
    "task_categories": "task_categories:{}",
    "size_categories": "size_categories:{}",
    "base_model": "base_model:{}",
    "datasets": "dataset:{}",
    "tags": "{}",
}


def read_metadata(readme: str) -> dict[str, Any]:
    found = re.match(r"\ufeff?---\s*\n(.*?)\n---\s*(\n|$)", readme.replace("\r\n", "\n"), re.DOTALL)
    metadata = yaml.safe_load(found[1]) if found else {}
    if not isinstance(metadata or {}, dict):
        raise yaml.YAMLError("the metadata must be a mapping")
    return metadata or {}


def check_metadata(readme: str, repo_type: str) -> tuple[list[str], list[str]]:
    """Errors and warnings, as the Hub gives them."""
    try:
        metadata = read_metadata(readme)
    except yaml.YAMLError as error:
        return [f"Invalid YAML: {error}"], []
    if not metadata:
        return [], ["empty or missing yaml metadata in repo card"]
    licenses = [name for name in _listed(metadata, "license") if name not in LICENSES.split()]
    errors = [f'"license" must be one of [{LICENSES.replace(" ", ", ")}], not {name}' for name in licenses]
    for name in _listed(metadata, "language"):
        if not (isinstance(name, str) and LANGUAGE.fullmatch(name)):
            errors.append(f'"language" must only contain lowercase characters, not {name}')
    for key in ("tags", "base_model", "datasets", "task_categories", "size_categories"):
        if not all(isinstance(name, str) for name in _listed(metadata, key)):
            errors.append(f'"{key}" must be a string or a list of strings')
    if repo_type == "dataset":
        errors += _check_configs(metadata.get("configs", []))
    if repo_type == "model" and "model-index" in metadata:
        errors += _check_model_index(metadata["model-index"])
    return errors, []


def _check_configs(configs: Any) -> list[str]:
    if not isinstance(configs, list) or not all(isinstance(config, dict) for config in configs):
        return ['"configs" must be an array of objects']
    errors = []
    for index, config in enumerate(configs):
        if not isinstance(config.get("config_name"), str):
            errors.append(f'"configs[{index}].config_name" must be a string')
        files = config.get("data_files", [])
        if not isinstance(files, str) and not all(
            isinstance(file, str) or (isinstance(file, dict) and {"split", "path"} == set(file)) for file in files
        ):
            errors.append(f'"configs[{index}].data_files" must be strings or objects of split and path')
    names = [config.get("config_name") for config in configs]
    if len(set(map(str, names))) < len(names):
        errors.append('"configs" must not name a config twice')
    return errors


def _check_model_index(index: Any) -> list[str]:
    """One model of a name, and its results of a task, a dataset and metrics."""
    if not isinstance(index, list) or not index:
        return ['"model-index" must be an array']
    errors = []
    for place, model in enumerate(index):
        if not isinstance(model, dict) or not model.get("name"):
            errors.append(f'"model-index[{place}].name" is required')
            continue
        for number, result in enumerate(model.get("results", [])):
            at = f"model-index[{place}].results[{number}]"
            required = {"task": ("type",), "dataset": ("type", "name")}
            for part, keys in required.items():
                errors += [f'"{at}.{part}.{key}" is required' for key in keys if not result.get(part, {}).get(key)]
            for count, metric in enumerate(result.get("metrics", [])):
                errors += [
                    f'"{at}.metrics[{count}].{key}" is required' for key in ("type", "value") if key not in metric
                ]
    return errors


def repo_tags(metadata: dict[str, Any]) -> list[str]:
    return [form.format(name) for key, form in TAGS.items() for name in _listed(metadata, key)]


def _listed(metadata: dict[str, Any], key: str) -> list[Any]:
    value = metadata.get(key)
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
