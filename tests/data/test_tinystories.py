"""TinyStories: the Hugging Face hub and its cache, copies in a directory, and the report's split of the rows."""

import json
import os
import shutil
import socket
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import datasets
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet
import pytest
from huggingface_hub import constants

from nanosq.data import sources

REVISION = "f54c09fd23315a6f9c86f9dc80f725de7d8f9c64"
STORIES = [f"Story {i} was about a fox." for i in range(50)]
NAMES = [f"train-0000{i}-of-00002-{i}d5a1467fff1081b.parquet" for i in range(2)] + [
    "validation-00000-of-00001-869c898b519ad725.parquet"
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Use an empty cache of Hugging Face, and no proxy."""
    for name in [name for name in os.environ if name.lower() in ("http_proxy", "https_proxy", "all_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    huggingface_hub.close_session()
    yield
    huggingface_hub.close_session()


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch):
    def use_endpoint(endpoint: str) -> None:
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        template = f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)

    return use_endpoint


def n_test_stories(revision: str = REVISION) -> int:
    return sum(1 for _ in sources.tinystories("test", revision=revision))


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


@pytest.mark.parametrize("hub", [refused, silent, nameless])
def test_a_hub_that_does_not_answer_is_one_line_that_says_what_to_set(use, hub):
    with hub() as endpoint:
        use(endpoint)
        with pytest.raises(ValueError, match=r"cache, and the hub failed \(.*data.source.path=DIR") as caught:
            n_test_stories()
    assert "\n" not in str(caught.value)


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's interface that a download needs."""

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
        self.server.requests.append(f"{self.command} {self.path}")  # type: ignore[attr-defined]


@contextmanager
def answering(files: dict[str, bytes]) -> Iterator[tuple[str, list[str]]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("HubWithFiles", (Hub,), {"files": files}))
    server.requests = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.requests  # type: ignore[attr-defined]
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


def test_tinystories_is_downloaded_once_and_then_read_from_the_cache(use, tmp_path, repository):
    with answering(repository) as (endpoint, requests):
        use(endpoint)
        assert n_test_stories() == 25
        assert sum(line.startswith("GET /datasets") for line in requests) == 3
        assert not any("TinyStories-train.txt" in line for line in requests)
        requests.clear()
        assert n_test_stories() == 25
        assert requests == []

    # If a file is missing, the rest is not taken for the whole data set.
    next(tmp_path.rglob(NAMES[1])).resolve().unlink()
    with refused() as endpoint:
        use(endpoint)
        with pytest.raises(ValueError, match="the hub failed"):
            n_test_stories()
    with answering(repository) as (endpoint, _):
        use(endpoint)
        assert n_test_stories() == 25


def test_a_revision_that_the_hub_does_not_have_is_an_error(use):
    with answering({}) as (endpoint, _):
        use(endpoint)
        with pytest.raises(ValueError, match=r"the hub failed \(.*404"):
            n_test_stories("0" * 40)


def test_the_report_held_out_the_rows_that_datasets_holds_out(tmp_path):
    """A row without text keeps its number, and is in no split."""
    texts = [f"story {i}" if i % 3 else None for i in range(5000)]
    pa.parquet.write_table(pa.table({"text": texts}), tmp_path / "train-00000-of-00001.parquet")
    halves = datasets.Dataset(pa.table({"text": texts})).train_test_split(test_size=0.0005, seed=2357, shuffle=True)
    for split, half in (("val", "test"), ("train", "train")):
        stories = [document.text for document in sources.tinystories(split, path=str(tmp_path), splits="report")]
        assert sorted(stories) == sorted(filter(None, halves[half]["text"]))


def test_the_report_held_out_1060_rows_of_the_published_training_split():
    assert sources.report_rows(2_119_719).sum() == 1060


def test_the_rows_of_a_text_file_are_not_the_published_ones(tmp_path):
    for name in ("TinyStories-train.txt", "TinyStories-valid.txt"):
        (tmp_path / name).write_text("one<|endoftext|>two")
    with pytest.raises(ValueError, match=r"data.source.splits=report takes rows by their number: give the published"):
        list(sources.tinystories("val", path=str(tmp_path), splits="report"))


def texts(split: str, path: Path, **arguments) -> list[str]:
    return [document.text for document in sources.tinystories(split, path=str(path), **arguments)]


def test_tinystories_is_read_from_a_directory(tmp_path):
    stories = [f"Story {i} was about a fox." for i in range(400)]
    (tmp_path / "data").mkdir()
    for name, part in zip(NAMES, (stories[:150], stories[150:300], stories[300:]), strict=True):
        (tmp_path / "data" / name).write_bytes(parquet(part))
    (tmp_path / "TinyStoriesV2-GPT4-train.txt").write_text("the second version<|endoftext|>")
    (tmp_path / "TinyStoriesV2-GPT4-valid.txt").write_text("of the dataset<|endoftext|>")
    assert texts("test", tmp_path) == stories[300:]
    train, val = (texts(split, tmp_path, val_fraction=0.2) for split in ("train", "val"))
    assert sorted(train + val) == sorted(stories[:300])
    assert 30 < len(val) < 90

    shutil.rmtree(tmp_path / "data")
    assert texts("test", tmp_path) == ["of the dataset"]
    (tmp_path / "TinyStories-valid.txt").write_text("the first version<|endoftext|>")
    assert texts("test", tmp_path) == ["the first version"]


def test_a_directory_without_tinystories_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"data.source.path: there is no directory"):
        texts("train", tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"data.source.path: no file in .* has 'train' in its name"):
        texts("train", tmp_path)
