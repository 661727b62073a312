import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import END, build_model, build_tokenizer

from persyn_hf.backends import chat, learnability
from persyn_hf.backends.learnability import LoadedStudent, plan_batches, score_responses
from persyn_hf.errors import EngineError, InputError


ARCHITECTURES = ("qwen2", "llama", "gemma2")
QUESTIONS = ["What is 12 and 30?", "Sum?", "a much longer question, with many words and 1234567 in it", "x"]
RESPONSES = ["The answer is 42.", "", "héllo\n\nworld 😀 <think>", "42" * 30]
CONVERSATIONS = [[{"role": "user", "content": question}] for question in QUESTIONS]


def naive(folder: Path, question: str, response: str) -> tuple[float, int, float]:
    """Full logits of one row: sum of log-probabilities, tokens, sum of capped ranks."""
    student = LoadedStudent(str(folder), dtype="float32")
    tokenizer = student.tokenizer
    prefix = f"<|start|>user\n{question}<|end|>\n<|start|>assistant\n"
    start = len(tokenizer(prefix)["input_ids"])
    ids = tokenizer(f"{prefix}{response}<|end|>")["input_ids"]
    with torch.no_grad():
        logits = student.model(torch.tensor([ids])).logits[0]
    table = torch.log_softmax(logits.double(), dim=-1)
    total, ranks = 0.0, 0.0
    for position in range(start, len(ids)):
        total += float(table[position - 1, ids[position]])
        rank = 1 + int((logits[position - 1] > logits[position - 1, ids[position]]).sum())
        ranks += min(rank, 100)
    return total, len(ids) - start, ranks


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_equals_full_logits_row_by_row_and_batched(
    tiny_models: dict[str, Path], architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learnability, "HEAD_POSITIONS", 7)
    student = LoadedStudent(str(tiny_models[architecture]), dtype="float32")
    batched = score_responses(student, CONVERSATIONS, RESPONSES, max_length=256, batch_tokens=400)
    single = score_responses(student, CONVERSATIONS, RESPONSES, max_length=256, batch_tokens=1)
    for row, (question, response) in enumerate(zip(QUESTIONS, RESPONSES, strict=True)):
        total, tokens, ranks = naive(tiny_models[architecture], question, response)
        for found in (batched, single):
            assert found.num_tokens[row] == tokens
            assert found.sum_logprob[row] == pytest.approx(total, abs=1e-4 * tokens)
            assert found.mean_logprob[row] == pytest.approx(total / tokens, abs=1e-4)
            assert found.sum_min_rank[row] == pytest.approx(ranks, abs=1)
    assert not batched.truncated.any()
    assert batched.num_tokens[1] == 1  # an empty response is its end-of-turn token


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_equals_the_loss_of_the_model(tiny_models: dict[str, Path], architecture: str) -> None:
    student = LoadedStudent(str(tiny_models[architecture]), dtype="float32")
    turn = chat.encode_turn(student.tokenizer, CONVERSATIONS[0], RESPONSES[0], 256)
    labels = torch.tensor([[-100] * turn.start + turn.ids[turn.start :]])
    with torch.no_grad():
        loss = student.model(torch.tensor([turn.ids]), labels=labels).loss
    found = score_responses(student, CONVERSATIONS[:1], RESPONSES[:1], max_length=256, batch_tokens=1)
    assert math.exp(-found.mean_logprob[0]) == pytest.approx(math.exp(loss), rel=1e-4)


def test_truncation_drops_the_end_and_is_told(tiny_models: dict[str, Path]) -> None:
    student = LoadedStudent(str(tiny_models["qwen2"]), dtype="float32")
    whole = chat.encode_turn(student.tokenizer, CONVERSATIONS[3], RESPONSES[3], 256)
    exact, cut = (
        score_responses(student, [CONVERSATIONS[3]], [RESPONSES[3]], max_length=length, batch_tokens=999)
        for length in (len(whole.ids), len(whole.ids) - 1)
    )
    assert (exact.truncated.tolist(), cut.truncated.tolist()) == ([False], [True])
    assert cut.num_tokens[0] == exact.num_tokens[0] - 1
    nothing_left = score_responses(student, [CONVERSATIONS[3]], [RESPONSES[3]], max_length=whole.start, batch_tokens=9)
    assert nothing_left.num_tokens.tolist() == [0]
    assert np.isnan(nothing_left.mean_logprob[0])
    assert nothing_left.truncated[0]


