"""Reward models of several classes: the score is the model's own logit of one row, whatever batch the row is in."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_models import END, save_model
from tiny_rewards import ENDING, ROWS, conversation, save_reward_model

from persyn_hf.backends.scoring import score_rows
from persyn_hf.backends.scoring.reward_model import ADVICE, RewardScorer
from persyn_hf.errors import EngineError, InputError


ARCHITECTURES = ("llama", "qwen2", "gemma2")


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("judges")
    return {name: save_reward_model(root / name, name, seed) for seed, name in enumerate(ARCHITECTURES)}


def scores(scorer: RewardScorer, rows: list[Any] = ROWS, batch_tokens: int = 10**6) -> list[float | None]:
    found = {
        number: values[0]
        for numbers, batch in score_rows(scorer, rows, batch_tokens=batch_tokens)
        for number, values in zip(numbers, batch, strict=True)
    }
    return [found[number] for number in range(len(rows))]


def own_logit(folder: Path, row: Any) -> float:
    """Of a single row without padding, at its very last token, computed apart."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    messages, answer = row
    text = "".join(
        f"<|start|>{turn['role']}\n{turn['content']}{END}"
        for turn in [*messages, {"role": "assistant", "content": answer}]
    )
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    assert ids[0, -1] == model.config.pad_token_id
    with torch.no_grad():
        return float(model.score(model.model(ids).last_hidden_state[0, -1]))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_batched_equals_single_where_padding_is_the_end_of_turn(judges: dict[str, Path], architecture: str) -> None:
    scorer = RewardScorer(str(judges[architecture]), max_length=256, dtype="float32")
    batched, single = scores(scorer), scores(scorer, batch_tokens=1)
    own = [own_logit(judges[architecture], row) for row in ROWS]
    assert batched == pytest.approx(own, abs=1e-4)
    assert single == pytest.approx(own, abs=1e-4)
    assert max(own) > 1 or min(own) < 0  # no sigmoid
    assert len({round(value, 2) for value in own}) == len(own)


def test_transformers_alone_would_read_another_token(judges: dict[str, Path]) -> None:
    """The trap is there: with the checkpoint's own padding the score is that of the token before."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(judges["llama"])
    model = transformers.AutoModelForSequenceClassification.from_pretrained(judges["llama"])
    ids = torch.tensor([tokenizer(f"<|start|>user\nx{END}<|start|>assistant\n42{END}")["input_ids"]])
    with torch.no_grad():
        assert abs(float(model(ids).logits) - own_logit(judges["llama"], ROWS[4])) > 0.01


def test_an_encoder(tmp_path: Path) -> None:
    """BERT reads its first token and takes no notice of the padding's name, but of the mask."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(save_model(tmp_path / "any"))
    tokenizer.chat_template = ENDING
    tokenizer.save_pretrained(tmp_path / "bert")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=256,
        num_labels=1,
        initializer_range=0.5,
    )
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path / "bert")
    scorer = RewardScorer(str(tmp_path / "bert"), max_length=256, dtype="float32")
    single = scores(scorer, batch_tokens=1)
    assert scores(scorer) == pytest.approx(single, abs=1e-4)
    assert len({round(value or 0, 4) for value in single}) == len(single)


def test_the_beginning_of_text_stands_once(tmp_path: Path) -> None:
    folder = save_reward_model(tmp_path, template="<|start|>" + ENDING)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    from tokenizers.processors import TemplateProcessing

    start = tokenizer.convert_tokens_to_ids("<|start|>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|start|> $A", special_tokens=[("<|start|>", start)]
    )
    tokenizer.save_pretrained(folder)
    assert transformers.AutoTokenizer.from_pretrained(folder)("x")["input_ids"][0] == start
    (turn,) = RewardScorer(str(folder), max_length=256).encode([ROWS[0]])
    assert turn.ids[:3].tolist().count(start) == 2  # the template's own, then the user's turn


