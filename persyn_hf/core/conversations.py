"""What a router and a reader of pairs see of a conversation."""

from collections.abc import Mapping, Sequence


def user_text(messages: Sequence[Mapping[str, str]]) -> str:
    """The user turns as one text, parted by blank lines; system and assistant turns are left out."""
    return "\n\n".join(message["content"] for message in messages if message["role"] == "user")
