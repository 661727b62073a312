"""Tell which prompts a change of the source moves to other splits, where answers are asked for anew."""

from collections import Counter
from typing import TYPE_CHECKING

from persyn_hf.store.local import Store
from persyn_hf.store.stored import Stored


if TYPE_CHECKING:
    from datasets import Dataset

KEPT = ("calibration", "dev")  # splits that a prompt must not leave without a word


def earlier_prompts(store: Store, repo: str, digest: str | None = None) -> Stored | None:
    """Return the newest prompts of a repository, but those with this digest; None: there are none."""
    there = [
        item for item in store.artifacts() if (item.repo, item.kind) == (repo, "prompts") and item.digest != digest
    ]
    return max(there, key=lambda item: item.manifest.created_at, default=None)


def moved(store: Store, earlier: Stored | None, prompts: "Dataset") -> str:
    """Say how many prompts of calibration and dev have another split than before, and how they keep it.

    Empty where none has. Example: "4 of 30 calibration prompts of lab/study-prompts@v1 are in another split now; ..."
    """
    if earlier is None:
        return ""
    before = store.read_dataset(earlier)
    split_of = dict(zip(prompts["prompt_id"][:], prompts["split"][:], strict=True))
    all_of, gone = Counter[str](), Counter[str]()
    for prompt, split in zip(before["prompt_id"][:], before["split"][:], strict=True):
        all_of[split] += 1
        gone[split] += split_of.get(prompt, split) != split
    parts = [f"{gone[split]:,} of {all_of[split]:,} {split} prompts" for split in KEPT if gone[split]]
    if not parts:
        return ""
    usable = earlier.manifest.counts.get("kept", len(before)) + earlier.manifest.counts.get("not_asked_for", 0)
    usable = earlier.manifest.settings.get("draw_from") or usable
    return (
        f"warning: {' and '.join(parts)} of {earlier.ref} are in another split now, so new ones are asked of every "
        f"teacher; where prompts were appended to the source, --set prompts.draw_from={usable} keeps the splits"
    )
