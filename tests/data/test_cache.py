"""What is in the cache: made once, whole, undamaged; and the command that shows it."""

import re
import subprocess
import sys
from functools import partial

import pytest

from nanosq.data import cache, corpus, tokenizers
from nanosq.data.sources import Document

BYTES = tokenizers.byte_level()


def given_texts_of_splits(split, *, texts):
    yield from (Document(f"{split} {each}") for each in texts)


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
    "manifest.json: it lists no files": lambda folder: (folder / "manifest.json").write_text("{}"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_found_and_made_good(tmp_path, caplog, what):
    folder = tmp_path / "made"
    cache.fill(folder, write)
    assert cache.manifest(folder)["fact"] == 1
    assert cache.damage(folder) is None
    DAMAGE[what](folder)
    cache._sha256_of.cache_clear()  # a file that is written twice in a tick of the clock looks the same
    assert re.search(what, cache.damage(folder))
    cache.fill(folder, write)
    assert re.search(rf"made is damaged \({what}.*\): preparing it again", caplog.text)
    assert cache.damage(folder) is None
    assert (folder / "a.txt").read_text() == "content"
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_what_is_whole_is_left_alone(tmp_path):
    cache.fill(tmp_path / "made", write)
    cache.fill(tmp_path / "made", lambda _: pytest.fail("called again"))


def test_what_was_begun_is_given_back_and_what_was_refused_is_not(tmp_path):
    def begin(folder, error):
        assert list(folder.iterdir()) == []
        (folder / "begun").touch()
        raise error

    def go_on(folder):
        assert (folder / "begun").exists()

    for error in (KeyboardInterrupt(), OSError(), RuntimeError()):
        with pytest.raises(type(error)):
            cache.fill(tmp_path / "made", partial(begin, error=error))
        cache.fill(tmp_path / "made", go_on)
        cache.remove(tmp_path / "made")
    with pytest.raises(ValueError, match="wrong"):
        cache.fill(tmp_path / "made", partial(begin, error=ValueError("wrong")))
    assert list(tmp_path.iterdir()) == []


def test_cache_directory_that_is_a_file(tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(ValueError, match=r"cannot write to the cache directory .*; set cache_dir=DIR"):
        cache.fill(tmp_path / "cache" / "made", write)


def command(directory, *arguments) -> tuple[int, str, str]:
    process = subprocess.run(
        [sys.executable, "-m", "nanosq.data", *arguments, "--cache-dir", str(directory)], capture_output=True, text=True
    )
    return process.returncode, process.stdout, process.stderr


def test_command(tmp_path):
    assert command(tmp_path) == (0, f"no corpus in {tmp_path}\n", "")
    for texts in (["one", "two"], ["three", "four", "five"]):
        corpus.prepare(partial(given_texts_of_splits, texts=texts), BYTES, cache_dir=tmp_path)
    (tmp_path / "notes").mkdir()  # of someone else
    first, second = sorted(path.name for path in tmp_path.glob("given_texts*"))
    by_name = {}
    (tmp_path / f".other-{'0' * 16}.unfinished").mkdir()

    status, out, _ = command(tmp_path)
    lines = out.splitlines()
    assert status == 0
    assert lines[0].split() == ["corpus", "prepared", "documents", "tokens", "vocabulary", "disk"]
    assert [line.split()[0] for line in lines[1:]] == [first, second, f"other-{'0' * 16}"]
    assert "unfinished" in lines[3]
    for line in lines[1:3]:
        documents = int(line.split()[3])
        by_name[line.split()[0]] = documents
        assert line.split()[5] == "257"
    assert sorted(by_name.values()) == [6, 9]

    assert command(tmp_path, "verify") == (0, f"{first}: whole\n{second}: whole\nother-{'0' * 16}: unfinished\n", "")
    (tmp_path / first / "train.tokens").write_bytes(b"damaged")
    status, out, _ = command(tmp_path, "verify", first)
    assert status == 1
    assert out.startswith(f"{first}: damaged: train.tokens has 7 bytes, not ")
    (tmp_path / second / "manifest.json").write_text("{}")
    assert "damaged" in command(tmp_path)[1].splitlines()[2]

    status, _, err = command(tmp_path, "remove")
    assert (status, "remove needs the names" in err) == (2, True)
    status, _, err = command(tmp_path, "remove", "notes")
    assert (status, f"no notes in {tmp_path}: it holds {first}, {second}" in err) == (2, True)
    with cache.alone(tmp_path / first):
        assert command(tmp_path, "remove", first) == (1, "", f"{first}: another process prepares it\n")
    assert (tmp_path / first).exists()
    assert command(tmp_path, "remove", first, f"other-{'0' * 16}")[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([second, "notes"])
