"""What a function shows while it works: nothing, or bars in a terminal or notebook."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from persyn_hf.stage import Progress, Silent


@contextmanager
def shown(progress: bool | Progress) -> Iterator[Progress]:
    """Give the listener that a function reports to. True: bars on the error output. A `Progress` is taken as it is."""
    if not isinstance(progress, bool):
        yield progress
    elif progress:
        with _Bars() as bars:
            yield bars
    else:
        yield Silent()


class _Bars(Silent):
    """A bar per piece of work."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import Progress as RichBars

        self._bars = RichBars(console=Console(stderr=True))
        self._task: Any = None

    def __enter__(self) -> "_Bars":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def start(self, what: str, total: int, done: int = 0, work: float | None = None) -> None:
        self._task = self._bars.add_task(what, total=total or None, completed=done)

    def advance(self, count: int = 1, work: float | None = None) -> None:
        if self._task is not None:
            self._bars.update(self._task, advance=count)
