"""A trained router in memory, with what its calibration and dev prompts say of its scores."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from persyn_hf.api.arguments import check_number, check_path
from persyn_hf.api.progress import shown
from persyn_hf.api.tables import Prompts, in_memory, prompt_table
from persyn_hf.core.arrays import FloatArray
from persyn_hf.core.confidence import Curve, Worth
from persyn_hf.errors import DamagedArtifact, InputError, StoreError, reason
from persyn_hf.recipe.roles import Teacher
from persyn_hf.recipe.strategies import KINDS
from persyn_hf.stage import Context, Progress
from persyn_hf.stages.assign import Settings, decide
from persyn_hf.stages.assign.measured import Measured
from persyn_hf.stages.assign.routing import Dev, learn_from_dev, score_with
from persyn_hf.stages.assign.rows import write


if TYPE_CHECKING:
    from datasets import Dataset

    from persyn_hf.backends.routers import Router as Scores
    from persyn_hf.store.local import Store
    from persyn_hf.store.stored import Stored


LEARNED = "learned.json"  # beside a saved router: what is known of it besides its weights
UNKNOWN = Dev(None, None, {"dev_prompts": 0})


class Router:
    """A trained router, which `load_router` and `train_router` return: it names the best teacher of a prompt.

    `teachers`: the names, in the order of the scores. `metrics`: how it did on dev prompts (Hit@k, regret, share of
    the gap closed, beside a random teacher and the best single one), as on its card; empty where nobody measured it.
    """

    def __init__(
        self,
        folder: Path,
        scores: "Scores",
        prior: FloatArray,
        dev: Dev,
        metrics: Mapping[str, Any],
        home: TemporaryDirectory[str] | None = None,
    ) -> None:
        """Take what was read of a router. `prior` (n,): mean rewards, which decide between equal scores."""
        self.teachers = scores.teachers
        self.metrics = metrics
        self._folder, self._scores, self._prior, self._dev = folder, scores, prior, dev
        self._home = home  # a folder that goes when the router does

    def predict(self, prompts: Prompts, *, progress: bool | Progress = False) -> "Dataset":
        """Say for each prompt which teacher is to answer it.

        Args:
            prompts: any number of texts or conversations (each a list of {role, content} that ends with the user's
                turn), or a table with `prompt` or `messages`.
            progress: show a bar.

        Returns:
            A dataset with a row per prompt, in order: `prompt_id`, `teacher`; `scores`, one per teacher in the order
            of `teachers`; `margin`, the best minus the second best; `confidence`, the probability that the teacher is
            as good as the best, up to 0.05 of reward (null: fewer than 20 measured dev prompts are known).

        Raises:
            InputError: something is no prompt; it is named by its number.
        """
        asked = prompt_table(prompts, split="pool")
        pool = tuple(Teacher(name=name) for name in self.teachers)
        assigned = assign_by(self, asked, None, Settings(kind="persyn"), pool, None, progress)
        return assigned.remove_columns(["source", "split"])

    def save(self, folder: str | Path) -> None:
        """Write the router into a folder, which is made where it is not there; `load_router` reads it."""
        shutil.copytree(self._folder, folder, dirs_exist_ok=True)
        known = {"prior": self._prior.tolist(), "dev": self._dev._asdict(), "metrics": self.metrics}
        (Path(folder) / LEARNED).write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")

    def __repr__(self) -> str:
        return f"<persyn_hf router over {', '.join(self.teachers)}>"


def load_router(
    ref: str | Path,
    *,
    store: "Store | str | Path | None" = None,
    confidence: bool = True,
    alpha: float | None = None,
    device: str = "auto",
) -> Router:
    """Load a router, from the store or the Hub (NAMESPACE/NAME@TAG), or from a folder that `Router.save` wrote.

    How sure an artifact's router is follows from the dev prompts and rewards that it was trained beside. They are
    looked for in the store, then on the Hub; where they are not there, the confidence of its predictions is null.

    Args:
        ref: the reference, or the folder.
        store: a store or its root; None: `PERSYN_STORE`, else `./artifacts`.
        confidence: look for these prompts and rewards, which may be a download.
        alpha: weight of learnability, for a router trained with `objective: two_head`; None: as it was trained. How
            sure one of a folder is with another weight is not known.
        device: where an llm router or an encoder runs: auto, cpu, cuda, cuda:1, mps.

    Raises:
        StoreError: neither store nor Hub holds it. DamagedArtifact: a file does not match its digest.
        InputError: it is no router, there is no such folder, or an argument is of a wrong type.
    """
    from persyn_hf.backends.routers import load
    from persyn_hf.schemas import ROUTER
    from persyn_hf.store.load import open_checked
    from persyn_hf.store.local import Store

    check_path("ref", ref, "NAMESPACE/NAME@TAG or a folder")
    if alpha is not None:
        check_number("alpha", alpha)
    if Path(ref).is_dir():
        scores = load(Path(ref), device, alpha)
        prior, dev, metrics = _read_learned(Path(ref) / LEARNED, len(scores.teachers))
        return Router(Path(ref), scores, prior, dev if alpha is None else UNKNOWN, metrics)
    if isinstance(ref, Path) or ref.startswith((".", "/", "~")):
        raise InputError(
            f"the folder {ref} does not exist; give a folder that `Router.save` wrote, or a router of the store or "
            "the Hub, NAMESPACE/NAME@TAG"
        )
    store = store if isinstance(store, Store) else Store(store)
    stored = open_checked(ref, store, ROUTER.kind)
    if stored.kind != ROUTER.kind:
        raise InputError(f"{stored.ref} is of kind `{stored.kind}`, needed is a router; name another artifact")
    scores = load(stored.path, device, alpha)
    prior, dev = np.zeros(len(scores.teachers)), UNKNOWN
    asked, rewarded = (_beside(stored, word, store) if confidence else None for word in ("prompts", "rewards"))
    if asked is not None and rewarded is not None:
        weight = stored.manifest.settings.get("alpha") if alpha is None else alpha
        prompts, rewards = store.read_dataset(asked, split="dev"), store.read_dataset(rewarded)
        prior, dev = learn(scores, prompts, rewards, weight)
    return Router(stored.path, scores, prior, dev, stored.manifest.metrics)


def _read_learned(path: Path, num_teachers: int) -> tuple[FloatArray, Dev, Mapping[str, Any]]:
    """Read what is known of a saved router: mean rewards (n,), what dev says, metrics; a folder may lack the file."""
    if not path.is_file():
        return np.zeros(num_teachers), UNKNOWN, {}
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        curve, worth = known["dev"]["curve"], known["dev"]["worth"]
        dev = Dev(curve and Curve(*curve), worth and Worth(*worth), dict(known["dev"]["report"]))
        return np.array(known["prior"], dtype=np.float64).reshape(num_teachers), dev, dict(known["metrics"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({reason(error)}); save the router again, or remove this file") from None


def learn(
    scores: "Scores", prompts: "Dataset", rewards: "Dataset", alpha: float | None, progress: Progress | None = None
) -> tuple[FloatArray, Dev]:
    """Return the teachers' mean rewards on calibration (n,), and what the dev prompts say of a router's scores."""
    pool, settings = list(scores.teachers), Settings(kind="persyn")
    means = Measured([rewards], settings.chosen_splits, pool, alpha).means
    dev = Measured([rewards], ("dev",), pool, alpha)
    advance = progress.advance if progress is not None else _nothing
    return means, learn_from_dev(settings, prompts, dev, means, score_with(scores, advance))


def assign_by(
    router: Router,
    prompts: "Dataset",
    rewards: "Dataset | None",
    settings: Settings,
    teachers: Sequence[Teacher],
    responses: "Dataset | None",
    progress: bool | Progress,
) -> "Dataset":
    """Assign prompts of the `prompts` contract by a router, as the stage `assign` does; `teachers` in its order.

    Where no rewards are given, what the router knows of its own calibration and dev prompts decides.
    """
    pool = list(router.teachers)
    fixed = KINDS[settings.kind].alpha
    alpha = settings.alpha if fixed is None else fixed
    measured = Measured([rewards], settings.chosen_splits, pool, alpha)
    if not measured.num_prompts:
        measured.means = router._prior
    with shown(progress) as bars, TemporaryDirectory() as folder:
        score = score_with(router._scores, bars.advance)
        dev = router._dev
        if rewards is not None and "dev" in rewards["split"][:]:
            dev = learn_from_dev(settings, prompts, Measured([rewards], ("dev",), pool, alpha), measured.means, score)
        context = Context(seed=0, work_dir=Path(folder), teachers=tuple(teachers), progress=bars)
        decisions = decide(settings, context, prompts, measured, score, dev, responses, {})
        data, _, _ = write(decisions, pool, Path(folder) / "assignments.arrow")
        return in_memory(data)


def _beside(stored: "Stored", word: str, store: "Store") -> "Stored | None":
    """Return an input of a stored router, where it can be read and is what the router was made from."""
    from persyn_hf.store.load import open_checked

    given = stored.manifest.inputs.get(word)
    if given is None:
        return None
    try:
        found = open_checked(given.ref, store)
    except DamagedArtifact:
        raise
    except StoreError:
        return None
    return found if found.digest == given.digest else None


def _nothing(_: int) -> None:
    """Report to nobody."""
