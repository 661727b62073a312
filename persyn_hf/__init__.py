"""persyn-hf: personalised data synthesis. Nothing heavy is imported here."""

from persyn_hf.version import __version__ as __version__


def load_artifact(ref: str, **kwargs):  # type: ignore[no-untyped-def]  # typed in store.load, imported late
    """Load an artifact by `NAMESPACE/NAME@TAG`; see `persyn_hf.store.load.load_artifact`."""
    from persyn_hf.store.load import load_artifact as load

    return load(ref, **kwargs)
