"""The version of the package, read by setup.cfg, manifests and `persyn --version`."""

__version__ = "0.1.0"
