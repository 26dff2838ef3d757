"""Sources of text: formats of files, separators, splits and errors."""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from functools import partial
from itertools import chain
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanosq.data import readers, sources

STORIES = [f"Story {i} was about a fox.\n\nIt ended well." for i in range(400)]


def texts(source: Callable, split: str = "train") -> list[str]:
    return [document.text for document in source(split)]


def uncut(path: Path | str, **arguments) -> Callable:
    """Return a source whose three splits are the same file, so that nothing is cut from train."""
    return partial(sources.text, train=str(path), val=str(path), test=str(path), **arguments)


def zst(data: bytes) -> bytes:
    return pa.compress(data, codec="zstd", asbytes=True)


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [("", bytes), (".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress), (".zst", zst)],
)
@pytest.mark.parametrize("rows", [False, True])
def test_plain_text_and_json_lines_may_be_compressed(tmp_path, suffix, compress, rows):
    if rows:
        path = tmp_path / f"a.jsonl{suffix}"
        data = "\n".join(json.dumps({"n": i, "text": story}) for i, story in enumerate(STORIES)) + "\n\n"
    else:
        path = tmp_path / f"a.txt{suffix}"
        data = "\n<|endoftext|>\n".join(STORIES)
    path.write_bytes(compress(data.encode()))
    assert texts(uncut(path)) == STORIES


def test_parquet_rows_without_text_are_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hub"))
    table = pa.table({"story": [*STORIES, None, "  "], "n": list(range(402))})
    pa.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=100)
    assert texts(uncut(tmp_path / "a.parquet", column="story")) == STORIES
    assert not (tmp_path / "hub").exists()  # nothing is written to the cache of Hugging Face, which may be read-only


def test_arrow_files_are_read(tmp_path):
    """Hugging Face's datasets keeps its cache in this format."""
    table = pa.table({"text": [*STORIES, None]})
    with pa.ipc.new_stream(tmp_path / "a.arrow", table.schema) as stream:
        stream.write_table(table, max_chunksize=70)
    assert texts(uncut(tmp_path / "a.arrow")) == STORIES
    with pytest.raises(ValueError, match=r"a.arrow has no column 'story', only text; set data.source.column"):
        texts(uncut(tmp_path / "a.arrow", column="story"))


def test_documents_are_cut_at_separators_and_stripped(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf one\r\ntwo <|endoftext|><|endoftext|>\r\n three\rfour<|endoftext|> \n")
    assert texts(uncut(path)) == ["one\ntwo", "three\nfour"]


@given(
    documents=st.lists(st.text("ab\n#", max_size=30), min_size=1, max_size=20),
    chunk=st.integers(1, 20),
    begin=st.booleans(),
)
def test_a_separator_may_cross_the_end_of_a_chunk(tmp_path_factory, documents, chunk, begin):
    path = tmp_path_factory.mktemp("x") / "a.txt"
    path.write_text("<->".join(documents) + "<->tail", encoding="utf-8")
    expected = [cleaned for document in [*documents, "tail"] if (cleaned := document.strip())]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "CHUNK", chunk)
        assert list(readers.read(path, "<->", "text")) == expected


@pytest.mark.parametrize(("separator", "expected"), [("\\n", ["a", "b", "c"]), ("\n\n", ["a\nb", "c"])])
def test_a_separator_may_be_a_line_end(tmp_path, separator, expected):
    (tmp_path / "a.txt").write_text("a\nb\n\nc\n")
    assert texts(uncut(tmp_path / "a.txt", separator=separator)) == expected


def test_text_without_separators_is_cut_into_passages(tmp_path):
    speeches = [f"Citizen {i}:\nWe are accounted poor citizens, the patricians good." for i in range(4000)]
    (tmp_path / "shakespeare.txt").write_text("\n\n".join(speeches))
    source = partial(sources.text, train=str(tmp_path / "shakespeare.txt"))
    splits = {split: texts(source, split) for split in sources.SPLITS}
    assert all(splits.values())
    passages = [passage for split in splits.values() for passage in split]
    assert sorted("\n\n".join(passages).split("\n\n")) == sorted(speeches)  # cut at blank lines only
    assert max(map(len, passages)) <= readers.PASSAGE
    assert sum(len(passage) < readers.PASSAGE / 2 for passage in passages) <= 1  # the end of the file


@given(st.text("ab \n", max_size=300), st.integers(1, 50), st.integers(1, 60))
def test_passages_contain_the_whole_text(tmp_path_factory, text, passage, chunk):
    path = tmp_path_factory.mktemp("x") / "a.txt"
    path.write_text(text + "z", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "PASSAGE", passage)
        patch.setattr(readers, "CHUNK", chunk)
        passages = list(readers.read(path, "<->", "text"))
    assert "".join("".join(passages).split()) == "".join((text + "z").split())
    assert max(map(len, passages)) <= passage


def test_each_file_is_cut_whatever_the_others_hold(tmp_path):
    (tmp_path / "a.txt").write_text("word " * 1000)
    alone = texts(uncut(tmp_path / "a.txt"))
    (tmp_path / "b.txt").write_text("x<|endoftext|>y")
    (tmp_path / "c.jsonl").write_text('{"text": "z"}')
    assert max(map(len, alone)) <= readers.PASSAGE
    assert sorted(texts(uncut(f"{tmp_path}/*"))) == sorted([*alone, "x", "y", "z"])
    assert texts(partial(uncut(tmp_path / "a.txt"), val=f"{tmp_path}/b.txt")) == alone


