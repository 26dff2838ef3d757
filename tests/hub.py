"""A Hugging Face hub on this machine, and addresses at which no hub answers."""

import json
import socket
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def refused() -> Iterator[str]:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{closed.getsockname()[1]}"


@contextmanager
def silent() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # it accepts a connection and never answers
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def nameless() -> Iterator[str]:
    yield "http://hub.invalid"


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's interface that a download needs."""

    name: str  # of the repository
    revision: str
    files: dict[str, bytes]

    def do_GET(self) -> None:
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        api = path.removeprefix("/api/models/").removeprefix("/api/datasets/")
        if api in (self.name, f"{self.name}/revision/{self.revision}", f"{self.name}/revision/main"):
            self._json({"id": self.name, "sha": self.revision, "siblings": []})
        elif api == f"{self.name}/tree/{self.revision}":
            self._json(
                [{"type": "file", "path": p, "size": len(d), "oid": f"{len(d):040x}"} for p, d in self.files.items()]
            )
        elif path.removeprefix("/datasets").startswith(f"/{self.name}/resolve/{self.revision}/"):
            self._file(path.partition(f"{self.revision}/")[2])
        else:
            self.send_error(404)

    do_HEAD = do_GET

    def _json(self, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def _file(self, name: str) -> None:
        data = self.files[name]
        begin = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.send_response(206 if begin else 200)
        self.send_header("ETag", f'"{len(data):040x}"')
        self.send_header("X-Repo-Commit", self.revision)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data) - begin))
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data[begin:])

    def log_message(self, format: str, *args: object) -> None:
        self.server.requests.append(f"{self.command} {self.path}")  # type: ignore[attr-defined]


@contextmanager
def answering(name: str, revision: str, files: dict[str, bytes]) -> Iterator[tuple[str, list[str]]]:
    """Yield the address of a hub with one repository, and the requests that it has received."""
    contents = {"name": name, "revision": revision, "files": files}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("HubWithFiles", (Hub,), contents))
    server.requests = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.requests  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
