"""Licences: told of every source, in the words of the Hub, and never made up."""

import pytest
from card_samples import card
from huggingface_hub import DatasetCard

from persyn_hf.store.cards import licences


@pytest.mark.parametrize(
    ("known", "metadata", "words"),
    [
        ({"prompts": "mit", "teacher a": "mit"}, {"license": "mit"}, ["All sources have the same licence, `mit`."]),
        (
            {"prompts": "mit", "teacher a": "llama3.1", "teacher b": "cc-by-nc-nd-4.0"},
            {"license": "other", "license_name": "cc-by-nc-nd-4.0-and-llama3.1-and-mit"},
            [
                "**The sources have 3 different licences**: `cc-by-nc-nd-4.0`, `llama3.1`, `mit`.",
                "`cc-by-nc-nd-4.0`: non-commercial use only, no derivatives",
                "`llama3.1`: the model maker's own terms",
                "| teacher b | `cc-by-nc-nd-4.0` |",
            ],
        ),
        (
            {"prompts": "apache-2.0", "teacher a": None},
            {"license": "other", "license_name": "apache-2.0-and-unknown"},
            ["**No licence is known** of `teacher a`.", "| teacher a | unknown |"],
        ),
        ({"p": None}, {"license": "unknown"}, ["**No licence is known** of `p`."]),
        ({}, {"license": "unknown"}, ["Nothing is known of the licences"]),
        (
            {"p": "Acme Research (v2)"},
            {"license": "other", "license_name": "acme-research-v2"},
            ["`Acme Research (v2)`: research use"],
        ),
        (dict(zip("abcd", ("mit", "bsd", "isc", "gpl"), strict=True)), {"license_name": "several"}, ["4 different"]),
        ({"p": "other"}, {"license": "other", "license_name": "other"}, ["| p | `other` |"]),
    ],
)
def test_licences_agree_differ_or_are_not_known(known, metadata, words):
    text = card(licences=known)
    found = DatasetCard(text).data.to_dict()
    assert metadata.items() <= found.items()
    assert ("license_name" in found) == (found["license"] == "other")
    for needed in words:
        assert needed in text


@pytest.mark.parametrize(
    ("front_matter", "found"),
    [
        ("license: mit\nlanguage: en", ("mit", ("en",))),
        ("license: [mit, cc-by-4.0]\nlanguage: [en, zh]", ("mit and cc-by-4.0", ("en", "zh"))),
        ("license: other\nlicense_name: acme-1.0", ("acme-1.0", ())),
        ("license: other", ("other", ())),
        ("license: {a: b}\nlanguage: 7", (None, ())),
        ("license: [", (None, ())),
        ("- a list", (None, ())),
    ],
)
def test_licence_and_language_of_a_local_model(front_matter, found, tmp_path):
    (tmp_path / "README.md").write_text(f"---\n{front_matter}\n---\n# model\n")
    assert licences.read_source(str(tmp_path)) == found


def test_what_has_no_card_has_no_licence(tmp_path):
    assert licences.read_source(str(tmp_path)) == (None, ())
    assert licences.read_source("org/never-heard-of", None, "dataset") == (None, ())
    assert licences.read_source("served name") == (None, ())
