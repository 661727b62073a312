"""What openai_server.py does, for classifications."""

from typing import Any

from openai_server import OpenAIServer, Response


class ClassifyServer(OpenAIServer):
    """Answers at /classify, and nowhere else."""

    def start(self) -> None:
        super().start()

        class Handler(self._http.RequestHandlerClass):  # type: ignore[misc, name-defined]
            def do_POST(self) -> None:
                self.path = {"/classify": "/v1/chat/completions"}.get(self.path, "/elsewhere")
                super().do_POST()

        self._http.RequestHandlerClass = Handler


def classification(*scores: Any, tokens: int = 9) -> Response:
    return Response(
        body={"data": [{"index": 0, "probs": list(scores), "num_classes": 1}], "usage": {"prompt_tokens": tokens}}
    )
