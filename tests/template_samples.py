"""The chat templates of tests/data, on a tokenizer with the special tokens of their models, and the table of the docs.

`python tests/template_samples.py` writes the table into docs/models.md.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from persyn_hf.backends import templates
from persyn_hf.errors import InputError


ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "tests" / "data" / "chat_templates"
TOKENS: dict[str, dict[str, Any]] = json.loads((FOLDER / "tokens.json").read_text(encoding="utf-8"))
DOCS = ROOT / "docs" / "models.md"
BEGIN, END = "<!-- templates -->\n", "<!-- end of templates -->\n"


def text_of(name: str) -> str:
    """A template of the folder, or one of ours for the paper's base students (`paper-...`)."""
    ours = ROOT / "recipes" / "paper" / "templates" / f"{name.removeprefix('paper-')}.jinja"
    return (ours if name.startswith("paper-") else FOLDER / f"{name}.jinja").read_text(encoding="utf-8")


def tokenizer_of(name: str) -> Any:
    """A small byte-level tokenizer with the template of `name`, and its model's special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokens = TOKENS[name]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(
        ["user assistant What is 12 and 30? <think>\n6 * 7\n</think>\n\nThe answer is 42."] * 8, trainer
    )
    made = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=tokens["bos"], eos_token=tokens["eos"])
    made.add_special_tokens({"additional_special_tokens": tokens["special"]})
    made.chat_template, made.name_or_path = text_of(name), name
    return made


def table() -> str:
    """What every template does, as the docs have it."""
    lines = ["| template | a prompt ends with | an answer ends with | plain answers | thoughts | system turns |"]
    lines.append("|---" * 6 + "|")
    for name, tokens in TOKENS.items():
        try:
            found = templates.look_at(tokenizer_of(name), name)
        except InputError as error:
            cells = ["refused: " + str(error).split(f"`{name}` ")[1].partition(";")[0], *[""] * 4]
        else:
            cells = [f"`{found.prompt!r}`", f"`{found.end}`", found.plain, found.thoughts, found.system]
        lines.append(" | ".join(["| " + tokens["model"], *(cell.replace("|", "\\|") for cell in cells)]) + " |")
    return "\n".join(lines) + "\n"


def in_docs() -> str:
    """The table as it stands in the docs."""
    return DOCS.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]


if __name__ == "__main__":
    text = DOCS.read_text(encoding="utf-8")
    DOCS.write_text(
        text.replace(in_docs(), table()) if in_docs() else text.replace(BEGIN, BEGIN + table()), encoding="utf-8"
    )
    sys.stdout.write(re.sub(r"\\\|", "|", table()))
