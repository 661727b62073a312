import hashlib
import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from persyn_hf.backends.engines.planned import Keys


@given(
    st.lists(st.integers(0, 40), max_size=60),
    st.sets(st.integers(0, 59)),
    st.sampled_from(["", "00" * 8, "ab" * 16]),
    st.booleans(),
)
def test_keys_are_named_found_and_taken_once_as_plain_lists_do(
    drawn: list[int], wanted: set[int], prefix: str, rerun: bool
) -> None:
    """Whatever they begin with, and whoever comes twice; the name of a plan is that of stored ones."""
    texts = [(prefix + hashlib.sha256(str(number).encode()).hexdigest())[:64] for number in drawn]
    keys = Keys(len(texts), whole=True)
    for start in range(0, len(texts), 7):
        keys.add(texts[start : start + 7])
    plain = hashlib.sha256(json.dumps([sorted(texts), 32768, rerun]).encode()).hexdigest()
    assert keys.step(32768, rerun) == plain
    assert [texts[number] for number in keys.numbers(texts)] == texts
    numbers = sorted(number for number in wanted if number < len(texts))
    firsts = [at for place, at in enumerate(numbers) if texts[at] not in [texts[one] for one in numbers[:place]]]
    assert keys.once(np.array(numbers, dtype=int)).tolist() == firsts
    assert len(keys.once(np.array(numbers, dtype=int))) == len({texts[number] for number in numbers})
