"""The Python that cards show runs, on artifacts of every kind of a real run."""

import re
from pathlib import Path
from typing import Any

import pytest
from smoke_run import ZOO

from persyn_hf.schemas import SCHEMAS
from persyn_hf.store.cards.card import render_card
from persyn_hf.store.local import Store


ELSEWHERE = re.compile(r"load_dataset\(|from_pretrained\(|evaluate\.run\(")  # on the Hub, or a whole evaluation
STUDENT = '"Qwen/Qwen2.5-0.5B"'  # of the examples, which stands for the reader's own


@pytest.mark.heavy
@pytest.mark.parametrize("kind", SCHEMAS)
def test_the_examples_of_a_card_run(
    kind: str, finished: tuple[Path, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PERSYN_STORE", str(finished[0]))
    stored = next(item for item in Store(finished[0]).artifacts() if item.kind == kind)
    card = render_card(stored.manifest, stored.tag)
    blocks = [code for code in re.findall(r"```python\n(.*?)```", card, re.DOTALL) if not ELSEWHERE.search(code)]
    assert len(blocks) >= 2, "how to load it, and what for"
    names: dict[str, Any] = {}
    for code in blocks:
        exec(compile(code.replace(STUDENT, repr(str(ZOO / "qwen-student"))), f"{kind} card", "exec"), names)
