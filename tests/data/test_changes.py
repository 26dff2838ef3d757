"""A text that changes under the same name: its documents stay in their splits, and the program says that it changed."""

import logging
import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from nanosq import identity
from nanosq.data import corpus, tokenizers
from nanosq.data.sources import SPLITS, text
from nanosq.data.stories import stories
from tests.commandline import command, runs

STORIES = [document.text for document in stories("train", n_train=120)]
FRACTIONS = {"val_fraction": 0.3, "test_fraction": 0.3}
TEXT = [
    *["data=text", "data.source.train=s/*.txt", *(f"data.source.{name}={value}" for name, value in FRACTIONS.items())],
    *["model.n_layer=1", "model.n_embd=16", "model.n_head=1", "model.block_size=64", "device=cpu"],
    *["train.max_steps=1", "train.batch_size=2", "train.eval_every=9", "samples.count=0"],
]
CHANGED = "has changed since it was prepared on 20"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with plain text without separators, and one file with them."""
    path = tmp_path / "s"
    path.mkdir()
    for i in range(3):
        (path / f"{i}.txt").write_text("\n\n".join(STORIES[i * 30 : i * 30 + 30]))
    (path / "3.txt").write_text("<|endoftext|>".join(STORIES[90:100]))
    return path


def prepared(folder: Path, *, train: str | list[str] | None = None, cache: str = "cache", **more) -> corpus.Corpus:
    """Return the corpus of the files of a folder, prepared into a cache beside the folder."""
    source = partial(text, train=train or f"{folder}/*.txt", **(FRACTIONS | more))
    return corpus.prepare(source, tokenizers.byte_level(), cache_dir=folder.parent / cache)


def documents(found: corpus.Corpus) -> Iterator[tuple[str, str]]:
    """Yield each document with its split."""
    for name in SPLITS:
        split = getattr(found, name)
        for begin, end in zip(split.starts[:-1], split.starts[1:], strict=True):
            yield found.tokenizer.decode(split.tokens[begin + 1 : end]), name


@pytest.mark.slow
def test_a_new_file_moves_no_document_and_an_edit_is_noticed(folder, tmp_path):
    """The new file has separators, unlike the others. The edit keeps the size and the time of the file."""

    def messages() -> list[str]:
        return [line for line in command(*TEXT, cwd=tmp_path, check=True).stderr.splitlines() if CHANGED in line]

    (folder / "3.txt").unlink()
    assert messages() == []
    old = dict(documents(prepared(folder)))
    (folder / "0_new.txt").write_text("<|endoftext|>".join(STORIES[90:]))
    said = messages()
    new = dict(documents(prepared(folder)))
    assert {document: new.get(document) for document in old} == old
    assert new.keys() - old.keys() == set(STORIES[90:])
    (added,) = said
    assert added.startswith("data.source.train=s/*.txt")
    assert added.endswith(": scores before and after cannot be compared")
    status = (folder / "1.txt").stat()
    (folder / "1.txt").write_text((folder / "1.txt").read_text()[::-1])
    os.utime(folder / "1.txt", ns=(status.st_atime_ns, status.st_mtime_ns))
    (edited,) = messages()
    assert "has changed since it was prepared" in edited
    assert len({run.data.tags["text"] for run in runs(tmp_path)}) == 3


def test_an_edit_that_keeps_the_size_of_each_split_is_another_text(folder):
    """Neither found again as a finished trial, nor resumed from a checkpoint."""
    (folder / "val.md").write_text("One story.")
    before = prepared(folder, val=f"{folder}/val.md")
    (folder / "val.md").write_text("Two, story")
    after = prepared(folder, val=f"{folder}/val.md")
    assert before.val.document_bytes.tolist() == after.val.document_bytes.tolist()
    assert identity.text_hash(before) != identity.text_hash(after)
    assert identity.text_identity(before)["splits"] != identity.text_identity(after)["splits"]


def rename(folder: Path) -> Path:
    (folder / "0.txt").rename(folder / "9.txt")
    return folder


def swap(folder: Path) -> Path:
    (folder / "0.txt").rename(folder / "x")
    (folder / "1.txt").rename(folder / "0.txt")
    (folder / "x").rename(folder / "1.txt")
    return folder


def touch(folder: Path) -> Path:
    os.utime(folder / "2.txt", (0, 0))
    return folder


def link(folder: Path) -> Path:
    (folder / "also_0.txt").symlink_to("0.txt")
    return folder


def copy(folder: Path) -> Path:
    return Path(shutil.copytree(folder, folder.parent / "elsewhere" / "s"))


@pytest.mark.parametrize("change", [rename, swap, touch, link, copy])
def test_the_same_text_by_other_names(folder, caplog, change):
    before = prepared(folder)
    after = prepared(change(folder))
    assert list(documents(after)) == list(documents(before))
    assert identity.text_hash(after) == identity.text_hash(before)
    assert CHANGED not in caplog.text


def test_the_order_of_the_files_has_no_effect(folder):
    names = [f"{folder}/{i}.txt" for i in range(4)]
    hashes = {identity.text_hash(prepared(folder, train=train)) for train in (names, names[::-1], f"{folder}/[3210].*")}
    assert len(hashes) == 1
    assert hashes == {identity.text_hash(prepared(folder, cache="other"))}


def test_train_and_val_exchanged_are_another_text(folder):
    for name in "abc":
        (folder / f"{name}.txt").write_text(f"A story of {name}.")
    a, b, c = (f"{folder}/{name}.txt" for name in "abc")
    orders = [(a, b, c), (b, a, c), (a, c, b)]
    hashes = {identity.text_hash(prepared(folder, train=train, val=val, test=test)) for train, val, test in orders}
    assert len(hashes) == 3


def test_the_message_names_the_last_preparation_only(folder, caplog):
    def message(**more) -> str:
        caplog.clear()
        prepared(folder, **more)
        return " ".join(record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)

    assert message() == ""
    (folder / "0.txt").unlink()
    (folder / "1.txt").write_text("Another story.")
    for name in "ab":
        (folder / f"{name}.txt").write_text(f"A story of {name}.")
    assert "has changed since it was prepared" in message()
    assert message(val_fraction=0.2) == ""  # of the same files
    (folder / "val.md").write_text("One story.")
    given = {"val": [f"{folder}/val.md"]}
    assert message(**given) == ""  # the first with this name
    (folder / "val.md").write_text("Two stories.")
    assert message(**given).startswith(f"data.source.val={folder}/val.md {CHANGED}")
    assert message(train=f"{folder}/b.txt", val=f"{folder}/2.txt", test=f"{folder}/3.txt") == ""
