"""A stand-in for `vllm.entrypoints.openai.api_server`: it starts at once, wants its key, and notes whom it answers.

`install(folder)` makes it the package `vllm` of a folder. Servers append the names of their nodes to the file `asked`
of the folder; the first one that finds no file `died` there makes it at its third request, and dies.
"""

from pathlib import Path


PROGRAM = """
import json, os, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FOLDER = Path(__file__).parents[3]
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
count = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def say(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.say(200, {"data": [{"id": given["--served-model-name"]}]})

    def do_POST(self):
        global count
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.headers.get("authorization") != "Bearer " + os.environ["VLLM_API_KEY"]:
            return self.say(401, {"error": "Unauthorized"})
        count += 1
        if count == 3:
            try:
                (FOLDER / "died").touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                os._exit(1)
        with (FOLDER / "asked").open("a") as asked:
            asked.write(os.environ["SLURMD_NODENAME"] + "\\n")
        time.sleep(0.05)
        choice = {"text": "", "token_ids": body["prompt"][-3:], "finish_reason": "stop"}
        self.say(200, {"choices": [choice], "usage": {"prompt_tokens": len(body["prompt"]), "completion_tokens": 3}})


ThreadingHTTPServer((given["--host"], int(given["--port"])), Handler).serve_forever()
"""


def install(folder: Path) -> None:
    package = folder / "vllm" / "entrypoints" / "openai"
    package.mkdir(parents=True)
    for each in (package, package.parent, package.parent.parent):
        (each / "__init__.py").touch()
    (package / "api_server.py").write_text(PROGRAM)
