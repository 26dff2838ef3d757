"""The preparation of a corpus: killed, failing, side by side, in little memory."""

import json
import logging
import os
import random
import resource
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from nanosq.data import cache, corpus, tokenizers
from nanosq.data import prepare as preparation
from nanosq.data.sources import Document, text
from nanosq.data.stories import stories

PREPARE = """
import sys
from functools import partial
from nanosq.data import corpus, tokenizers
from nanosq.data.sources import text
source = partial(text, train=sys.argv[1], val_fraction=0.2, test_fraction=0.2)
corpus.prepare(source, tokenizers.gpt2(vocabulary=1000), cache_dir=sys.argv[2])
"""


def documents(split):
    for i in range(6):
        yield Document(f"{split} {i}")


def contents(cache_dir: Path) -> dict[str, bytes]:
    (folder,) = cache_dir.iterdir()
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
def test_a_preparation_that_is_killed_starts_over_and_ends_with_the_same_bytes(tmp_path):
    file = tmp_path / "stories.jsonl"
    texts = [document.text for document in stories("train", n_train=3000)]
    rng = random.Random(0)
    with file.open("w") as lines:
        for i in range(8):
            rng.shuffle(texts)
            lines.writelines(json.dumps({"text": f"{story} {i}"}) + "\n" for story in texts)

    def start(name: str) -> "subprocess.Popen[str]":
        return subprocess.Popen([sys.executable, "-c", PREPARE, str(file), str(tmp_path / name)], text=True)

    assert start("whole").wait() == 0
    for name in ("test.ids", "train.ids", "train.tokens"):
        process = start("killed")
        while process.poll() is None and not list(tmp_path.glob(f"killed/.*/{name}")):
            time.sleep(0.001)
        process.kill()
        assert process.wait() == -9, "it ended before it was killed"
        assert len(list((tmp_path / "killed").glob(".*.unfinished"))) == 1
    assert start("killed").wait() == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_files_of_a_killed_process_are_not_used(tmp_path):
    corpus.prepare(documents, tokenizers.byte_level(), cache_dir=tmp_path)
    whole = contents(tmp_path)
    (folder,) = tmp_path.iterdir()
    partial_folder = folder.rename(cache.unfinished(folder))
    (partial_folder / "train.tokens").write_bytes(b"incomplete")
    (partial_folder / "other").write_bytes(b"incomplete")
    corpus.prepare(documents, tokenizers.byte_level(), cache_dir=tmp_path)
    assert contents(tmp_path) == whole


def test_a_full_disk_is_an_error_that_leaves_nothing(tmp_path):
    def large(split):
        yield Document("x" * 3_000_000 + split)

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            corpus.prepare(large, tokenizers.byte_level(), cache_dir=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_two_threads_that_start_together_prepare_once(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    is_waiting = threading.Event()
    splits = []

    class SetWhenWaiting(logging.Handler):
        def emit(self, record):
            if "another process prepares" in record.getMessage():
                is_waiting.set()

    def source(split):
        splits.append(split)
        assert is_waiting.wait(60)
        yield Document(split)

    handler = SetWhenWaiting()
    logging.getLogger("nanosq").addHandler(handler)
    try:
        prepare = partial(corpus.prepare, source, tokenizers.byte_level(), cache_dir=tmp_path)
        threads = [threading.Thread(target=prepare) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        logging.getLogger("nanosq").removeHandler(handler)
    assert splits == ["test", "val", "train"]
    assert len(list(tmp_path.iterdir())) == 1


def test_the_progress_bar_shows_bytes_and_speed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr(preparation, "CHUNK", 1000)
    monkeypatch.setattr(preparation, "tqdm", partial(preparation.tqdm, mininterval=0.0))  # show every update
    path = tmp_path / "a.txt"
    path.write_text("<|endoftext|>".join(f"{i} " + "dog " * 250 for i in range(500)))
    corpus.prepare(partial(text, train=str(path)), tokenizers.byte_level(), cache_dir=tmp_path / "cache")
    output = capsys.readouterr().err
    assert "text train: " in output
    assert "MB/s" in output


@pytest.mark.slow
def test_memory_does_not_grow_with_the_text(tmp_path):
    program = """
import sys
from pathlib import Path
from nanosq.data import corpus, tokenizers
from nanosq.data.sources import Document
def documents(split):
    for i in range(int(sys.argv[1]) if split == "train" else 10):
        yield Document(f"{split} {i} " + "word " * 4000)
"""
    run = (
        "from documents import *\n"
        "corpus.prepare(documents, tokenizers.gpt2(vocabulary=300), cache_dir=sys.argv[2])\n"
        "print(next(line.split()[1] for line in Path('/proc/self/status').open() if line.startswith('VmHWM')))"
    )
    (tmp_path / "documents.py").write_text(program)
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "LOKY_MAX_CPU_COUNT": "2"}
    peaks = []
    for n in (200, 4000):  # 4 MB and 80 MB
        command = [sys.executable, "-c", run, str(n), str(tmp_path / str(n))]
        process = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        peaks.append(int(process.stdout) / 1024)
    (folder,) = (tmp_path / "4000").iterdir()
    assert cache.manifest(folder)["splits"]["train"]["bytes"] > 80e6
    assert peaks[0] < 300
    assert peaks[1] < peaks[0] + 30
