"""TinyStories from the Hugging Face hub: one that does not answer, one that does, and what is cached of it."""

import json
import os
import socket
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest
from datasets.packaged_modules.parquet.parquet import Parquet

from nanosq.data import sources

REVISION = "f54c09fd23315a6f9c86f9dc80f725de7d8f9c64"
STORIES = [f"Story {i} was about a fox." for i in range(50)]
NAMES = [f"train-0000{i}-of-00002-{i}d5a1467fff1081b.parquet" for i in range(2)] + [
    "validation-00000-of-00001-869c898b519ad725.parquet"
]


def ask(environment: dict[str, str], revision: str = REVISION) -> tuple[str, float]:
    """What a fresh process says that counts the test stories, and the seconds it takes without the imports."""
    program = (
        "import time, huggingface_hub.hf_api\nfrom nanosq.data import sources\nbegin = time.perf_counter()\n"
        f"try: print(sum(1 for _ in sources.tinystories('test', revision='{revision}')))\n"
        "except ValueError as error: print(error)\n"
        "print(time.perf_counter() - begin)"
    )
    proxies = ("http_proxy", "https_proxy", "all_proxy")
    inherited = {key: value for key, value in os.environ.items() if key.lower() not in proxies}
    process = subprocess.run(
        [sys.executable, "-c", program], env=inherited | environment, capture_output=True, text=True, check=True
    )
    *lines, seconds = process.stdout.splitlines()
    assert len(lines) == 1, process.stdout
    return lines[0], float(seconds)


@contextmanager
def refused() -> Iterator[str]:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{closed.getsockname()[1]}"


@contextmanager
def silent() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # a connection is made, and nobody reads from it
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def swallowed() -> Iterator[str]:
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    address = listener.getsockname()
    fillers = [socket.socket() for _ in range(4)]
    for filler in fillers:  # a full backlog: the next connection is neither made nor refused
        filler.setblocking(False)
        filler.connect_ex(address)
    yield f"http://127.0.0.1:{address[1]}"
    for each in (listener, *fillers):
        each.close()


@contextmanager
def nameless() -> Iterator[str]:
    yield "http://hub.invalid"


@pytest.mark.parametrize("hub", [refused, silent, swallowed, nameless])
def test_a_hub_that_does_not_answer(tmp_path, hub):
    with hub() as endpoint:
        message, seconds = ask({"HF_HOME": str(tmp_path), "HF_ENDPOINT": endpoint})
    assert "TinyStories is not in Hugging Face's cache, and the hub failed (" in message
    assert "data.source.path=DIR" in message
    assert seconds < 5


def test_offline(tmp_path):
    message, seconds = ask({"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"})
    assert "data.source.path=DIR" in message
    assert seconds < 3


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's interface as a download takes."""

    files: dict[str, bytes]

    def do_GET(self) -> None:
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        if path == f"/api/datasets/roneneldan/TinyStories/revision/{REVISION}":
            self._json({"id": "roneneldan/TinyStories", "sha": REVISION, "siblings": []})
        elif path == f"/api/datasets/roneneldan/TinyStories/tree/{REVISION}":
            self._json(
                [{"type": "file", "path": p, "size": len(d), "oid": f"{len(d):040x}"} for p, d in self.files.items()]
            )
        elif path.startswith(f"/datasets/roneneldan/TinyStories/resolve/{REVISION}/"):
            self._file(path.partition(f"{REVISION}/")[2])
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
        self.send_header("X-Repo-Commit", REVISION)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data) - begin))
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data[begin:])

    def log_message(self, format: str, *args: object) -> None:
        self.server.asked.append(f"{self.command} {self.path}")  # type: ignore[attr-defined]


@contextmanager
def answering(files: dict[str, bytes]) -> Iterator[tuple[str, list[str]]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("This", (Hub,), {"files": files}))
    server.asked = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.asked  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def parquet(texts: list[str]) -> bytes:
    sink = pa.BufferOutputStream()
    pa.parquet.write_table(pa.table({"text": texts}), sink)
    return sink.getvalue().to_pybytes()


@pytest.fixture
def repository() -> dict[str, bytes]:
    parts = (STORIES[:10], STORIES[10:25], STORIES[25:])
    data = {f"data/{name}": parquet(part) for name, part in zip(NAMES, parts, strict=True)}
    return data | {"TinyStories-train.txt": b"not to be downloaded" * 100}