def test_an_answer_that_is_too_long_is_not_judged(judges: dict[str, Path]) -> None:
    scorer = RewardScorer(str(judges["llama"]), max_length=256, dtype="float32")
    whole = scores(scorer)
    lengths = [len(turn.ids) for turn in scorer.encode(ROWS)]
    limit = sorted(lengths)[-2]
    short = RewardScorer(str(judges["llama"]), max_length=limit, dtype="float32")
    expected = [value if length <= limit else None for value, length in zip(whole, lengths, strict=True)]
    assert expected.count(None) == 1
    assert scores(short) == pytest.approx(expected, abs=1e-4)
    long = (conversation("x"), "9 " * 400)  # beyond the model's own 256 positions
    roomy = RewardScorer(str(judges["llama"]), max_length=10**6, dtype="float32")
    assert scores(roomy, [long]) == [None]


def test_bfloat16_scores_keep_their_digits(judges: dict[str, Path]) -> None:
    scorer = RewardScorer(str(judges["llama"]), max_length=256, dtype="bfloat16")
    assert scorer.model.model.dtype == torch.bfloat16
    found = scores(scorer)
    own = [own_logit(judges["llama"], row) for row in ROWS]
    assert found == pytest.approx(own, abs=0.1 * max(map(abs, own)))
    assert [float(torch.tensor(value, dtype=torch.bfloat16)) for value in found] != found


def refused(folder: Path, **options: Any) -> str:
    with pytest.raises((EngineError, InputError)) as error:
        RewardScorer(str(folder), max_length=256, **options)
    return str(error.value)


def test_what_is_no_reward_model_is_refused(tmp_path: Path, judges: dict[str, Path]) -> None:
    student = save_model(tmp_path / "student", "llama")
    assert refused(student) == (
        f"the checkpoint of `{student}` lacks score.weight of LlamaForSequenceClassification; {ADVICE}"
    )
    many = save_reward_model(tmp_path / "many", num_labels=19)
    assert refused(many) == f"the reward model `{many}` gives 19 numbers per answer, one is needed; {ADVICE}"
    mute = save_reward_model(tmp_path / "mute", template=None)
    assert refused(mute) == (f"the tokenizer of `{mute}` has no chat template; {ADVICE}")
    (mute / "chat_template.jinja").write_text(ENDING)
    (mute / "model.safetensors").write_bytes(b"\x00" * 20)
    assert refused(mute).startswith(f"the model `{mute}` cannot be loaded: ")
    assert refused(tmp_path / "nowhere") == (
        f"the model folder {tmp_path / 'nowhere'} does not exist; give a folder or the id of a Hub model"
    )


def test_a_conversation_that_the_template_refuses(judges: dict[str, Path]) -> None:
    scorer = RewardScorer(str(judges["qwen2"]), max_length=256)
    with pytest.raises(InputError) as error:
        scorer.encode([ROWS[0], (conversation("refuse"), "no")])
    assert str(error.value) == (
        f"the chat template of the reward model `{judges['qwen2']}` refuses a conversation (TemplateError: no); "
        "leave such prompts out, or take another reward model"
    )


def test_too_large_a_batch_says_what_to_lower(judges: dict[str, Path]) -> None:
    scorer = RewardScorer(str(judges["llama"]), max_length=256)

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    scorer.model.register_forward_pre_hook(full)
    with pytest.raises(EngineError) as error:
        scores(scorer, ROWS[:1])
    assert str(error.value) == (
        f"the reward model `{judges['llama']}` ran out of memory at 1 rows of 22 tokens; lower "
        "`score.reward_model.batch_tokens` and run again"
    )


def test_a_score_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    folder = save_reward_model(tmp_path)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    model.save_pretrained(folder)
    scorer = RewardScorer(str(folder), max_length=256)
    with pytest.raises(EngineError) as error:
        scores(scorer)
    assert str(error.value) == (
        f"the reward model `{folder}` scores an answer as nan; its weights are broken, or need "
        "`score.reward_model.dtype: float32`"
    )
