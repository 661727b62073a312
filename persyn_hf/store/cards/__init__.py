"""Cards: the README.md that says what an artifact is and how it was made."""
