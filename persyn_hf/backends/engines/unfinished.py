"""Keep the state of a batch that `transformers` is generating: a run killed more often than a batch takes gets on.

The state is all that the next token depends on: the tokens so far, the keys and values of every layer as they are, and
the state of the random numbers. So the tokens that follow are those of an undisturbed run, bit for bit. (Keys and
values computed anew from the tokens differ in their last bits: a prompt is multiplied in other blocks than a token.)
An example, with a state every 30 s and a batch of 100 s:

    run 1 is killed after 70 s    the state of 60 s is in the file
    run 2 is killed after 50 s    it began at 60 s; the state of 90 s is in the file
    run 3                         begins at 90 s, ends the batch at 100 s; its answers are journalled, the file goes

What does not lead to the same tokens is not used: a state of other prompts, library versions or another device, or a
file that cannot be read. The batch then begins anew, as it does where a model keeps more than keys and values.
"""

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    import torch
    from transformers import DynamicCache, GenerationConfig, PreTrainedModel

EVERY_S = 30.0  # at least, between two states
TIMES_A_WRITE = 20.0  # at least, between two states: writing takes a 20th of the time, whatever disk and model
OLD_S = 30 * 86400.0  # a state of a batch that nobody has asked for since


def generate(
    model: "PreTrainedModel",
    inputs: Mapping[str, "torch.Tensor"],
    config: "GenerationConfig",
    path: Path | None,
) -> tuple["torch.Tensor", float]:
    """Return the new tokens of a batch, (rows, tokens), and the seconds that they took, those of killed runs included.

    The caller has set the seed. The state is read from `path`, and kept there until the caller removes it. `inputs`
    are `input_ids` and `attention_mask`, padded on the left.
    """
    from torch.nn.functional import pad

    started = time.perf_counter()
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    width = ids.shape[1]
    if path is None or model.device.type == "mps":  # there the end of a batch is seen a step late
        output = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
        return output[:, width:], time.perf_counter() - started
    found = _read(path, model, ids)
    keeper = _Keeper(path, model, width, config, started - (found["seconds"] if found else 0.0))
    further: dict[str, Any] = {}
    decoding: Any = nullcontext()
    if found is not None:
        ids = found["ids"]
        mask = pad(mask, (0, ids.shape[1] - width), value=1)
        further = {"past_key_values": found["cache"]}
        config.max_new_tokens -= ids.shape[1] - width
        keeper.ended = _ended(ids[:, width:], config)
        decoding = model._optimize_model_for_decode()  # the first token, too, is one of the middle of an answer
        _set_random(found["random"], model)
    hook = model.register_forward_pre_hook(keeper.note_cache, with_kwargs=True)
    try:
        with decoding:
            output = model.generate(
                input_ids=ids, attention_mask=mask, generation_config=config, stopping_criteria=[keeper], **further
            )
    except Exception:  # whatever it is, a next run must not get stuck at it
        remove(path)
        raise
    finally:
        hook.remove()
    return output[:, width:], time.perf_counter() - keeper.started


def remove(path: Path | None) -> None:
    """Remove the state of a batch whose answers are journalled."""
    if path is not None:
        path.unlink(missing_ok=True)


