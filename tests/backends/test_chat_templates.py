"""The chat templates of the paper's students: what of a conversation is scored, and that it is what is trained on."""

import time
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from tiny_models import build_tokenizer
from tokenizers import Regex, pre_tokenizers
from transformers import AutoTokenizer

from persyn_hf.backends import chat
from persyn_hf.errors import InputError
from persyn_hf.stages.train_student import IGNORED, tokenise


FOLDER = Path(__file__).parents[1] / "data" / "chat_templates"
ZOO = Path(__file__).parents[2] / "recipes" / "tiny" / "zoo"
QWEN, GEMMA, LLAMA = "qwen2.5", "gemma-2", "llama-3.2"
SPECIAL = {
    QWEN: ["<|im_start|>", "<|im_end|>"],
    GEMMA: ["<bos>", "<start_of_turn>", "<end_of_turn>"],
    LLAMA: ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
}
BEGIN = {QWEN: None, GEMMA: "<bos>", LLAMA: "<|begin_of_text|>"}
END = {QWEN: "<|im_end|>", GEMMA: "<end_of_turn>", LLAMA: "<|eot_id|>"}
WORDS = Regex(  # how Qwen2.5 and Llama 3 cut text before they merge (the latter three digits at a time)
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
NAMES = (*SPECIAL, *sorted(path.name for path in ZOO.iterdir() if path.is_dir()))

ASK = [{"role": "user", "content": "What is 12 and 30?"}]
TALK = [*ASK, {"role": "assistant", "content": "42."}, {"role": "user", "content": "\n And 3 more? "}]
SYSTEM = {"role": "system", "content": "You are terse."}
ODD = [
    "42",
    "",
    " \n",
    "  leading, and trailing \n\n",
    "\n\nThe answer is 42.",
    "<think>\n6 * 7\n</think>\n\n42",
    "héllo 😀\r\n\ttab",
    "{{ messages }} {% raw %} {# no #}",
    "assistant\nuser: 42",
    "42" * 40,
]


def tokenizer(name: str) -> Any:
    """Tokenizer of a student; those of the paper's have the template and its special tokens, other words aside."""
    if name not in SPECIAL:
        return AutoTokenizer.from_pretrained(ZOO / name)
    made = build_tokenizer((FOLDER / f"{name}.jinja").read_text(encoding="utf-8"))
    made.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(WORDS, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    made.add_special_tokens({"additional_special_tokens": SPECIAL[name]})
    made.bos_token = BEGIN[name]
    made.name_or_path = name
    return made


def scored(name: str, messages: list[dict[str, str]], response: str) -> tuple[str, str]:
    """What stands before the answer, and the answer, as text."""
    made = tokenizer(name)
    (turn,) = chat.encode_turns(made, [(messages, response)], 4096)
    assert not turn.truncated
    return made.decode(turn.ids[: turn.start]), made.decode(turn.ids[turn.start :])


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        (
            QWEN,
            "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
            "<|im_start|>user\nWhat is 12 and 30?<|im_end|>\n<|im_start|>assistant\n",
        ),
        (GEMMA, "<bos><start_of_turn>user\nWhat is 12 and 30?<end_of_turn>\n<start_of_turn>model\n"),
        (
            LLAMA,
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
            "Today Date: 26 Jul 2024\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nWhat is 12 and 30?"
            "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
    ],
)
def test_exactly_the_answer_and_its_end_are_scored(name: str, prompt: str) -> None:
    assert scored(name, ASK, "The answer is 42.") == (prompt, f"The answer is 42.{END[name]}")
    assert scored(name, ASK, "") == (prompt, END[name])


@pytest.mark.parametrize("name", SPECIAL)
def test_white_space_around_an_answer_is_what_the_template_leaves(name: str) -> None:
    kept = " \n 42 \n" if name == QWEN else "42"
    assert scored(name, ASK, " \n 42 \n")[1] == f"{kept}{END[name]}"


@pytest.mark.parametrize("name", SPECIAL)
def test_earlier_turns_belong_to_the_prompt(name: str) -> None:
    prompt, answer = scored(name, TALK, "45")
    assert answer == f"45{END[name]}"
    assert prompt.count("42.") == 1
    assert prompt.count(END[name]) == (3 if name == GEMMA else 4)  # the others write a system turn


@pytest.mark.parametrize("name", [QWEN, LLAMA])
def test_a_system_turn_takes_the_place_of_the_default(name: str) -> None:
    prompt, answer = scored(name, [SYSTEM, *ASK], "42")
    assert answer == f"42{END[name]}"
    assert prompt.count("You are") == prompt.count("You are terse.") == 1


def test_gemma_refuses_a_system_turn_in_one_sentence() -> None:
    with pytest.raises(InputError) as caught:
        chat.encode_turns(tokenizer(GEMMA), [(ASK, "42"), ([SYSTEM, *ASK], "42")], 4096)
    assert str(caught.value) == (
        "the chat template of `gemma-2` refuses a conversation: TemplateError: System role not supported; leave such "
        "prompts out, or give a student another template under `students`: `chat_template: FILE.jinja`"
    )


def test_llamas_date_does_not_follow_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    made = tokenizer(LLAMA)
    before = chat.render(made, ASK)
    assert "Today Date: 26 Jul 2024\n" in before
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    try:
        assert chat.render(made, ASK) == before
    finally:
        monkeypatch.undo()
        time.tzset()
    told = made.apply_chat_template(ASK, tokenize=False, add_generation_prompt=True)
    assert time.strftime("Today Date: %d %b %Y") in told  # what it prints where nobody fixes it


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("messages", [ASK, TALK], ids=["one turn", "more turns"])
def test_scored_tokens_are_those_trained_on(name: str, messages: list[dict[str, str]]) -> None:
    made = tokenizer(name)
    end = chat.end_of_turn(made, name)
    turns = chat.encode_turns(made, [(messages, response) for response in ODD], 4096)
    for turn, response in zip(turns, ODD, strict=True):
        row = {"prompt": messages, "completion": [{"role": "assistant", "content": response}]}
        trained, counts = tokenise(Dataset.from_list([row]), made, end, 4096)
        ids = turn.ids.tolist()
        assert counts == {"rows": 1}
        assert ids == trained[0]["input_ids"]
        assert [IGNORED] * turn.start + ids[turn.start :] == trained[0]["labels"]
        if name == QWEN and response.startswith("\n"):  # its line break melts into that of the generation prompt
            assert made.decode(ids[turn.start :]) == response + END[name]


@pytest.mark.parametrize("name", SPECIAL)
def test_an_answer_that_holds_the_end_of_turn_is_scored_to_its_last(name: str) -> None:
    """It is left out of training; a score that stopped at the first would let an answer hide what follows."""
    text = f"42{END[name]}\n43"
    assert scored(name, ASK, text)[1] == f"{text}{END[name]}"


def test_template_text_after_the_end_of_turn_does_not_count() -> None:
    made = build_tokenizer()
    (turn,) = chat.encode_turns(made, [(ASK, "42")], 256)
    assert made.decode(turn.ids[turn.start :]) == "42<|end|>"


def test_an_empty_block_of_thoughts_that_only_the_template_writes_is_not_learnt() -> None:
    made = build_tokenizer(
        "{{ messages[0]['content'] + 'A: ' }}{% if messages|length > 1 %}"
        "<think></think>{{ messages[1]['content'] | trim + eos_token }}{% endif %}"
    )
    (turn,) = chat.encode_turns(made, [(ASK, " 42 ")], 256)
    assert made.decode(turn.ids[turn.start :]) == " 42 <|end|>"


def test_a_prompt_that_is_written_in_another_way_is_encoded_apart() -> None:
    made = build_tokenizer(
        "{{ messages[0]['content'] }}{% if messages|length > 1 %}{{ ' A:' + messages[1]['content'] + eos_token }}"
        "{% else %}{{ ' answer:' }}{% endif %}"
    )
    (turn,) = chat.encode_turns(made, [(ASK, "42")], 256)
    assert made.decode(turn.ids[: turn.start]) == "What is 12 and 30? answer:"
    assert made.decode(turn.ids[turn.start :]) == "42<|end|>"


def test_a_merge_across_the_border_is_encoded_apart() -> None:
    made = build_tokenizer(
        "{{ messages[0]['content'] }}{% if messages|length > 1 %}{{ messages[1]['content'] + eos_token }}{% endif %}"
    )
    prefix = made(" answ")["input_ids"]
    assert made(" answer")["input_ids"][: len(prefix)] != prefix
    (turn,) = chat.encode_turns(made, [([{"role": "user", "content": " answ"}], "er")], 256)
    assert turn.ids[: turn.start].tolist() == prefix
    assert made.decode(turn.ids[turn.start :]) == "er<|end|>"


def test_a_template_that_never_ends_is_refused() -> None:
    made = build_tokenizer("{% for message in messages %}{{ message['content'] }}{% endfor %}")
    with pytest.raises(InputError, match="ends an answer with '', which holds no special token of its tokenizer"):
        chat.encode_turns(made, [(ASK, " 42 ")], 256)
