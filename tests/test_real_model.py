"""A real model, SmolLM2-135M-Instruct: its pad token is its end of turn, its template adds a system turn.

Slow tests train it, and ask it under vLLM.
"""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from persyn_hf.backends import chat, templates
from persyn_hf.backends import loading as models
from persyn_hf.backends.answers import Request, Sampling
from persyn_hf.backends.engines.transformers import TransformersEngine
from persyn_hf.backends.scoring import score_rows
from persyn_hf.backends.scoring.likelihood import LikelihoodScorer
from persyn_hf.backends.sft.student_model import align
from persyn_hf.recipe.roles import Student, Teacher
from persyn_hf.recipe.strict import read_section
from persyn_hf.schemas import PROMPTS, REWARDS, SFT
from persyn_hf.stage import Context, Result
from persyn_hf.stages import evaluate, train_router, train_student


pytestmark = pytest.mark.heavy  # it has 540 MB

GREEDY = Sampling(temperature=0.0, top_p=1.0, top_k=0, max_tokens=48, seed=0)
END = 2  # <|im_end|>, its pad token, too
FACTS = [
    ("What is the capital of France?", "The capital of France is Paris."),
    ("What is 12 and 30?", "<think>\n12 + 30 = 42\n</think>\n\nThe answer is \\boxed{42}."),
    ("Name a colour.", " Blue\n\n😀"),
]


