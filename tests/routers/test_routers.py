"""What all routers share: their settings, and what `load` says of a folder that holds none."""

import pytest

from persyn_hf.backends.routers import RouterSettings, load
from persyn_hf.errors import InputError


def test_settings_take_whole_numbers_and_lists_from_yaml():
    found = RouterSettings.model_validate({"tau": 1, "l2": [1, 0.1]})
    assert (found.tau, found.l2) == (1.0, (1.0, 0.1))


def test_a_folder_that_is_no_router(tmp_path):
    with pytest.raises(InputError) as caught:
        load(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} is no router: no router.json in it; give a folder that `train_router` wrote"
    )
    (tmp_path / "router.json").write_text('{"kind": "oracle", "teachers": ["a"]}')
    with pytest.raises(
        InputError, match="holds the router kind 'oracle', known are llm, logistic, ridge, knn, best_per_topic, "
    ):
        load(tmp_path)
    (tmp_path / "router.json").write_text("{")
    with pytest.raises(InputError, match="is not valid JSON"):
        load(tmp_path)