def test_files_are_named_by_globs_and_lists(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(f"{name}1<|endoftext|>{name}2")
    source = uncut(tmp_path / "[ab].txt")
    assert sorted(texts(source)) == ["a1", "a2", "b1", "b2"]
    listed = partial(source, train=[f"{tmp_path}/c.txt", f"{tmp_path}/*.txt"])
    assert sorted(texts(listed)) == ["a1", "a2", "b1", "b2", "c1", "c2"]
    (tmp_path / "link.txt").symlink_to("a.txt")
    assert sorted(texts(uncut(tmp_path / "*.txt"))) == sorted(texts(listed))


def test_the_cut_by_hash_loses_nothing_and_does_not_depend_on_order(tmp_path):
    (tmp_path / "a.txt").write_text("<|endoftext|>".join(STORIES))
    (tmp_path / "b.txt").write_text("<|endoftext|>".join([*reversed(STORIES), *STORIES]))
    source = partial(sources.text, train=f"{tmp_path}/a.txt", val_fraction=0.1, test_fraction=0.2)
    splits = {split: texts(source, split) for split in sources.SPLITS}
    assert sorted(chain.from_iterable(splits.values())) == sorted(STORIES)
    assert 20 < len(splits["val"]) < 65
    assert 50 < len(splits["test"]) < 115
    other = partial(source, train=f"{tmp_path}/b.txt")
    for split, documents in splits.items():
        assert set(texts(other, split)) == set(documents)


def test_with_a_test_file_only_val_is_cut(tmp_path):
    (tmp_path / "a.txt").write_text("<|endoftext|>".join(STORIES))
    (tmp_path / "b.txt").write_text("other<|endoftext|>")
    source = partial(sources.text, train=f"{tmp_path}/a.txt", test=f"{tmp_path}/b.txt")
    assert texts(source, "test") == ["other"]
    assert sorted(texts(source, "train") + texts(source, "val")) == sorted(STORIES)


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


LONG = "".join(chr(97 + i * i % 23) for i in range(100_000)).encode()
BAD = {
    "empty.txt": (b"", "empty.txt is empty"),
    "blank.txt": (b" \n<|endoftext|>\n", "holds no document"),
    "blank.txt.gz": (gzip.compress(b""), "holds no document"),
    "latin.txt": ("caf\u00e9<|endoftext|>".encode("latin1"), r"latin.txt is not UTF-8 text \(byte 0xe9\)"),
    "bad.txt.gz": (b"no gzip", "cannot read .*bad.txt.gz"),
    "bad.txt.bz2": (b"no bzip2", "cannot read .*bad.txt.bz2"),
    "bad.txt.xz": (b"no xz", "cannot read .*bad.txt.xz"),
    "bad.txt.zst": (b"no zstandard", "cannot read .*bad.txt.zst"),
    "cut.txt.gz": (truncated(gzip.compress(LONG)), "cannot read .*cut.txt.gz"),
    "cut.txt.xz": (truncated(lzma.compress(LONG)), "cannot read .*cut.txt.xz"),
    "cut.txt.zst": (truncated(zst(LONG)), "cannot read .*cut.txt.zst"),
    "broken.txt.gz": (gzip.compress(LONG)[:50] + b"x" * 50 + gzip.compress(LONG)[100:], "cannot read .*broken.txt.gz"),
    "a.jsonl": (b'{"text": "x"}\n\n{oops}\n', r"a.jsonl, line 3: not JSON"),
    "b.jsonl": (
        b'{"text": "x"}\n{"story": "y", "n": 1}\n',
        "b.jsonl, line 2: no 'text' in story, n; set data.source.column",
    ),
    "c.jsonl": (b'["text"]\n', "c.jsonl, line 1: not an object"),
    "d.jsonl": (b'{"text": 3}\n', "d.jsonl, line 1: 'text' is not text"),
    "e.jsonl": (b'{"text": "\\ud800"}\n', "e.jsonl, line 1: .*surrogate"),
    "a.parquet": (b"PAR1 but no parquet", "cannot read .*a.parquet"),
    "a.json": (b"[]", "cannot read .json files"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named_in_one_line(tmp_path, name):
    data, message = BAD[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=message) as caught:
        texts(uncut(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_a_parquet_file_without_the_text_column_is_an_error(tmp_path):
    pa.parquet.write_table(pa.table({"story": ["x"], "n": [1]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a.parquet has no column 'text', only story, n; set data.source.column"):
        texts(uncut(tmp_path / "a.parquet"))
    with pytest.raises(ValueError, match="column 'n' is not text but int64"):
        texts(uncut(tmp_path / "a.parquet", column="n"))


def test_bad_arguments_are_errors(tmp_path):
    (tmp_path / "a.txt").write_text("<|endoftext|>".join(STORIES))
    source = partial(sources.text, train=f"{tmp_path}/a.txt")
    with pytest.raises(ValueError, match=r"data.source.train: there is no file .*b.txt"):
        texts(partial(source, train=f"{tmp_path}/b.txt"))
    with pytest.raises(ValueError, match=r"data.source.val: there is no file .*/\*.md"):
        texts(partial(source, val=f"{tmp_path}/*.md"))
    with pytest.raises(ValueError, match=r"data.source.train: .* is a directory; name files in it, e.g. .*/\*.txt"):
        texts(partial(source, train=str(tmp_path)))
    with pytest.raises(ValueError, match=r"data.source.train is an empty list"):
        texts(partial(source, train=[]))
    with pytest.raises(ValueError, match=r"data.source.separator is empty"):
        texts(partial(source, separator=""))
    with pytest.raises(ValueError, match=r"data.source.val_fraction=.*together below 1"):
        texts(partial(source, val_fraction=0.5, test_fraction=0.5))
    (tmp_path / "one.txt").write_text("one document<|endoftext|>")
    with pytest.raises(ValueError, match=r"none of the 1 documents falls to the (val|test) split.*val_fraction=0.05"):
        [texts(partial(source, train=f"{tmp_path}/one.txt"), split) for split in ("val", "test")]
