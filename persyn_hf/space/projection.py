"""A map of the prompts: the router's scores projected onto two axes."""

from typing import Literal


Colour = Literal["teacher", "regret", "topic"]
