"""Cut out what a router sees of a conversation, and what a student sees of an answer."""

from collections.abc import Mapping, Sequence
from typing import Any


def user_text(messages: Sequence[Mapping[str, str]]) -> str:
    """Join the user turns to one text, with blank lines between them; system and assistant turns are left out."""
    return "\n\n".join(message["content"] for message in messages if message["role"] == "user")


def full_response(row: Mapping[str, Any]) -> str:
    """Return an answer as the student is scored on it and trained on it: with its reasoning, where there is any.

    The paper's students learn the long chains of Long-CoT teachers, so these count in learnability and in SFT alike.
    """
    if not row["reasoning"]:
        return str(row["response"])
    return f"<think>\n{row['reasoning']}\n</think>\n\n{row['response']}"
