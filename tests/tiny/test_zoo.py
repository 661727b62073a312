"""The kept zoo: it loads in silence, matches its spec and its card, and answers as well as its record says."""

import json
import warnings
from dataclasses import asdict
from pathlib import Path

import pytest

from persyn_hf.tiny.accuracy import measure_accuracy
from persyn_hf.tiny.checkpoint import load_checkpoint, save_checkpoint
from persyn_hf.tiny.pretrain import build_model
from persyn_hf.tiny.questions import make_splits
from persyn_hf.tiny.tokenizer import build_tokenizer
from persyn_hf.tiny.zoo import ZOO, ModelSpec, Phase
from persyn_hf.tiny.zoo_card import render_card


DIRECTORY = Path(__file__).parents[2] / "recipes" / "tiny" / "zoo"
RECORDS = {one["name"]: one for one in json.loads((DIRECTORY / "zoo.json").read_text())["models"]}


def test_records_are_of_the_specs_in_the_code():
    assert list(RECORDS) == [spec.name for spec in ZOO]
    for spec in ZOO:
        expected = json.loads(json.dumps(asdict(spec)))
        assert {key: RECORDS[spec.name][key] for key in expected} == expected


def test_card_is_rendered_from_the_records():
    assert (DIRECTORY / "README.md").read_text() == render_card(list(RECORDS.values()))


def test_zoo_is_small():
    assert sum(path.stat().st_size for path in DIRECTORY.rglob("*") if path.is_file()) < 20e6


@pytest.mark.parametrize("spec", ZOO, ids=lambda spec: spec.name)
def test_models_load_in_silence_and_hold_what_the_record_says(spec, capfd):
    from transformers.utils import logging

    logging.disable_progress_bar()
    capfd.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, tokenizer = load_checkpoint(DIRECTORY / spec.name)
    assert capfd.readouterr().err == ""
    assert str(model.dtype) == "torch.float32"
    assert model.num_parameters() == RECORDS[spec.name]["parameters"]
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id
    assert model.config.vocab_size == len(tokenizer)


def test_a_model_answers_as_well_as_its_record_says():
    model, tokenizer = load_checkpoint(DIRECTORY / "gemma-terse")
    found = measure_accuracy(model, tokenizer, make_splits(0)["validation"])
    expected = RECORDS["gemma-terse"]["accuracy"]["validation"]
    # Another CPU may round otherwise and so flip an answer that hangs in the balance.
    assert abs(found.by_skill["all"] - expected["by_skill"]["all"]) < 0.02


def test_a_model_with_another_tokenizer_is_refused(tmp_path):
    tokenizer = build_tokenizer()
    spec = ModelSpec("small", "teacher", "llama", 16, 1, (Phase({"eq": 1.0}, 1),), 0.5, 0)
    save_checkpoint(build_model(spec, tokenizer), tokenizer, tmp_path / "small")
    load_checkpoint(tmp_path / "small")
    build_tokenizer(seed=1).save_pretrained(tmp_path / "small")
    with pytest.raises(ValueError, match="Retrain with .*--models small"):
        load_checkpoint(tmp_path / "small")
