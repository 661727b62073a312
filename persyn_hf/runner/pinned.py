"""Let a recipe begin in the middle: artifacts that its `inputs` name take the place of steps."""

from dataclasses import replace

from persyn_hf.errors import RecipeError
from persyn_hf.recipe.strict import nearest
from persyn_hf.runner.step import Step


def pin(steps: list[Step], pinned: dict[str, str]) -> list[Step]:
    """Replace the artifacts of pinned steps by their refs, and drop these steps and those that only they needed."""
    keys = [step.key for step in steps]
    refs: dict[str, str] = {}
    for name, ref in pinned.items():
        matches = [key for key in keys if key == name] or [key for key in keys if key.startswith(f"{name}-")]
        if len(matches) != 1:
            hint = nearest(name, keys) if not matches else f"; it fits {', '.join(matches)}: name one of them whole"
            raise RecipeError(f"inputs: `{name}` is not one artifact of this recipe{hint}")
        refs[matches[0]] = ref
    consumers = {key: {s.key for s in steps if key in s.inputs.values()} for key in keys}
    gone = set(refs)
    while unneeded := {key for key in keys if key not in gone and consumers[key] and consumers[key] <= gone}:
        gone |= unneeded
    kept = [step for step in steps if step.key not in gone]
    return [replace(s, inputs={word: refs.get(key, key) for word, key in s.inputs.items()}) for s in kept]