def test_a_longer_response_than_the_context_is_cut_there(tiny_models: dict[str, Path]) -> None:
    student = LoadedStudent(str(tiny_models["llama"]), dtype="float32")
    found = score_responses(student, [CONVERSATIONS[1]], ["42 " * 400], max_length=4096, batch_tokens=9)
    assert found.truncated[0]
    assert found.num_tokens[0] < 256


def test_skipped_rows_leave_the_others_as_they_are(tiny_models: dict[str, Path]) -> None:
    student = LoadedStudent(str(tiny_models["qwen2"]), dtype="float32")
    told: list[list[int]] = []
    whole = score_responses(
        student, CONVERSATIONS, RESPONSES, max_length=256, batch_tokens=150, done=lambda rows, _: told.append(rows)
    )
    rest = score_responses(
        student, CONVERSATIONS, RESPONSES, max_length=256, batch_tokens=150, skip=frozenset(told[0])
    )
    left = [row for rows in told[1:] for row in rows]
    assert len(told) > 1
    assert rest.sum_logprob[left].tolist() == whole.sum_logprob[left].tolist()


def test_no_rows(tiny_models: dict[str, Path]) -> None:
    found = score_responses(LoadedStudent(str(tiny_models["qwen2"])), [], [], max_length=9, batch_tokens=9)
    assert len(found.mean_logprob) == 0


def test_batches_hold_their_budget() -> None:
    assert plan_batches([5, 9, 2, 2, 2], 10) == [[1], [0, 2], [3, 4]]
    assert plan_batches([50], 10) == [[0]]
    assert plan_batches([], 10) == []


def test_a_head_that_is_not_known_is_refused(tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LoadedStudent, "logits", lambda self, states: self.model.lm_head(states).float() * 2)
    with pytest.raises(EngineError, match=r"Qwen2ForCausalLM\) changes its logits after the LM head"):
        LoadedStudent(str(tiny_models["qwen2"]), dtype="float32")


def test_template_text_after_the_end_of_turn_does_not_count() -> None:
    tokenizer = build_tokenizer()
    turn = chat.encode_turn(tokenizer, CONVERSATIONS[0], "42", 256)
    assert tokenizer.decode(turn.ids[turn.start :]) == f"42{END}"


def test_prompt_answer_and_end_are_encoded_apart_where_the_template_rewrites_the_answer() -> None:
    tokenizer = build_tokenizer(
        "{{ messages[0]['content'] + 'A: ' }}{% if messages|length > 1 %}"
        "{{ messages[1]['content'] | trim }}{{ eos_token }}{% endif %}"
    )
    turn = chat.encode_turn(tokenizer, CONVERSATIONS[0], " 42 ", 256)
    assert tokenizer.decode(turn.ids[turn.start :]) == f" 42 {END}"


def test_a_template_that_never_ends_is_refused() -> None:
    tokenizer = build_tokenizer("{% for message in messages %}{{ message['content'] }}{% endfor %}")
    with pytest.raises(InputError, match="ends an answer with '', which holds no special token of its tokenizer"):
        chat.encode_turn(tokenizer, CONVERSATIONS[0], " 42 ", 256)


def test_a_merge_across_the_border_is_encoded_apart() -> None:
    template = (
        "{{ messages[0]['content'] }}{% if messages|length > 1 %}{{ messages[1]['content'] + eos_token }}{% endif %}"
    )
    tokenizer = build_tokenizer(template)
    prefix = tokenizer(" answ")["input_ids"]
    assert tokenizer(" answer")["input_ids"][: len(prefix)] != prefix
    turn = chat.encode_turn(tokenizer, [{"role": "user", "content": " answ"}], "er", 256)
    assert turn.ids[: turn.start] == prefix
    assert tokenizer.decode(turn.ids[turn.start :]) == f"er{END}"


def test_a_student_that_generates_is_not_changed(tiny_models: dict[str, Path]) -> None:
    threads = torch.get_num_threads()
    score_responses(LoadedStudent(str(tiny_models["qwen2"])), CONVERSATIONS, RESPONSES, max_length=64, batch_tokens=64)
    assert torch.get_num_threads() == threads
    assert build_model("qwen2").config.vocab_size == len(build_tokenizer())
