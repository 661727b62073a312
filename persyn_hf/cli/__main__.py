"""Run `python -m persyn_hf.cli`, which is the same as `persyn`."""

from persyn_hf.cli.main import script


if __name__ == "__main__":
    script()
