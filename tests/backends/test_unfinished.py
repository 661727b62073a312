"""Batches that are cut short again and again end with the tokens of an undisturbed one."""

import os
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from persyn_hf.backends import generation
from persyn_hf.backends.answers import Request, Sampling
from persyn_hf.backends.engines import unfinished
from persyn_hf.backends.engines.transformers import TransformersEngine


NEW = 40  # tokens
ENDS = list(range(4, 12))  # so many that some rows end early
WINDOW = 16  # shorter than prompt and answer
Usage = namedtuple("Usage", "total used free")

# Layers keep keys and values, of a window only or of all, and states of convolutions and recurrences; experts nothing.
CONFIGS: dict[str, dict[str, Any]] = {
    "LlamaConfig": {},
    "MistralConfig": {"sliding_window": WINDOW},
    "Gemma3TextConfig": {"head_dim": 16, "sliding_window": WINDOW},
    "Qwen3MoeConfig": {"moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2},
    "Lfm2Config": {},
    "GraniteMoeHybridConfig": {
        "layer_types": ["mamba", "attention"] * 2,
        "mamba_n_heads": 8,
        "mamba_d_head": 16,
        "mamba_d_state": 16,
        "mamba_n_groups": 1,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "shared_intermediate_size": 32,
    },
}


class Cut(KeyboardInterrupt):
    """Stands for a kill where the process must live on."""


def build(name: str) -> Any:
    import transformers

    common = {
        "vocab_size": 320,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
    }
    torch.manual_seed(0)
    config = getattr(transformers, name)(**common | CONFIGS[name])
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():  # louder than at initialisation
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(3)
    generation.prepare(model)
    return model.eval()


@pytest.fixture(scope="module")
def model() -> Any:
    return build("LlamaConfig")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "unfinished" / "batch.pt"


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """A state after every token."""
    monkeypatch.setattr(unfinished, "EVERY_S", 0.0)
    monkeypatch.setattr(unfinished, "TIMES_A_WRITE", 0.0)


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The number of tokens after which a generation is cut short, if any; it may be changed."""
    after: list[int] = []
    done = [0]
    note, call = unfinished._Keeper.__init__, unfinished._Keeper.__call__

    def begin(self: Any, *args: Any) -> None:
        done[0] = 0
        note(self, *args)

    def counted(self: Any, *args: Any) -> torch.Tensor:
        ended = call(self, *args)
        done[0] += 1
        if after and done[0] == after[0]:
            raise Cut
        return ended

    monkeypatch.setattr(unfinished._Keeper, "__init__", begin)
    monkeypatch.setattr(unfinished._Keeper, "__call__", counted)
    yield after


def batch(seed: int = 1) -> dict[str, torch.Tensor]:
    """Six prompts of 9 to 20 tokens, padded on the left."""
    torch.manual_seed(seed)
    ids = torch.randint(12, 320, (6, 20))
    mask = torch.ones_like(ids)
    for row, padded in enumerate([0, 3, 11, 0, 7, 1]):
        ids[row, :padded] = mask[row, :padded] = 0
    return {"input_ids": ids, "attention_mask": mask}


def generate(model: Any, path: Path | None, temperature: float = 0.8, seed: int = 1) -> torch.Tensor:
    drawn = {"top_p": 0.95, "top_k": 50} if temperature else {}
    config = generation.request(max_tokens=NEW, ends=ENDS, pad=0, temperature=temperature, **drawn)
    with torch.inference_mode(), torch.random.fork_rng():
        torch.manual_seed(5)
        return unfinished.generate(model, batch(seed), config, path)[0]


def cut_short(model: Any, path: Path) -> None:
    with pytest.raises(Cut):
        generate(model, path)


@pytest.mark.heavy
@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("name", CONFIGS)
def test_cut_every_seven_tokens_it_ends_with_the_same_tokens(
    name: str, temperature: float, path: Path, always: None, cut: list[int]
) -> None:
    model = build(name)
    whole = generate(model, None, temperature)
    cut.append(7)
    starts = 0
    while True:
        starts += 1
        try:
            found = generate(model, path, temperature)
            break
        except Cut:
            assert torch.load(path, weights_only=True)["ids"].shape[1] == 20 + 7 * starts  # gets on by all 7
    assert found.equal(whole)
    assert starts == -(-whole.shape[1] // 7) > 2
    if temperature:
        ended = [int(row.nonzero()[0]) for row in torch.isin(whole, torch.tensor(ENDS)) if row.any()]
        assert min(ended) < 7 < len(whole[0]) - 7  # in a state that was read, this row had ended and others had not


def test_a_state_is_the_whole_state(path: Path, model: Any, always: None, cut: list[int]) -> None:
    caches: list[Any] = []
    hook = model.register_forward_pre_hook(
        lambda _, args, inputs: caches.append(inputs["past_key_values"]), with_kwargs=True
    )
    generate(model, None)
    whole = caches[-1]
    cut.append(30)
    cut_short(model, path)
    generate(model, path)
    hook.remove()
    assert caches[-1] is not whole
    for layer, expected in zip(caches[-1].layers, whole.layers, strict=True):  # bit for bit, not only the tokens
        assert layer.keys.equal(expected.keys)
        assert layer.values.equal(expected.values)


@pytest.mark.parametrize("spoiled", ["cut short", "not a state", "older library", "other prompts", "other layers"])
def test_a_state_that_does_not_fit_is_not_used(
    spoiled: str, path: Path, model: Any, always: None, cut: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = generate(model, None)
    cut.append(9)
    cut_short(model, path)
    if spoiled == "cut short":
        path.write_bytes(path.read_bytes()[:-100])
    elif spoiled == "not a state":
        path.write_bytes(b"PK\x03\x04")
    else:
        state = torch.load(path, weights_only=True)
        if spoiled == "older library":
            state["under"][0] = "2.0.0"
        elif spoiled == "other prompts":
            state["ids"][0, 19] += 1
        else:
            state["layers"] = state["layers"][:1]
        torch.save(state, path)
    cut.clear()
    fresh: list[int] = []
    call = unfinished._Keeper.__call__
    monkeypatch.setattr(
        unfinished._Keeper, "__call__", lambda self, ids, *args: fresh.append(ids.shape[1]) or call(self, ids, *args)
    )
    assert generate(model, path).equal(whole)
    assert fresh[0] == 21


def test_a_fault_removes_the_state_lest_the_next_run_get_stuck(
    path: Path, model: Any, always: None, cut: list[int]
) -> None:
    cut.append(9)
    cut_short(model, path)

    def fail(*_: object) -> None:
        raise RuntimeError("some kernel")

    hook = model.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="some kernel"):
        generate(model, path)
    hook.remove()
    assert not path.exists()


def test_no_room_on_the_disk_costs_the_states_alone(
    path: Path, model: Any, always: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = generate(model, None)
    monkeypatch.setattr(unfinished.shutil, "disk_usage", lambda _: Usage(2**30, 2**30, 100))
    assert generate(model, path).equal(whole)
    assert list(path.parent.iterdir()) == []
    monkeypatch.undo()
    blocked = path.parent / "file"
    blocked.write_text("")
    assert generate(model, blocked / "batch.pt").equal(whole)


def test_a_model_with_a_cache_of_its_own_is_begun_anew(path: Path, always: None) -> None:
    from transformers import Mamba2Config, Mamba2ForCausalLM

    size = {"hidden_size": 64, "num_heads": 8, "head_dim": 16, "state_size": 16, "n_groups": 1}
    model = Mamba2ForCausalLM(Mamba2Config(vocab_size=320, num_hidden_layers=2, **size)).eval()
    generation.prepare(model)
    assert generate(model, path).equal(generate(model, None))
    assert not path.exists()


def test_states_that_nobody_wants_any_more_go(path: Path, model: Any, always: None) -> None:
    path.parent.mkdir()
    old, recent = path.parent / "old.pt", path.parent / "recent.pt"
    old.touch()
    recent.touch()
    os.utime(old, (0, 0))
    generate(model, path)
    assert sorted(file.name for file in path.parent.iterdir()) == ["batch.pt", "recent.pt"]


def test_the_engine_goes_on_and_removes_the_state_after_its_answers_were_taken(
    tiny_models: dict[str, Path], tmp_path: Path, always: None, cut: list[int]
) -> None:
    sampling = Sampling(temperature=0.8, top_p=1.0, top_k=0, max_tokens=30, seed=5)
    folder = tmp_path / "unfinished"
    with TransformersEngine(str(tiny_models["qwen2"]), batch_tokens=999, dtype="float32", state_dir=folder) as engine:
        prompt = engine.prepare([{"role": "user", "content": "q"}])
        asked = [
            Request(prompt_id="p", model=engine.model, engine="e", sample_index=at, prompt=prompt, sampling=sampling)
            for at in range(4)
        ]
        whole = [answer.text for answers in engine.generate([asked]) for answer in answers]
        assert list(folder.iterdir()) == []
        cut.append(5)
        with pytest.raises(Cut):
            next(engine.generate([asked]))
        (state,) = folder.iterdir()
        before = torch.load(state, weights_only=True)["seconds"]
        cut.clear()
        answering = engine.generate([asked])
        answers = next(answering)
        assert [answer.text for answer in answers] == whole
        assert sum(answer.seconds for answer in answers) > before > 0
        assert state.exists()  # a kill before the journal has the answers
        assert list(answering) == []
        assert list(folder.iterdir()) == []


def test_a_short_batch_leaves_the_disk_alone(path: Path, model: Any) -> None:
    generate(model, path)
    assert not path.parent.exists()
