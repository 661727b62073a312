"""A short pretraining run: the same weights twice, and a falling loss. The corpus keeps clear of the splits."""

import random

import pytest

from persyn_hf.tiny.corpus import draw_document, encode
from persyn_hf.tiny.pretrain import build_model, pretrain
from persyn_hf.tiny.questions import draw_question, make_splits
from persyn_hf.tiny.styles import STYLES
from persyn_hf.tiny.tokenizer import build_tokenizer
from persyn_hf.tiny.zoo import ZOO, ModelSpec, Phase, check_spec, find_spec


TINY = ModelSpec(
    "tiny",
    "teacher",
    "qwen2",
    32,
    1,
    level_2_share=0.5,
    seed=0,
    strong=("add", "list"),
    weak_weight=0.2,
    phases=(Phase({"eq": 1.0}, 20, batch=8), Phase({"eq": 0.5, "terse": 0.5}, 10, batch=8)),
)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_same_seed_gives_the_same_weights_and_the_loss_falls(tokenizer):
    first, losses = pretrain(TINY, tokenizer, set())
    second, again = pretrain(TINY, tokenizer, set())
    assert losses == again and len(losses) == 30
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert one.equal(other)
    assert sum(losses[-5:]) < 0.95 * sum(losses[:5])


def test_banned_questions_are_in_no_document():
    splits = make_splits(0)
    banned = {one.question for rows in splits.values() for one in rows}
    spec = find_spec("qwen-student")
    rng = random.Random(0)
    documents = [draw_document(spec, spec.phases[0], banned, rng) for _ in range(4000)]
    asked = {one.prefix.removeprefix("<|user|>").removesuffix("<|end|><|assistant|>") for one in documents}
    assert len(asked) > 1000 and not asked & banned


def test_skill_weights_and_levels_follow_the_spec(monkeypatch):
    drawn = []

    def spy(rng, skill, level):
        drawn.append((skill, level))
        return draw_question(rng, skill, level)

    monkeypatch.setattr("persyn_hf.tiny.corpus.draw_question", spy)
    phase = Phase({"eq": 1.0}, 1, drill=0.0)
    rng = random.Random(0)
    for _ in range(2000):
        draw_document(TINY, phase, set(), rng)
    strong = [level for skill, level in drawn if skill in TINY.strong]
    assert 0.62 < len(strong) / len(drawn) < 0.72  # 2 / (2 + 5 * .2)
    assert 0.45 < strong.count(2) / len(strong) < 0.55
    assert all(level == 1 for skill, level in drawn if skill not in TINY.strong)


def test_loss_is_on_the_response_and_its_end_only(tokenizer):
    rng = random.Random(0)
    documents = [draw_document(TINY, TINY.phases[0], set(), rng) for _ in range(50)]
    for document, example in zip(documents, encode(documents, tokenizer), strict=True):
        assert tokenizer.decode(example.token_ids[example.learnt_from :]) == document.target
        assert tokenizer.decode(example.token_ids[: example.learnt_from]) == document.prefix
        assert document.target.endswith("<|end|>")


@pytest.mark.parametrize("spec", ZOO, ids=lambda spec: spec.name)
def test_specs_are_valid(spec, tokenizer):
    check_spec(spec)
    assert build_model(spec, tokenizer).num_parameters() < (700_000 if spec.name == "llama-long" else 300_000)


def test_zoo_has_what_the_strategies_need():
    assert len({spec.seed for spec in ZOO}) == len({spec.name for spec in ZOO}) == len(ZOO)
    teachers = [spec for spec in ZOO if spec.role == "teacher"]
    assert {spec.style for spec in teachers} == set(STYLES)
    assert {spec.architecture for spec in teachers} == {"qwen2", "llama", "gemma2", "mistral"}


def test_bad_specs_are_refused():
    with pytest.raises(ValueError, match="must sum to 1"):
        check_spec(ModelSpec("bad", "teacher", "llama", 32, 1, (Phase({"eq": 0.5}, 1),), 0.5, 0))
    with pytest.raises(ValueError, match="skills are"):
        check_spec(ModelSpec("bad", "teacher", "llama", 32, 1, (Phase({"eq": 1.0}, 1),), 0.5, 0, strong=("rem",)))
    with pytest.raises(ValueError, match="there are: llama-long"):
        find_spec("gpt-9")