def test_downloaded_once_and_then_read_from_the_cache_without_network(tmp_path, repository):
    home = {"HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
    with answering(repository) as (endpoint, asked):
        assert ask(home | {"HF_ENDPOINT": endpoint})[0] == "25"
        assert sum(line.startswith("GET /datasets") for line in asked) == 3
        assert not any("TinyStories-train.txt" in line for line in asked)
        asked.clear()
        assert ask(home | {"HF_ENDPOINT": endpoint})[0] == "25"
        assert asked == []
    with silent() as endpoint:
        message, seconds = ask(home | {"HF_ENDPOINT": endpoint})
    assert message == "25"
    assert seconds < 2

    # A part of it is missing, and its name points nowhere: what is there is not taken for the whole.
    next(tmp_path.rglob(NAMES[1])).resolve().unlink()
    with refused() as endpoint:
        assert "the hub failed" in ask(home | {"HF_ENDPOINT": endpoint})[0]
    with answering(repository) as (endpoint, asked):
        assert ask(home | {"HF_ENDPOINT": endpoint})[0] == "25"


def test_a_revision_that_the_hub_does_not_have(tmp_path):
    with answering({}) as (endpoint, _):
        message, _ = ask({"HF_HOME": str(tmp_path), "HF_ENDPOINT": endpoint}, revision="0" * 40)
    assert "the hub failed (" in message
    assert "404" in message


def test_what_datasets_has_cached_is_read_without_network(tmp_path):
    pa.parquet.write_table(pa.table({"text": [*STORIES, " "]}), tmp_path / "a.parquet")
    data_files = {split: [str(tmp_path / "a.parquet")] for split in ("train", "validation")}
    datasets.disable_progress_bars()
    builder = Parquet(cache_dir=str(tmp_path), dataset_name="tiny_stories", hash=REVISION, data_files=data_files)
    builder.download_and_prepare()
    # Where `datasets` puts what it has from the hub.
    place = tmp_path / "home" / "datasets" / "roneneldan___tiny_stories"
    (place / "default-of-a-part" / "0.0.0" / REVISION).mkdir(parents=True)  # of other data_files
    cached = place / "default" / "0.0.0" / REVISION
    cached.parent.mkdir(parents=True)
    Path(builder.cache_dir).rename(cached)
    with silent() as endpoint:
        message, seconds = ask({"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": endpoint})
    assert message == str(len(STORIES))
    assert seconds < 3


def test_the_rows_that_the_report_held_out(tmp_path):
    n = 2_119_719  # rows of the published training split
    table = pa.table({"text": [f"story {i}" for i in range(n)]})
    pa.parquet.write_table(table, tmp_path / "train-00000-of-00001.parquet")
    pa.parquet.write_table(pa.table({"text": ["validation"]}), tmp_path / "validation-00000-of-00001.parquet")
    halves = datasets.Dataset(table).train_test_split(test_size=0.0005, seed=2357, shuffle=True)
    source = partial(sources.tinystories, path=str(tmp_path), splits="report")
    val = [document.text for document in source("val")]
    assert len(val) == 1060
    assert sorted(val) == sorted(halves["test"]["text"])
    train = [document.text for document in source("train")]
    assert len(train) == n - 1060
    assert set(train).isdisjoint(val)
    assert [document.text for document in source("test")] == ["validation"]


def test_an_empty_row_keeps_its_number(tmp_path):
    texts = [f"story {i}" if i % 3 else None for i in range(5000)]
    pa.parquet.write_table(pa.table({"text": texts}), tmp_path / "train-00000-of-00001.parquet")
    rows = datasets.Dataset(pa.table({"text": texts})).train_test_split(test_size=0.0005, seed=2357)["test"]["text"]
    val = partial(sources.tinystories, path=str(tmp_path), splits="report")("val")
    assert sorted(document.text for document in val) == sorted(filter(None, rows))


def test_the_rows_of_a_text_are_not_the_published_ones(tmp_path):
    for name in ("TinyStories-train.txt", "TinyStories-valid.txt"):
        (tmp_path / name).write_text("one<|endoftext|>two")
    with pytest.raises(ValueError, match=r"data.source.splits=report takes rows by their number: give the published"):
        list(sources.tinystories("val", path=str(tmp_path), splits="report"))