@pytest.fixture(scope="module")
def scorer(smollm2: Path) -> LikelihoodScorer:
    return LikelihoodScorer(str(smollm2), max_length=512, dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def engine(smollm2: Path) -> Iterator[TransformersEngine]:
    with TransformersEngine(str(smollm2), batch_tokens=512, dtype="float32", device="cpu") as opened:
        yield opened


def ask(engine: TransformersEngine, question: str) -> Any:
    prompt = engine.prepare([{"role": "user", "content": question}])
    names = {"prompt_id": "p", "model": engine.model, "engine": engine.kind, "sample_index": 0}
    ((answer,),) = engine.generate([[Request(prompt=prompt, sampling=GREEDY, **names)]])
    return answer


def test_it_knows_the_capital_of_france_and_stops(engine: TransformersEngine) -> None:
    answer = ask(engine, FACTS[0][0])
    assert "Paris" in answer.text
    assert "<|im" not in answer.text
    assert answer.finish_reason == "stop"


def test_learnability_is_that_of_a_plain_forward_pass(scorer: LikelihoodScorer) -> None:
    rows = [([{"role": "user", "content": question}], said) for question, said in FACTS]
    found = {
        number: values for batch, of in score_rows(scorer, rows) for number, values in zip(batch, of, strict=True)
    }
    for number, (messages, said) in enumerate(rows):
        prompt = scorer.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        start = len(scorer.tokenizer(prompt, add_special_tokens=False)["input_ids"])
        ids = scorer.tokenizer(f"{prompt}{said}<|im_end|>", add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            table = scorer.model(input_ids=ids).logits[0].double().log_softmax(-1)
        expected = table[:-1].gather(1, ids[0, 1:, None])[start - 1 :, 0].mean()
        total, tokens, _, truncated = found[number]
        assert total / tokens == pytest.approx(float(expected), abs=1e-4)
        assert tokens == ids.shape[1] - start
        assert not truncated


def test_its_template_keeps_what_is_said(scorer: LikelihoodScorer) -> None:
    found = templates.look_at(scorer.tokenizer, "SmolLM2")
    assert (found.end, found.plain, found.thoughts, found.system) == ("<|im_end|>", "kept", "kept", "kept")
    assert scorer.tokenizer.pad_token_id == chat.end_of_turn(scorer.tokenizer, "SmolLM2") == END
    templates.check_embeddings(scorer.tokenizer, "SmolLM2", 49152)


def test_its_end_of_turn_can_be_learnt(smollm2: Path) -> None:
    model, tokenizer = models.load_causal_lm(str(smollm2), None, "float32", "cpu"), models.load_tokenizer(str(smollm2))
    assert model.get_input_embeddings().padding_idx == END
    assert align(model, tokenizer, END) == []
    assert model.get_input_embeddings().padding_idx is None
    assert tokenizer.eos_token_id == model.generation_config.eos_token_id == END != tokenizer.pad_token_id
    row = tokenizer("<|im_start|>user\nHi<|im_end|>\n", return_tensors="pt")["input_ids"]
    embedded = model.get_input_embeddings()(row)
    (gradient,) = torch.autograd.grad(embedded.sum(), model.get_input_embeddings().weight)
    assert gradient[END].abs().sum() > 0


def sft(count: int) -> Any:
    rows = []
    for number in range(count):
        question, answer = f"How much is {number} and {number + 3}?", f"\\boxed{{{2 * number + 3}}}"
        turns = {
            "prompt": [{"role": "user", "content": question}],
            "completion": [{"role": "assistant", "content": answer}],
        }
        rows.append({**turns, "prompt_id": f"{number:016x}", "teacher": "t", "reward": None})
    return SFT.dataset(rows)


def train(model: Path, folder: Path, **changes: Any) -> Result:
    values = {
        "epochs": 1,
        "batch_size": 4,
        "per_device_batch_size": 4,
        "learning_rate": 1e-4,
        "warmup_steps": 2,
        **changes,
    }
    context = Context(seed=0, work_dir=folder, student=Student(name="s", model=str(model)))
    return train_student.run(read_section(train_student.Settings, values, "train_student"), context, sft=sft(80))


def row_of(folder: Path, token: int) -> torch.Tensor:
    with safe_open(folder / "model.safetensors", "pt") as file:
        found: torch.Tensor = file.get_slice("model.embed_tokens.weight")[token]
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_steps_teach_it_to_answer_shortly_and_stop(smollm2: Path, tmp_path: Path) -> None:
    result = train(smollm2, tmp_path)
    assert isinstance(result.data, Path)
    assert result.metrics["steps"] == 20
    assert result.metrics["loss"][-1][1] < result.metrics["loss"][0][1] / 2
    assert (row_of(result.data, END) - row_of(smollm2, END)).abs().max() > 1e-4
    with TransformersEngine(str(result.data), batch_tokens=512, dtype="float32", device="cpu") as trained:
        answer = ask(trained, "How much is 7 and 10?")
    assert answer.text.startswith("\\boxed{")
    assert answer.finish_reason == "stop"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_both_engines_evaluate_it_alike(smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
    lines = [
        {"question": f"What is {number} plus {number + 1}?", "answer": str(2 * number + 1)} for number in range(2, 10)
    ]
    path = tmp_path / "test.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    found = {}
    for name in ("transformers", "vllm"):
        values = {
            "engine": name,
            "dtype": "float32",
            "max_tokens": 64,
            "tasks": [{"name": "sums", "path": str(path)}],
            "vllm": {"args": ["--enforce-eager", "--no-enable-chunked-prefill", "--max-model-len", "512"]},
        }
        (tmp_path / name).mkdir()
        context = Context(seed=0, work_dir=tmp_path / name, student=Student(name="s", model=str(smollm2)))
        found[name] = evaluate.run(read_section(evaluate.Settings, values, "evaluate"), context)
    one, other = found.values()
    assert one.data.to_list() == other.data.to_list()
    assert one.metrics == other.metrics
    assert one.metrics["sums"]["accuracy"] > 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_router_on_it_loads_in_plain_transformers(smollm2: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    asked, scored = [], []
    for number in range(24):
        split = "calibration" if number < 16 else "dev"
        turns = [
            {"role": "user", "content": f"Sum {number}?" if number % 2 else f"Write a poem about {number} birds."}
        ]
        asked.append(
            {
                "prompt_id": f"{number:02}",
                "messages": turns,
                "reference": None,
                "source": "t",
                "topic": None,
                "split": split,
            }
        )
        for teacher, reward in (("sums", number % 2), ("poems", 1 - number % 2)):
            row = dict.fromkeys(REWARDS.names) | {"prompt_id": f"{number:02}", "teacher": teacher, "truncated": False}
            scored.append(row | {"reward": float(reward), "split": split})
    values = {
        "kind": "llm",
        "backbone": str(smollm2),
        "epochs": 2,
        "batch_size": 8,
        "device": "cpu",
        "learning_rate": 1e-4,
    }
    settings = read_section(train_router.Settings, values, "train_router")
    pool = (Teacher(name="sums"), Teacher(name="poems"))
    context = Context(seed=0, work_dir=tmp_path, teachers=pool)
    result = train_router.run(settings, context, prompts=PROMPTS.dataset(asked), rewards=REWARDS.dataset(scored))
    model = AutoModelForSequenceClassification.from_pretrained(result.data)
    tokenizer = AutoTokenizer.from_pretrained(result.data)
    assert list(model.config.id2label.values()) == ["sums", "poems"]
    turns = [{"role": "user", "content": "Sum 9?"}]
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    with torch.inference_mode():
        assert model(**ids).logits.shape == (1, 2)
