"""The cache holds complete and undamaged corpora only. Its command lists, verifies and removes them."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import pytest

from nanosq.data import cache, corpus, tokenizers
from nanosq.data.__main__ import main
from nanosq.data.sources import Document
from tests.test_checkpoint import small_files

BYTES = tokenizers.byte_level()


def source_of_texts(split, *, texts):
    yield from (Document(f"{split} {text}") for text in texts)


def write(folder, content="content"):
    (folder / "a.txt").write_text(content)
    (folder / "b.txt").write_text("more")
    cache.sign(folder, {"fact": 1})


DAMAGE = {
    "a.txt is missing": lambda folder: (folder / "a.txt").unlink(),
    "a.txt has 6 bytes, not 7": lambda folder: (folder / "a.txt").write_text("conten"),
    "a.txt has another checksum": lambda folder: (folder / "a.txt").write_text("contemt"),
    "manifest.json: .*No such file": lambda folder: (folder / "manifest.json").unlink(),
    "manifest.json: Expecting": lambda folder: (folder / "manifest.json").write_text('{"files"'),
    "manifest.json has another checksum": lambda folder: (folder / "manifest.json").write_text("{}"),
    "manifest.json has another": lambda folder: (folder / "manifest.json").write_text(
        (folder / "manifest.json").read_text().replace('"fact": 1', '"fact": 2')
    ),
    "manifest.json: .*codec can't decode": lambda folder: (folder / "manifest.json").write_bytes(b"\xff"),
}


@pytest.mark.parametrize("problem", DAMAGE)
def test_a_damaged_folder_is_written_again(tmp_path, caplog, problem):
    folder = tmp_path / "corpus"
    cache.fill(folder, write)
    assert cache.manifest(folder)["fact"] == 1
    assert cache.damage(folder) is None
    DAMAGE[problem](folder)
    if (folder / "a.txt").exists():
        os.utime(folder / "a.txt", (0, 0))  # a file that is written twice in a tick of the clock looks the same
    assert re.search(problem, cache.damage(folder))
    cache.fill(folder, write)
    assert re.search(rf"corpus is damaged \({problem}.*\): preparing it again", caplog.text)
    assert cache.damage(folder) is None
    assert (folder / "a.txt").read_text() == "content"
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


def test_a_complete_folder_is_not_written_again(tmp_path):
    cache.fill(tmp_path / "corpus", write)
    cache.fill(tmp_path / "corpus", lambda _: pytest.fail("called again"))


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt])
def test_a_failed_write_leaves_nothing(tmp_path, error):
    def fail(folder):
        (folder / "begun").touch()
        raise error("wrong")

    with pytest.raises(error, match="wrong"):
        cache.fill(tmp_path / "cache" / "corpus", fail)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    folder = tmp_path / "cache" / "corpus"
    with small_files(100), pytest.raises(OSError, match=r"cannot write .*corpus \(.*\): .*, or set cache_dir=DIR$"):
        cache.fill(folder, partial(write, content="content" * 100))
    assert list(tmp_path.iterdir()) == []
    cache.fill(folder, write)


def test_files_of_a_killed_process_are_deleted(tmp_path):
    folder = tmp_path / "corpus"
    cache.unfinished(folder).mkdir()
    (cache.unfinished(folder) / "begun").touch()
    cache.fill(folder, write)
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]
    assert not (folder / "begun").exists()


def test_a_cache_directory_that_is_a_file_is_one_clear_error(tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(OSError, match=r"cannot write .*cache \(File exists\): make it writable, or set cache_dir=DIR"):
        cache.fill(tmp_path / "cache" / "corpus", write)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.setenv("COLUMNS", "100")  # no columns below the others

    def run(directory, *arguments) -> tuple[int, str, str]:
        return main([*arguments, "--cache-dir", str(directory)]), *capsys.readouterr()

    return run


def test_the_command_runs_as_a_module(tmp_path):
    process = [sys.executable, "-m", "nanosq.data", "list", "--cache-dir", str(tmp_path)]
    assert subprocess.check_output(process, text=True) == f"no corpus in {tmp_path}\n"


def test_the_command_lists_verifies_and_removes(tmp_path, command):
    assert command(tmp_path) == (0, f"no corpus in {tmp_path}\n", "")
    for texts in (["one", "two"], ["three", "four", "five"]):
        corpus.prepare(partial(source_of_texts, texts=texts), BYTES, cache_dir=tmp_path)
    (tmp_path / "notes").mkdir()  # not a corpus
    first, second = sorted(path.name for path in tmp_path.glob("source_of_texts*"))
    third = f"without_end-{'0' * 16}"
    (tmp_path / f".{third}.unfinished").mkdir()

    status, out, _ = command(tmp_path)
    lines = out.splitlines()
    assert status == 0
    assert lines[0].split() == ["corpus", "prepared", "documents", "tokens", "vocabulary", "MB"]
    assert [line.split()[0] for line in lines[1:]] == [first, second, third]
    assert "unfinished" in lines[3]
    assert sorted(int(line.split()[3]) for line in lines[1:3]) == [6, 9]  # documents
    assert [line.split()[5] for line in lines[1:3]] == ["257", "257"]  # vocabulary

    assert command(tmp_path, "verify") == (0, f"{first}: ok\n{second}: ok\n{third}: unfinished\n", "")
    (tmp_path / first / "train.tokens").write_bytes(b"damaged")
    status, out, _ = command(tmp_path, "verify", first)
    assert status == 1
    assert out.startswith(f"{first}: damaged: train.tokens has 7 bytes, not ")
    (tmp_path / second / "manifest.json").write_text("{}")
    assert "damaged" in command(tmp_path)[1].splitlines()[2]

    status, _, err = command(tmp_path, "remove")
    assert (status, "remove needs the names" in err) == (2, True)
    status, _, err = command(tmp_path, "remove", "notes")
    assert (status, f"no 'notes' in {tmp_path}: it holds {first}, {second}" in err) == (2, True)
    unclear = {"source_of_texts": "2 corpora begin with 'source_of_texts'", "": "no ''"}
    for name, problem in unclear.items():
        status, _, err = command(tmp_path, "remove", name)
        assert (status, err.startswith(f"error: {problem} in {tmp_path}: "), f"{first}, {second}" in err) == (
            2,
            True,
            True,
        )
    with cache.lock(tmp_path / first):
        assert command(tmp_path, "remove", first[:-1]) == (1, "", f"{first}: another process prepares it\n")
    assert (tmp_path / first).exists()
    assert command(tmp_path, "remove", first, third)[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([second, "notes"])