class _Keeper:
    """A stopping criterion: called after every token, it keeps the state when it is time, and stops nothing by itself.

    `ended` are the rows that had ended in the state which was read. `generate` takes all rows for open ones at first.
    """

    def __init__(
        self, path: Path, model: "PreTrainedModel", width: int, config: "GenerationConfig", started: float
    ) -> None:
        self._path, self._model, self._width, self._config = path, model, width, config
        self._last = width + config.max_new_tokens
        self._cache: Any = None
        self._due = time.perf_counter() + EVERY_S
        self.started = started
        self.ended: torch.Tensor | None = None

    def note_cache(self, _: object, args: tuple[object, ...], inputs: dict[str, Any]) -> None:
        """Note the cache that `generate` has made: a hook before every forward pass."""
        self._cache = inputs.get("past_key_values")

    def __call__(self, ids: "torch.Tensor", scores: object, **_: object) -> "torch.Tensor":
        """Return which rows end here, of those that had ended before: `generate` then pads them by itself."""
        ended, self.ended = self.ended, None
        if ended is not None:
            ids[ended, -1] = self._config.pad_token_id
        now = time.perf_counter()
        if now >= self._due and ids.shape[1] < self._last:
            self._keep(ids)
            took = time.perf_counter() - now
            self._due = now + took + max(EVERY_S, TIMES_A_WRITE * took)
        return ids.new_zeros(len(ids), dtype=bool) if ended is None else ended

    def _keep(self, ids: "torch.Tensor") -> None:
        """Write the state as a whole; where that fails, for want of room say, the batch goes on without."""
        import torch
        from transformers import DynamicCache

        if type(self._cache) is not DynamicCache:
            return
        state = {
            "under": _under(self._model),
            "width": self._width,
            "ids": ids,
            "layers": [(type(layer).__name__, vars(layer)) for layer in self._cache.layers],
            "random": _random(self._model),
            "seconds": time.perf_counter() - self.started,
        }
        part = self._path.with_suffix(".part")
        try:
            part.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _remove_old(part.parent)
            if shutil.disk_usage(part.parent).free < 2 * _size(self._cache):  # the journal needs room, too
                return
            with part.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._path)
        except (OSError, RuntimeError):  # torch's own writer raises the second
            part.unlink(missing_ok=True)


def _read(path: Path, model: "PreTrainedModel", prompts: "torch.Tensor") -> dict[str, Any] | None:
    """Read a state, with its `cache` made; None where there is none that the same tokens would follow."""
    import torch

    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location=model.device, weights_only=True)
        width = prompts.shape[1]
        if state["under"] != _under(model) or state["width"] != width or not state["ids"][:, :width].equal(prompts):
            return None
        state["cache"] = _fill_cache(model, state["layers"])
    except Exception:  # noqa: BLE001  # a damaged file raises anything, and costs the time of the batch, no answer
        return None
    return state


def _fill_cache(model: "PreTrainedModel", layers: Sequence[tuple[str, dict[str, Any]]]) -> "DynamicCache":
    """Make the cache that `generate` makes for the model, in the state kept. Raises where its layers are others."""
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    for layer, (kind, state) in zip(cache.layers, layers, strict=True):
        if type(layer).__name__ != kind:
            raise ValueError(kind)
        vars(layer).update(state)
    return cache


def _under(model: "PreTrainedModel") -> list[str]:
    """Return what a state holds for, besides the model and the requests, by which its file is named."""
    import torch
    import transformers

    device = torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else model.device.type
    return [str(torch.__version__), transformers.__version__, device]


def _random(model: "PreTrainedModel") -> list["torch.Tensor"]:
    import torch

    devices = [torch.cuda.get_rng_state(model.device)] if model.device.type == "cuda" else []
    return [torch.get_rng_state(), *devices]


def _set_random(states: Sequence["torch.Tensor"], model: "PreTrainedModel") -> None:
    import torch

    torch.set_rng_state(states[0].cpu())
    for state in states[1:]:
        torch.cuda.set_rng_state(state.cpu(), model.device)


def _ended(new: "torch.Tensor", config: "GenerationConfig") -> "torch.Tensor":
    """Return which rows hold an end token."""
    import torch

    return torch.isin(new, torch.tensor(config.eos_token_id, device=new.device)).any(dim=1)


def _size(cache: "DynamicCache") -> int:
    """Return the bytes of all tensors of a cache."""
    import torch

    values = [value for layer in cache.layers for value in vars(layer).values()]
    inner = [one for value in values for one in (value.values() if isinstance(value, dict) else [value])]
    return sum(one.nbytes for one in inner if isinstance(one, torch.Tensor))


def _remove_old(folder: Path) -> None:
    """Remove states of batches that nobody has asked for in a long time."""
    for path in folder.iterdir():
        if path.stat().st_mtime < time.time() - OLD_S:
            path.unlink(missing_ok=True)
