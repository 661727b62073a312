"""What the Space takes from a store: files that were changed, versions."""

import re
from pathlib import Path
from typing import Any

import pytest
from space_samples import blob

from persyn_hf.errors import DamagedArtifact
from persyn_hf.space.collection import open_folder, open_shelf
from persyn_hf.space.events import Desk
from persyn_hf.store.local import Store


SPACE = Path(__file__).parent.parent.parent / "spaces" / "allocations"
FIRST = "org/assignments-s-routed@v1"


# Files that were changed


@pytest.mark.parametrize("name", ["assignments-s-persyn", "prompts", "rewards-s", "responses"])
def test_a_changed_file_of_the_store_is_not_shown(store: Store, changed: Any, name: str) -> None:
    stored = store.get(f"org/{name}@v1")
    changed(blob(stored), b"PAR1", b"PAR2")
    for refs in ([], ["org/assignments-s-persyn@v1"]):
        with pytest.raises(DamagedArtifact, match=rf"^org/{name}@v1: data/\S+\.parquet is damaged, found "):
            open_shelf(refs, store)


def test_a_changed_manifest_of_a_model_is_found(store: Store, changed: Any) -> None:
    router = store.get("org/router-s@v1")
    changed(blob(router, "persyn.json"), b'"seed": 0', b'"seed": 1')
    needed = router.manifest.model_copy(update={"seed": 1})
    with pytest.raises(DamagedArtifact) as error:
        open_shelf([FIRST], store)
    assert str(error.value) == (
        f"org/router-s@v1: its persyn.json gives digest {router.digest}, needed is {needed.content_digest()} by what "
        "else it says; see what is wrong with persyn artifacts verify org/router-s@v1"
    )


@pytest.mark.parametrize("ending", ["persyn.json", ".parquet"])
def test_a_changed_file_of_the_example_is_not_shown(tmp_path: Path, ending: str) -> None:
    folder = tmp_path / "example"
    for file in (SPACE / "example").rglob("*"):
        if file.is_file() and "assignments" in str(file):
            to = folder / file.relative_to(SPACE / "example")
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(file.read_bytes())
    assert len(open_folder(folder).assignments) == 5
    wrong = next(path for path in sorted(folder.rglob(f"*oracle*/**/*{ending}")))
    wrong.write_bytes(wrong.read_bytes().replace(b'"seed": 0', b'"seed": 1').replace(b"PAR1", b"PAR2"))
    with pytest.raises(DamagedArtifact) as error:
        open_folder(folder)
    assert str(error.value) == f"{wrong} is missing or was changed since it was made; copy {folder} anew"


# Versions


def test_without_references_every_version_is_shown_the_newest_first(store: Store) -> None:
    shelf = open_shelf([], store)
    routed = [item.ref for item in shelf.assignments if item.repo == "org/assignments-s-routed"]
    assert routed == [f"org/assignments-s-routed@v{number}" for number in range(10, 0, -1)]
    desk = Desk(shelf)
    for ref in routed[::9]:
        text = desk.show({"view": "lineage", "assignment": ref})["lineage"]
        digests = [shelf.get(other).digest[:12] for other in routed]
        assert re.findall(r"<code>([0-9a-f]{12})</code>", text) == digests
        assert re.search(rf"{ref}\s*<small>[^<]*{shelf.get(ref).digest[:12]}", text)
        assert "/tree/v" not in text.partition("Card")[0]  # nothing of it is known to be on the Hub


def test_a_reference_shows_its_version_and_no_other(store: Store) -> None:
    shelf = open_shelf(["org/assignments-s-routed@v2"], store)
    assert [item.ref for item in shelf.assignments] == ["org/assignments-s-routed@v2"]
    (newest,) = open_shelf(["org/assignments-s-routed"], store).assignments
    assert newest.ref == "org/assignments-s-routed@v10"
