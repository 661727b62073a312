"""Run `python -m persyn_hf.cli`, which is the same as `persyn`."""

import sys

from persyn_hf.cli.main import main


if __name__ == "__main__":
    sys.exit(main())
