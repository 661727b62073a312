"""What carries loss in the batches that reach the model: the answer and its end of turn, token by token."""

from pathlib import Path

import pytest
import torch
from datasets import Dataset
from test_chat_templates import ASK, END, NAMES, ODD, SPECIAL, SYSTEM, TALK, tokenizer
from transformers import LlamaConfig, LlamaForCausalLM
from trl import SFTTrainer

from persyn_hf.backends import chat
from persyn_hf.backends.sft import IGNORED, Schedule, Training
from persyn_hf.backends.sft.student_model import align
from persyn_hf.backends.sft.training import _arguments, lay_out
from persyn_hf.stages.train_student import tokenise


@pytest.mark.parametrize("name", NAMES)
def test_exactly_the_answer_and_its_end_carry_loss(name: str, tmp_path: Path) -> None:
    made = tokenizer(name)
    end = chat.end_of_turn(made, name)
    assert made.convert_ids_to_tokens(end) == END.get(name, made.convert_ids_to_tokens(end))
    conversations = [ASK, TALK, *([[SYSTEM, *ASK]] if name in SPECIAL and name != "gemma-2" else [])]
    rows = [(messages, answer) for messages in conversations for answer in ODD]
    wanted = {texts(made, end, messages, answer) for messages, answer in rows}
    sft = [{"prompt": messages, "completion": [{"role": "assistant", "content": text}]} for messages, text in rows]
    examples, counts = tokenise(Dataset.from_list(sft), made, end, 4096)
    assert counts == {"rows": len(rows)}

    found = set()
    for batch in batches(made, end, examples, tmp_path):
        for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True):
            trained = labels != IGNORED
            assert (labels[trained] == ids[trained]).all() and not trained[mask == 0].any()
            if not trained.any():
                assert ids[mask == 1].tolist() == [end] * 2  # a row that fills the last step up
                continue
            start = int(trained.nonzero()[0])
            assert trained.tolist() == [start <= place < int(mask.sum()) for place in range(len(ids))]
            assert ids[trained][-1] == end
            found.add((made.decode(ids[:start]), made.decode(ids[trained])))
    assert found == wanted


def texts(made: object, end: int, messages: list[dict[str, str]], answer: str) -> tuple[str, str]:
    """The conversation as the template writes it, cut before the answer and after its end of turn."""
    prompt = chat.render(made, messages)
    whole = chat.apply(made, [*messages, {"role": "assistant", "content": answer}])
    assert whole.startswith(prompt)
    word = made.convert_ids_to_tokens(end)
    return prompt, whole[len(prompt) :].rpartition(word)[0] + word


def batches(made: object, end: int, examples: Dataset, folder: Path) -> list[dict[str, torch.Tensor]]:
    """Of an epoch, as TRL's trainer makes them."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(made), **sizes))
    align(model, made, end)
    values = {"learning_rate": 1e-3, "epochs": 1, "batch_size": 8, "per_device_batch_size": 4, "warmup_steps": 0}
    more = {"lora": False, "lora_rank": 1, "lora_alpha": 1, "dtype": "float32", "gradient_checkpointing": None}
    training = Training(
        model="m",
        revision=None,
        chat_template=None,
        stored_dtype="float32",
        end=end,
        scheduler="constant",
        weight_decay=0.0,
        save_steps=10,
        seed=0,
        **values,
        **more,
    )
    rows = lay_out(training, examples)
    args = _arguments(training, Schedule.of(training, len(examples)), folder, cpu=True, bfloat16=False)
    trainer = SFTTrainer(model=model, args=args, train_dataset=rows, processing_class=made)
    return list(trainer.get_train_dataloader())
