"""Chat templates of real models: what is scored and trained on is what was said, or the student is refused."""

import re
from typing import Any

import pytest
import template_samples as samples
from hypothesis import given
from hypothesis import strategies as st

from persyn_hf.backends import chat, templates
from persyn_hf.core.conversations import full_response
from persyn_hf.errors import InputError


REFUSED = {"glm-4": "never learn to stop", "glm-4.5": "never learn to stop", "gpt-oss": "no whole generation prompt"}
NO_SYSTEM = {"gemma-2", "mistral-v0.1", "paper-gemma"}
OPENED = {"qwen3.5-thinking", "deepseek-r1-distill-new"}
CLOSED = {"qwen3.5-not-thinking"}
LEARNT = sorted(set(samples.TOKENS) - set(REFUSED))

SYSTEM = {"role": "system", "content": "You are terse."}
ASK = {"role": "user", "content": "What is 12 and 30?"}
MORE = [ASK, {"role": "assistant", "content": "It is 42."}, {"role": "user", "content": "And 3 more?"}]
PLAIN = "The answer is \\boxed{42}."
THOUGHTS = full_response({"response": PLAIN, "reasoning": "6 * 7,\n\nor 12 + 30"})


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Any]:
    return {name: samples.tokenizer_of(name) for name in samples.TOKENS}


@pytest.mark.parametrize("said", [PLAIN, THOUGHTS], ids=["plain", "thoughts"])
@pytest.mark.parametrize("turns", [[ASK], MORE], ids=["one turn", "several"])
@pytest.mark.parametrize("system", [[], [SYSTEM]], ids=["no system", "system"])
@pytest.mark.parametrize("name", LEARNT)
def test_what_is_learnt_is_what_was_said(
    tokenizers: dict[str, Any], name: str, system: list[Any], turns: list[Any], said: str
) -> None:
    made, conversation = tokenizers[name], [*system, *turns]
    if (system and name in NO_SYSTEM) or (said == THOUGHTS and name in CLOSED):
        with pytest.raises(InputError, match="refuses a conversation" if system and name in NO_SYSTEM else "closes"):
            chat.encode_turns(made, [(conversation, said)], 4096)
        return
    (turn,) = chat.encode_turns(made, [(conversation, said)], 4096)
    ids, end = turn.ids.tolist(), chat.end_of_turn(made, name)
    prompt, answer = chat.render(made, conversation), made.decode(ids[turn.start : -1])
    assert ids[: turn.start] == chat.encode(made, prompt)
    assert ids[-1] == end
    assert end not in ids[turn.start : -1]
    if name not in OPENED:
        assert answer.strip() == said
        return
    whole = prompt[prompt.rindex("<think>") :] + answer
    assert re.sub(r"\s+", " ", whole) == re.sub(r"\s+", " ", said if said == THOUGHTS else f"<think> </think> {said}")


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_template_that_nothing_could_be_learnt_with_is_refused(tokenizers: dict[str, Any], name: str) -> None:
    with pytest.raises(InputError, match=REFUSED[name]) as caught:
        chat.encode_turns(tokenizers[name], [([ASK], PLAIN)], 4096)
    assert "\n" not in str(caught.value)
    assert "give a student another template" in str(caught.value)


@pytest.mark.parametrize("name", sorted(set(LEARNT) - OPENED))
@given(said=st.text(min_size=1, max_size=60))
def test_any_text_is_learnt_but_for_its_outer_white_space(tokenizers: dict[str, Any], name: str, said: str) -> None:
    (turn,) = chat.encode_turns(tokenizers[name], [([ASK], said)], 4096)
    assert tokenizers[name].decode(turn.ids[turn.start : -1].tolist()).strip() == said.strip()


@pytest.mark.parametrize("prompt", ["Q<think>", "Q<think>\n", "Q<think>\n\n"])
@given(thought=st.text(alphabet="ab \n", max_size=8), answer=st.text(alphabet="ab \n", max_size=8))
def test_there_is_one_block_and_it_is_closed(prompt: str, thought: str, answer: str) -> None:
    for said in (answer, full_response({"response": answer, "reasoning": thought})):
        whole = prompt + chat.continuation("m", prompt, said)
        assert whole.count("<think>") == whole.count("</think>") == 1
        assert whole.endswith(answer)
        assert said == answer or thought in whole


def test_white_space_that_the_prompt_has_is_not_said_twice() -> None:
    said = "<think>\n6 * 7\n</think>\n\n42"
    assert chat.continuation("m", "Q<think>\n", said) == "6 * 7\n</think>\n\n42"
    assert chat.continuation("m", "Q<think>", said) == "\n6 * 7\n</think>\n\n42"
    assert chat.continuation("m", "Q<think>\n", "42") == "\n</think>\n\n42"
    assert chat.continuation("m", "Q<think>", "42") == "\n\n</think>\n\n42"
    assert chat.continuation("m", "Q<think>\n\n</think>\n\n", "42") == "42"
    assert chat.continuation("m", "Q", said) == said


@pytest.mark.parametrize("name", ["glm-4", "glm-4.5"])
def test_a_teacher_need_not_be_able_to_learn(tokenizers: dict[str, Any], name: str) -> None:
    assert chat.ends_of_answers(tokenizers[name]) == {tokenizers[name].eos_token_id}


def test_a_teacher_stops_at_the_eos_and_at_the_end_of_its_turn(tokenizers: dict[str, Any]) -> None:
    made = tokenizers["phi-3"]
    ends = {made.convert_tokens_to_ids(token) for token in ("<|endoftext|>", "<|end|>")}
    assert chat.ends_of_answers(made) == ends


def test_a_template_that_writes_tokens_without_embeddings_cannot_be_scored(tokenizers: dict[str, Any]) -> None:
    made = tokenizers["qwen2.5"]
    templates.check_embeddings(made, "m", len(made))
    with pytest.raises(InputError, match=r"writes <\|im_end\|> .* but the model has .* embeddings"):
        templates.check_embeddings(made, "m", made.convert_tokens_to_ids("<|im_end|>"))


def test_orders_of_roles_that_a_template_refuses_are_counted(tokenizers: dict[str, Any]) -> None:
    asked = {("user",): 5, ("system", "user"): 2}
    templates.check_roles(tokenizers["gemma-3"], "m", asked)
    with pytest.raises(
        InputError, match="refuses 2 of the prompts, those with the turns system, user: .*not supported"
    ):
        templates.check_roles(tokenizers["gemma-2"], "m", asked)


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("{{ messages[0]['nothing']['more'] }}", "cannot be applied"),
        (
            "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}{% endfor %}",
            "leaves the answer out",
        ),
        (
            "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '<|im_end|>' }}{% endfor %}",
            "generation prompt",
        ),
        ("{% for m in messages %}{{ m['content'] }}{% endfor %}{{ '<|im_end|>' }}", "ends a prompt with"),
    ],
)
def test_what_is_wrong_with_a_template_is_one_sentence(template: str, fault: str) -> None:
    made = samples.tokenizer_of("chatml")
    made.chat_template = template
    with pytest.raises(InputError, match=fault) as caught:
        templates.look_at(made, "m")
    assert "\n" not in str(caught.value)


def test_the_table_of_the_docs_is_current() -> None:
    """Mend it with `python tests/template_samples.py`."""
    assert samples.in_docs() == samples.table()
