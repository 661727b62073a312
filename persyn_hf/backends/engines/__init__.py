"""Engines answer generation requests; each module has a `generate` that yields results."""
