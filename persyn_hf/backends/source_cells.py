"""Read the cells of a user's table: text, conversations in the words of several data sets, prompts of several columns.

The tables of words below are the only place that knows how others name a turn.
"""

import ast
import difflib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from persyn_hf.backends.answers import well_formed
from persyn_hf.recipe.strict import choices


Turns = list[dict[str, str]]

# ours -> those of ShareGPT and its dumps, OpenAssistant, OpenAI, function-calling sets
ROLES = {
    "user": ("user", "human", "prompter"),
    "assistant": ("assistant", "gpt", "chatgpt", "bing", "bard", "model", "bot"),
    "system": ("system", "developer"),
    "tool": ("tool", "function", "observation", "ipython"),
}
# What others call a column, the likeliest first.
USUAL: dict[str, tuple[str, ...]] = {
    "prompt": ("prompt", "messages", "question", "problem", "instruction", "conversations", "query", "input"),
    "reference": (
        "reference",
        "reference_answer",
        "final_answer",
        "expected_answer",
        "ground_truth",
        "answer",
        "target",
    ),
    "teacher": ("teacher", "model", "model_name", "generator"),
    "response": ("response", "completion", "output", "generation", "model_answer"),
    "quality": ("quality", "score", "reward", "preference", "rating"),
}
ROLE_KEYS = ("role", "from")
CONTENT_KEYS = ("content", "value", "text")
DEPTH = 8  # of lists in a cell that is read as text
MESSAGES = 1 << 20  # characters of a cell that is looked at for messages

_OURS = {theirs: ours for ours, names in ROLES.items() for theirs in names}


def missing_column(source: str, section: str, key: str, column: str, present: Collection[str]) -> str:
    """Say that a source lacks a column, and what to write in the recipe.

    Args:
        section: of the recipe: `prompts`.
        key: what the column is to be: `prompt`.
        column: the name that is not there.
        present: those that are.
    """
    names = list(present)
    usual = [name for name in USUAL.get(key, ()) if name in names]
    alike = [*difflib.get_close_matches(column, names, 1, 0.8), *usual, *difflib.get_close_matches(column, names, 1)]
    said = f"{source} has no column `{column}` for `columns.{key}`{choices(alike[:1], names)}"
    if not alike or "." in key:
        return said
    return f"{said}; write `{section}: {{columns: {{{key}: {alike[0]}}}}}`"


def as_text(cell: Any, depth: int = DEPTH) -> str:
    """Read a cell as text: a list joined by commas (OlympiadBench has such answers); nothing for NaN or a dict."""
    if isinstance(cell, list):
        return ", ".join(text for text in (as_text(item, depth - 1) for item in cell) if text) if depth else ""
    return "" if cell is None or isinstance(cell, Mapping) or cell != cell else _lines(str(cell))


def as_lines(cell: Any) -> Any:
    """Return a list of texts as the lines of one; any other cell as it is."""
    is_lines = isinstance(cell, list) and bool(cell) and all(isinstance(line, str) for line in cell)
    return "\n".join(cell) if is_lines else cell


def as_turns(cell: Any) -> Turns | None:
    """Read a cell as a conversation, a list of {role, content}; None where it is no conversation.

    Roles and keys may be those of other sets (`ROLES`, `ROLE_KEYS`, `CONTENT_KEYS`). Content may be a list of text
    parts, and the turns may be columns: {"from": [...], "value": [...]}, as `datasets` gives a sequence of structs.
    A turn of an unknown role, without text or with an image makes the cell no conversation.
    """
    if isinstance(cell, Mapping):
        cell = _transposed(cell)
    if not isinstance(cell, list) or not all(isinstance(turn, Mapping) for turn in cell):
        return None
    turns: Turns = []
    for turn in cell:
        role, content = _first(turn, ROLE_KEYS), _content(_first(turn, CONTENT_KEYS))
        ours = _OURS.get(role.strip().lower()) if isinstance(role, str) else None
        if ours is None or content is None:
            return None
        turns.append({"role": ours, "content": content})
    return turns


def as_prompt(turns: Sequence[dict[str, str]]) -> Turns:
    """Drop the assistant's turns at the end of a conversation, and strip the last turn that is left."""
    end = len(turns)
    while end and turns[end - 1]["role"] == "assistant":
        end -= 1
    return [*turns[: end - 1], {**turns[end - 1], "content": turns[end - 1]["content"].strip()}] if end else []


def read_prompt(row: Mapping[str, Any], columns: str | Sequence[str]) -> Turns | Literal["empty", "not_text"]:
    """Read the prompt of a row, which ends with the user's turn; "empty" or "not_text" where there is none.

    Several columns (Alpaca's instruction and input) are joined by an empty line; empty ones are left out. A list of
    texts among them (MBPP's tests) is lines.
    """
    names = [columns] if isinstance(columns, str) else columns
    cells = [row.get(name) for name in names]
    if len(cells) > 1:
        cells = [as_lines(cell) for cell in cells]
    if all(cell is None or isinstance(cell, str) or cell != cell for cell in cells):
        messages = messages_in(cells[0]) if len(cells) == 1 and isinstance(cells[0], str) else None
        if messages is None:
            text = "\n\n".join(text for text in (as_text(cell) for cell in cells) if text)
            return [{"role": "user", "content": text}] if text else "empty"
        cells = [messages]
    turns = as_turns(cells[0]) if len(cells) == 1 else None
    if turns is None:
        return "not_text"
    if not turns:
        return "empty"
    prompt = as_prompt(turns)
    if not prompt or prompt[-1]["role"] != "user":
        return "not_text"
    return prompt if prompt[-1]["content"] else "empty"


def last_answers(turns: Turns) -> list[str]:
    """List the last answers of a conversation: several assistant's turns without another between are samples."""
    answers: list[str] = []
    for turn in reversed(turns):
        if turn["role"] == "assistant":
            answers.insert(0, turn["content"])
        elif answers:
            break
    return answers


def messages_in(text: str) -> list[Any] | None:
    """Find the messages that a text spells, as JSON or as Python does (a CSV written by pandas); else None."""
    if not text.lstrip().startswith("[") or len(text) > MESSAGES:
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, list) and found and as_turns(found) is not None:
            return found
    return None


def _lines(text: str) -> str:
    """Strip a text, and end its lines as all others do: files of Windows have two signs there."""
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def _first(turn: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((turn[key] for key in keys if turn.get(key) is not None), None)


def _content(content: Any) -> str | None:
    if isinstance(content, list):
        found = [part.get("text") if isinstance(part, Mapping) and _is_text(part) else part for part in content]
        parts = [part for part in found if isinstance(part, str)]
        content = "\n".join(parts) if 0 < len(parts) == len(found) else None
    if not isinstance(content, str):
        return None
    return well_formed(content.replace("\r\n", "\n").replace("\r", "\n"))


def _is_text(part: Mapping[str, Any]) -> bool:
    return part.get("type", "text") in ("text", "input_text", "output_text")


def _transposed(cell: Mapping[str, Any]) -> Any:
    """Turn columns of turns into turns; anything else stays as it is."""
    roles, contents = _first(cell, ROLE_KEYS), _first(cell, CONTENT_KEYS)
    if not (isinstance(roles, list) and isinstance(contents, list) and len(roles) == len(contents)):
        return cell
    return [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]
