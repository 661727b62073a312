"""Ask a teacher behind a batch API, in this process or, as `python batch_asking.py`, in one that is to be killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from persyn_hf.backends.answers import Answer, Request, Sampling
from persyn_hf.backends.engines.batch.engine import BatchEngine
from persyn_hf.backends.engines.server import ServerEngine
from persyn_hf.backends.engines.settings import BatchSettings, ServerSettings


if TYPE_CHECKING:
    from batch_server import BatchServer

SAMPLING = Sampling(temperature=0.5, top_p=1.0, top_k=0, max_tokens=9, seed=2**40 + 3)


def engine(
    url: str,
    folder: Path,
    extra: dict[str, Any] | None = None,
    patience_s: float = 5,
    api: Literal["openai", "anthropic"] = "openai",
    **batch: Any,
) -> BatchEngine:
    settings = ServerSettings(urls=(url,), extra=extra or {}, patience_s=patience_s, api=api)
    given = BatchSettings(**{"poll_s": 0.05, **batch})
    return BatchEngine("m", settings, given, state_dir=folder / "unfinished")


def requests(engine: ServerEngine, number: int) -> list[Request]:
    return [
        Request(
            prompt_id=f"p{index}",
            model=engine.model,
            engine=engine.kind,
            sample_index=0,
            prompt=engine.prepare([{"role": "user", "content": f"word {index}"}]),
            sampling=SAMPLING,
        )
        for index in range(number)
    ]


def ask(engine: BatchEngine, asked: list[Request]) -> list[Answer]:
    return [answer for answers in engine.generate([[request] for request in asked]) for answer in answers]


def notes(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "batches").iterdir())


def check_kills(server: "BatchServer", folder: Path, api: str, *, kills: int, dealt: bool) -> None:
    """Ask 12 requests in six batches, by runs that are killed at their first to fourth request of HTTP, in turns.

    dealt: the server has done what was asked before the run is killed.
    """
    runs: list[subprocess.Popen[bytes]] = []
    first: list[int] = []  # the number of the first request of the present run

    def strike(number: int, path: str) -> None:
        if len(first) < len(runs):
            first.append(number)
        if len(runs) <= kills and number - first[-1] >= len(runs) % 4:
            os.kill(runs[-1].pid, signal.SIGKILL)

    if dealt:
        server.after = strike
    else:
        server.before = strike  # type: ignore[assignment]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, __file__, str(folder), server.url, api]
    while not runs or (runs[-1].wait() == -signal.SIGKILL and len(runs) <= kills + 1):
        runs.append(subprocess.Popen(command, env=environment))
    assert runs[-1].wait() == 0 and len(runs) > kills // 2
    assert set(server.sent.values()) == {1} and len(server.sent) == 12
    assert sorted(path.read_text() for path in folder.iterdir() if path.is_file()) == sorted(
        f"you said word {index}" for index in range(12)
    )


def main(place: str, url: str, api: Any) -> None:
    folder = Path(place)
    with engine(url, folder, api=api, patience_s=60, max_requests=2) as batch:
        asked = [request for request in requests(batch, 12) if not (folder / request.key).exists()]
        for answers in batch.generate([[request] for request in asked]):
            for answer in answers:
                (folder / answer.request.key).write_text(answer.text)


if __name__ == "__main__":
    main(*sys.argv[1:])
