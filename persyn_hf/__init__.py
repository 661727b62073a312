"""persyn-hf: personalised data synthesis. Nothing heavy is imported here."""

__version__ = "0.1.0"


def load_artifact(ref: str, **kwargs):  # type: ignore[no-untyped-def]  # typed in store.local, imported late
    """Load an artifact by `NAMESPACE/NAME@TAG`; see `persyn_hf.store.local.load_artifact`."""
    from persyn_hf.store.local import load_artifact as load

    return load(ref, **kwargs)
