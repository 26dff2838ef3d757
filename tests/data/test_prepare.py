"""Processes that prepare a corpus: killed, side by side, in little memory."""

import json
import os
import random
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from nanosq.data import cache, corpus, tokenizers
from nanosq.data import prepare as preparation
from nanosq.data.sources import Document, text
from nanosq.data.stories import stories

KILLS = 10
PREPARE = """
import logging, resource, sys
from functools import partial
from nanosq.data import corpus, preparation, tokenizers
from nanosq.data.sources import text
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
if len(sys.argv) > 3:  # as if the disk were full
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
preparation.SAVE_EVERY = 0.02
preparation.CHUNK = 1 << 17
source = partial(text, train=sys.argv[1], val_fraction=0.2, test_fraction=0.2)
corpus.prepare(source, tokenizers.gpt2(vocabulary=1000), cache_dir=sys.argv[2])
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "stories.jsonl"
    texts = [document.text for document in stories("train", n_train=3000)]
    rng = random.Random(0)
    with path.open("w") as lines:
        for i in range(4):
            rng.shuffle(texts)
            lines.writelines(json.dumps({"text": f"{each} {i}"}) + "\n" for each in texts)
    return path


def start(file: Path, cache_dir: Path, *more: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", PREPARE, str(file), str(cache_dir), *more]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def contents(cache_dir: Path) -> dict[str, bytes]:
    (folder,) = cache_dir.iterdir()
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def written(cache_dir: Path) -> int:
    """Bytes; os.walk, since files come and go."""
    size = 0
    for folder, _, names in os.walk(cache_dir):
        for name in names:
            with suppress(FileNotFoundError):
                size += Path(folder, name).stat().st_size
    return size


@pytest.fixture(scope="module")
def whole(tmp_path_factory, file):
    """The cache directory of a preparation that was not disturbed, and the bytes that it had written at most."""
    cache_dir = tmp_path_factory.mktemp("whole")
    process, most = start(file, cache_dir), 0
    while process.poll() is None:
        most = max(most, written(cache_dir))
        time.sleep(0.002)
    assert process.returncode == 0
    return cache_dir, most


def test_killed_again_and_again_it_ends_with_the_same_bytes(tmp_path, file, whole):
    seed = time.time_ns()
    rng = random.Random(seed)
    killed, read = 0, []
    for part in sorted(rng.random() for _ in range(KILLS)):
        process = start(file, tmp_path)
        while process.poll() is None and written(tmp_path) < part * whole[1]:
            time.sleep(0.001)
        process.kill()
        process.communicate()
        killed += process.returncode == -9
        for folder in tmp_path.glob("text-*"):
            assert cache.damage(folder) is None, seed
        if journals := list(tmp_path.rglob("work/*.json")):
            read.append(sum(json.loads(journal.read_text())["read"] for journal in journals))
    assert killed > KILLS / 2, "it was done before it could be killed"
    assert read == sorted(read), seed
    process = start(file, tmp_path)
    process.communicate()
    assert process.returncode == 0
    assert contents(tmp_path) == contents(whole[0]), seed


def test_a_full_disk_is_told_and_what_is_written_is_kept(tmp_path, file, whole):
    process = start(file, tmp_path, "100000")
    error = process.communicate()[1]
    assert process.returncode == 1
    assert "OSError: [Errno 27] File too large" in error
    assert json.loads(next(tmp_path.rglob("work/test.json")).read_text())["read"] > 0
    process = start(file, tmp_path)
    process.communicate()
    assert process.returncode == 0
    assert contents(tmp_path) == contents(whole[0])


@pytest.mark.parametrize("lost", ["val.ids", "val.rows", "val.json", "test.ids"])
def test_files_that_are_less_than_the_journal_says_are_written_again(tmp_path, lost):
    failing = True

    def documents(split):
        yield Document(f"{split} one")
        yield Document(f"{split} two")
        if split == "train" and failing:
            raise OSError("unplugged")

    with pytest.raises(OSError, match="unplugged"):
        corpus.prepare(documents, tokenizers.byte_level(), cache_dir=tmp_path)
    (path,) = tmp_path.rglob(f"work/{lost}")
    path.write_bytes(path.read_bytes()[:-3])
    failing = False
    prepared = corpus.prepare(documents, tokenizers.byte_level(), cache_dir=tmp_path)
    for split in ("train", "val", "test"):
        text = prepared.tokenizer.decode(getattr(prepared, split).tokens[1:-1])
        assert text == f"{split} one<|endoftext|>{split} two"


def test_what_is_on_the_disk_is_not_encoded_again(tmp_path, monkeypatch):
    seen: list[str] = []

    class Counted(tokenizers.ByteLevel):
        def encode(self, texts):
            seen.extend(filter(None, texts))
            return super().encode(texts)

    def documents(split):
        for i in range(6):
            if split == "train" and i == 4 and len(seen) < 20:
                raise OSError("unplugged")
            yield Document(f"{split} {i}")

    monkeypatch.setattr(preparation, "SAVE_EVERY", -1)
    monkeypatch.setattr(preparation, "CHUNK", 1)
    monkeypatch.setattr("joblib.cpu_count", lambda: 1)
    with pytest.raises(OSError, match="unplugged"):
        corpus.prepare(documents, Counted(), cache_dir=tmp_path)
    first, seen[:] = list(seen), ["-"] * 20
    prepared = corpus.prepare(documents, Counted(), cache_dir=tmp_path)
    assert first[:12] == [f"{split} {i}" for split in ("test", "val") for i in range(6)]
    on_disk = 2  # of four: the others are on their way between the threads
    assert seen[20:] == [f"train {i}" for i in range(on_disk, 6)]
    assert len(prepared.train.starts) == 7


def test_processes_that_start_together_prepare_once_and_the_others_say_so(tmp_path, file):
    processes = [start(file, tmp_path / "cache") for _ in range(4)]
    outputs = [process.communicate(timeout=60)[1].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    made = [lines for lines in outputs if any("tokens train" in line for line in lines)]
    assert len(made) == 1
    for lines in outputs:
        for line in lines:  # nothing else on stderr, since it is no terminal
            assert "another process prepares" in line or "left out of" in line or "text: tokens" in line
    assert sum("another process prepares" in line for lines in outputs for line in lines) >= 1
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_progress(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr(preparation, "CHUNK", 1000)
    path = tmp_path / "a.txt"
    path.write_text("<|endoftext|>".join(f"{i} " + "dog " * 250 for i in range(5000)))
    corpus.prepare(partial(text, train=str(path)), tokenizers.byte_level(), cache_dir=tmp_path / "cache")
    shown = capsys.readouterr().err
    assert "text train" in shown
    assert "documents" in shown
    assert "MB/s" in shown


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
