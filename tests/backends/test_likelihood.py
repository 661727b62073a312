import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_models import build_model, build_tokenizer, save_model

from persyn_hf import errors
from persyn_hf.backends import chat, scoring
from persyn_hf.backends.batches import plan_batches
from persyn_hf.backends.scoring import Values, likelihood, score_rows
from persyn_hf.backends.scoring.likelihood import LikelihoodScorer


ZOO = Path(__file__).parents[2] / "recipes" / "tiny" / "zoo"
ARCHITECTURES = ("qwen2", "llama", "gemma2")
RESPONSES = ["The answer is 42.", "", "héllo\n\nworld 😀 <think>", "42" * 30]
QUESTIONS = ["What is 12 and 30?", "Sum?", "a much longer question, with many words and 1234567 in it", "x"]
CONVERSATIONS = [[{"role": "user", "content": question}] for question in QUESTIONS]
ROWS: list[chat.Row] = list(zip(CONVERSATIONS, RESPONSES, strict=True))
SMALL = {  # of every architecture below
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GPT = {"vocab_size": 320, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 256}
OTHERS: dict[str, dict[str, Any]] = {
    "gpt2": GPT,
    "bloom": {"vocab_size": 320, "hidden_size": 32, "n_layer": 2, "n_head": 2},
    "opt": SMALL | {"ffn_dim": 48, "word_embed_proj_dim": 16},
    "gpt_neox": SMALL,
    "phi": SMALL,
    "mistral": SMALL | {"sliding_window": 8},
    "mixtral": SMALL | {"sliding_window": 8},
    "gemma2": SMALL | {"sliding_window": 8, "head_dim": 16, "attn_logit_softcapping": 0.5, "initializer_range": 0.1},
    "qwen3": SMALL | {"head_dim": 16},
    "olmo2": SMALL,
    "granite": SMALL | {"logits_scaling": 4.0},
    "cohere": SMALL | {"logit_scale": 0.25},
}


def scorer(folder: Path, max_length: int = 256, dtype: Any = "float32") -> LikelihoodScorer:
    return LikelihoodScorer(str(folder), max_length=max_length, dtype=dtype)


def measure(student: LikelihoodScorer, rows: list[chat.Row], batch_tokens: int = 400) -> list[Values]:
    found: dict[int, Values] = {}
    for numbers, values in score_rows(student, rows, batch_tokens=batch_tokens):
        found.update(zip(numbers, values, strict=True))
    return [found[row] for row in range(len(rows))]


def naive(model: Any, turn: chat.Turn) -> tuple[float, int, float]:
    """Full logits of one row: sum of log-probabilities, tokens, sum of capped ranks."""
    ids = torch.from_numpy(turn.ids).long()
    with torch.no_grad():
        logits = model(ids[None], attention_mask=torch.ones(1, len(ids), dtype=torch.long)).logits[0].double()
    table = torch.log_softmax(logits, dim=-1)
    places = range(turn.start, len(ids))
    total = sum(float(table[place - 1, ids[place]]) for place in places)
    ranks = [1 + int((logits[place - 1] > logits[place - 1, ids[place]]).sum()) for place in places]
    return total, len(places), sum(min(rank, 100) for rank in ranks)


def save(folder: Path, architecture: str, config: dict[str, Any]) -> Path:
    torch.manual_seed(0)
    made = transformers.AutoConfig.for_model(architecture, **config)
    model = transformers.AutoModelForCausalLM.from_config(made)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(4)
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_equals_full_logits_row_by_row_batched_and_in_chunks(
    tiny_models: dict[str, Path], architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(likelihood, "HEAD_ELEMENTS", 7 * 320)
    student = scorer(tiny_models[architecture])
    batched, single = measure(student, ROWS), measure(student, ROWS, batch_tokens=1)
    for row, turn in enumerate(student.encode(ROWS)):
        total, tokens, ranks = naive(student.model, turn)
        for values in (batched[row], single[row]):
            assert values[0] == pytest.approx(total, abs=1e-4)
            assert values[1:] == [tokens, pytest.approx(ranks, abs=1), False]
    assert batched[1][1] == 1  # an empty response is its end-of-turn token
    assert [type(value) for value in batched[0]] == [float, int, float, bool]


@pytest.mark.parametrize("architecture", OTHERS)
def test_other_architectures_equal_their_full_logits(architecture: str, tmp_path: Path) -> None:
    """Sliding windows shorter than the rows, heads with a bias, scaled and capped logits, other names of parts."""
    student = scorer(save(tmp_path, architecture, OTHERS[architecture]))
    for turn, values in zip(student.encode(ROWS), measure(student, ROWS), strict=True):
        total, tokens, ranks = naive(student.model, turn)
        assert values == [pytest.approx(total, abs=1e-4), tokens, pytest.approx(ranks, abs=1), False]


def test_the_soft_cap_of_gemma_2s_attention_counts(tmp_path: Path) -> None:
    """SDPA, which transformers takes for it, leaves the cap out."""
    student = scorer(save(tmp_path, "gemma2", OTHERS["gemma2"]))
    (turn,) = student.encode(ROWS[:1])
    assert student.model.config._attn_implementation == "eager"
    capped = naive(student.model, turn)[0]
    student.model.set_attn_implementation("sdpa")
    assert abs(naive(student.model, turn)[0] - capped) > 1e-2


@pytest.mark.parametrize("name", sorted(path.name for path in ZOO.iterdir() if path.is_dir()))
def test_the_zoo_equals_the_loss_of_its_models(name: str) -> None:
    """The perplexity of LLaMA-Factory's cal_ppl: exp of the model's own loss on labels that hide the prompt."""
    student = scorer(ZOO / name)
    rows: list[chat.Row] = list(zip(CONVERSATIONS, ["6 + 4 = 10. \\boxed{10}", *RESPONSES[:3]], strict=True))
    for turn, (total, tokens, _, _) in zip(student.encode(rows), measure(student, rows), strict=True):
        ids = torch.from_numpy(turn.ids).long()[None]
        labels = ids.clone()
        labels[0, : turn.start] = -100
        with torch.no_grad():
            loss = student.model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss
        assert math.exp(-total / tokens) == pytest.approx(math.exp(loss), rel=1e-4)


@pytest.mark.parametrize("name", ["qwen-student", "llama-student", "gemma-terse"])
def test_the_zoo_equals_the_loglikelihood_of_lm_evaluation_harness(name: str) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    student = scorer(ZOO / name)
    end = student.tokenizer.decode([chat.end_of_turn(student.tokenizer, name)])
    rows: list[chat.Row] = list(zip(CONVERSATIONS, ["6 + 4 = 10. \\boxed{10}", "7", "\\boxed{1}", "1 2"], strict=True))
    own = transformers.AutoModelForCausalLM.from_pretrained(ZOO / name, attn_implementation="eager")
    harness = HFLM(pretrained=own, tokenizer=student.tokenizer, batch_size=1, add_bos_token=False)
    asked = [(chat.render(student.tokenizer, messages), response + end) for messages, response in rows]
    found = harness.loglikelihood(
        [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(asked)], disable_tqdm=True
    )
    for values, (theirs, _) in zip(measure(student, rows), found, strict=True):
        assert values[0] == pytest.approx(theirs, abs=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_bfloat16_stays_near_float32(tiny_models: dict[str, Path], architecture: str) -> None:
    """8 bits of mantissa: within 0.05 nats per token on these models, whose logits reach 10."""
    exact = measure(scorer(tiny_models[architecture]), ROWS)
    rough = measure(scorer(tiny_models[architecture], dtype="bfloat16"), ROWS)
    for row, (total, tokens, _, _) in enumerate(exact):
        assert rough[row][1] == tokens
        assert rough[row][0] / tokens == pytest.approx(total / tokens, abs=0.05)
    assert rough != exact


def test_bfloat16_equals_the_models_own_bfloat16_logits(tiny_models: dict[str, Path]) -> None:
    student = scorer(tiny_models["qwen2"], dtype="bfloat16")
    for turn, values in zip(student.encode(ROWS), measure(student, ROWS, batch_tokens=1), strict=True):
        assert values[0] == pytest.approx(naive(student.model, turn)[0], abs=1e-2 * values[1])


def test_truncation_drops_the_end_and_is_told(tiny_models: dict[str, Path]) -> None:
    (whole,) = scorer(tiny_models["qwen2"]).encode(ROWS[3:])
    exact, cut, nothing_left = (
        measure(scorer(tiny_models["qwen2"], length), ROWS[3:])[0]
        for length in (len(whole.ids), len(whole.ids) - 1, whole.start)
    )
    assert (exact[3], cut[3]) == (False, True)
    assert cut[1] == exact[1] - 1
    assert nothing_left == [0.0, 0, 0.0, True]


def test_a_longer_response_than_the_context_is_cut_there(tiny_models: dict[str, Path]) -> None:
    ((_, tokens, _, truncated),) = measure(scorer(tiny_models["llama"], 4096), [(CONVERSATIONS[1], "42 " * 400)])
    assert truncated
    assert tokens < 256


def test_windows_change_nothing_and_order_is_kept(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    student = scorer(tiny_models["qwen2"])
    rows: list[chat.Row] = [(CONVERSATIONS[row % 4], "4" * (row * 7 % 60)) for row in range(23)]
    whole = measure(student, rows)
    monkeypatch.setattr(scoring, "CHARACTERS", 0.2)
    parts = measure(student, rows)
    for before, after, turn in zip(whole, parts, student.encode(rows), strict=True):
        assert after == [pytest.approx(before[0], abs=1e-4), *before[1:]]
        assert before[1] == len(turn.ids) - turn.start


def test_skipped_rows_leave_the_others_as_they_are(tiny_models: dict[str, Path]) -> None:
    student = scorer(tiny_models["qwen2"])
    whole = list(score_rows(student, ROWS, batch_tokens=150))
    rest = list(score_rows(student, ROWS, batch_tokens=150, skip=frozenset(whole[0][0])))
    assert len(whole) > 1
    assert rest == whole[1:]
    assert list(score_rows(student, ROWS, batch_tokens=150, skip=frozenset(range(4)))) == []


def test_processes_share_the_batches(tiny_models: dict[str, Path]) -> None:
    student = scorer(tiny_models["qwen2"])
    rows: list[chat.Row] = [(CONVERSATIONS[row % 4], "4" * (row * 7 % 60)) for row in range(23)]
    whole = list(score_rows(student, rows, batch_tokens=70))
    parts = [list(score_rows(student, rows, batch_tokens=70, rank=rank, processes=3)) for rank in range(3)]
    assert sorted(batch for part in parts for batch in part) == sorted(whole)
    shares = [sum(len(numbers) for numbers, _ in part) for part in parts]
    assert min(shares) > 0
    assert sum(shares) == len(rows)


def test_no_rows(tiny_models: dict[str, Path]) -> None:
    assert list(score_rows(scorer(tiny_models["qwen2"]), [], batch_tokens=9)) == []


def test_batches_hold_their_budget() -> None:
    assert plan_batches([5, 9, 2, 2, 2], 10) == [[1], [0, 2], [3, 4]]
    assert plan_batches([50], 10) == [[0]]
    assert plan_batches([], 10) == []


def test_no_table_of_length_by_length(tmp_path: Path) -> None:
    """Rows of several lengths reach attention without a mask, so that it may take its causal path."""
    folder = save(tmp_path, "qwen2", SMALL | {"max_position_embeddings": 8192})
    student = scorer(folder, 8192)
    masks: list[Any] = []
    for layer in student.model.model.layers:
        layer.self_attn.register_forward_pre_hook(
            lambda _, __, kwargs: masks.append(kwargs["attention_mask"]), with_kwargs=True
        )
    measure(student, ROWS)
    assert masks == [None] * len(masks)
    assert masks


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_broken_student_is_named(tmp_path: Path, broken: float) -> None:
    save_model(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    (seven,) = build_tokenizer()("7")["input_ids"]
    weights["model.embed_tokens.weight"][seven] = broken  # not among the tokens of the first look at the model
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    student = scorer(tmp_path)
    with pytest.raises(errors.EngineError) as caught:
        measure(student, [(CONVERSATIONS[0], "7")])
    assert str(caught.value) == (
        f"the student `{tmp_path}` gives log-probabilities that are not finite: its weights are damaged, or float32 "
        "overflows; give other weights, or set `score.dtype: float32`"
    )


def test_weights_of_nan_are_refused_at_once(tmp_path: Path) -> None:
    save_model(tmp_path)
    weights = {name: torch.full_like(one, math.nan) for name, one in load_file(tmp_path / "model.safetensors").items()}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(errors.EngineError, match="gives log-probabilities that are not finite"):
        scorer(tmp_path)


def test_a_head_that_is_not_known_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path, "recurrent_gemma", SMALL | {"logits_soft_cap": 0.1, "lru_width": 32})
    with pytest.raises(errors.EngineError) as caught:
        scorer(folder)
    assert str(caught.value) == (
        f"the student `{folder}` (RecurrentGemmaForCausalLM) makes its logits of more than its LM head and the tokens "
        "so far; give another student, or add what it does to persyn_hf/backends/scoring/likelihood.py"
    )


@pytest.mark.parametrize(
    ("architecture", "name"),
    [("bert", "BertLMHeadModel"), ("llama4_text", "Llama4ForCausalLM")],
    ids=["looks ahead", "names no base model"],
)
def test_other_ways_to_logits_are_refused(architecture: str, name: str, tmp_path: Path) -> None:
    folder = save(tmp_path, architecture, SMALL)
    with pytest.raises(errors.EngineError, match=rf"\({name}\) makes its logits of more than its LM head"):
        scorer(folder)


def test_threads_are_left_as_they_were(tiny_models: dict[str, Path]) -> None:
    threads = torch.get_num_threads()
    measure(scorer(tiny_models["qwen2"]), ROWS)
    assert torch.get_num_threads() == threads
    assert build_model("qwen2").config.vocab_size == len(build_tokenizer())
