"""`python -m nanosq.data write`: files that are read back as the documents of the split."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanosq.data import prepare, readers, tokenizers
from nanosq.data.__main__ import main
from nanosq.data.sources import SEPARATOR, Document
from nanosq.data.sources import text as text_source
from nanosq.data.tokenizers import Tokenizer
from nanosq.data.write import write_split

OTHERS = {"train": "the text of train", "val": "the text of val"}
TOKENIZERS = [tokenizers.byte_level(), tokenizers.gpt2()]
PIECES = ["a", "story ", "\n", "\r", " ", "\ufeff", "\u2028", "é", "🙂", SEPARATOR, SEPARATOR[:-1], '"', "\x00"]
TEXTS = st.lists(st.one_of(st.text(), st.lists(st.sampled_from(PIECES)).map("".join)), min_size=1, max_size=4)


def prepared(folder: Path, texts: list[str], tokenizer: Tokenizer) -> Path:
    """Return the folder of a corpus whose test split has these texts."""

    def source(split: str) -> list[Document]:
        return [Document(text) for text in (texts if split == "test" else [OTHERS[split]])]

    path = folder / f"source-{'0' * 16}"
    path.mkdir(parents=True)
    prepare.write_corpus(path, source, tokenizer, {"source": "a function of this file"})
    return path


def read_back(path: Path) -> list[str]:
    return [document.text for document in text_source("test", train=str(path), test=str(path))]


def written(texts: list[str]) -> list[str]:
    """Return the texts that a corpus keeps."""
    return [text for text in texts if text and text not in OTHERS.values()]


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=["bytes", "gpt2"])
@settings(max_examples=100)
@given(texts=TEXTS.filter(written))
def test_every_file_is_read_back_or_refused(tokenizer: Tokenizer, texts: list[str]) -> None:
    with TemporaryDirectory() as directory:
        folder = Path(directory)
        corpus = prepared(folder / "cache", [text for text in texts if text not in OTHERS.values()], tokenizer)
        expected = written(texts)
        n, n_changed = write_split(corpus, "test", folder / "a.jsonl")
        assert n == len(expected)
        assert n_changed == sum(readers.clean(text) != text for text in expected)
        assert [json.loads(line)["text"] for line in (folder / "a.jsonl").open(newline="\n")] == expected
        if any(map(readers.clean, expected)):
            assert read_back(folder / "a.jsonl") == [clean for text in expected if (clean := readers.clean(text))]
        is_plain = not n_changed and not any(SEPARATOR in text or text[0] == "\ufeff" for text in expected)
        if is_plain:
            assert write_split(corpus, "test", folder / "a.txt") == (n, 0)
            assert read_back(folder / "a.txt") == expected
        else:
            with pytest.raises(ValueError, match=r"choose a name that ends in \.jsonl"):
                write_split(corpus, "test", folder / "a.txt")
            assert not list(folder.glob("a.txt*"))


def test_a_long_document_stays_whole(tmp_path: Path) -> None:
    """A file without a separator would be cut into passages."""
    texts = ["word " * 1000 + "end"]
    write_split(prepared(tmp_path, texts, TOKENIZERS[0]), "test", tmp_path / "a.txt")
    assert read_back(tmp_path / "a.txt") == texts


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    name = prepared(tmp_path / "cache", ["one", " two"], TOKENIZERS[0]).name
    (tmp_path / "folder.txt").mkdir()

    def run(*arguments: str) -> tuple[int, str, str]:
        return main(["write", *arguments, "--cache-dir", "cache"]), *capsys.readouterr()

    assert run(name, "train", "a.txt") == (0, "a.txt: 1 documents\n", "")
    assert Path("a.txt").read_text() == f"the text of train\n{SEPARATOR}\n"
    note = "nanosq will read 1 of them without the white space at their ends\n"
    assert run(name, "test", "a.jsonl") == (0, "a.jsonl: 2 documents\n", note)
    bad = {
        (name, "test", "a.txt"): "document 2 would not be read back from plain text as it is",
        (name, "all", "b.txt"): "there is no split all: choose train, val, test",
        (name, "test", "b.parquet"): "b.parquet: choose a name that ends in .txt",
        (name, "test", "nowhere/b.txt"): "there is no folder nowhere",
        (name, "test", "folder.txt"): "folder.txt is a folder",
        (name, "test"): "write needs the name of a corpus, a split and a file",
        ("other", "test", "b.txt"): f"no 'other' in cache: it holds {name}",
    }
    for arguments, message in bad.items():
        status, out, err = run(*arguments)
        assert (status, out) == (2, "")
        assert message in err.splitlines()[-1]
    Path("cache", name, "test.tokens").write_bytes(b"damaged")
    assert run(name, "test", "b.txt")[::2] == (2, f"error: {name} is damaged: test.tokens has 7 bytes, not 20\n")
    assert Path("a.txt").read_text() == f"the text of train\n{SEPARATOR}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "a.txt", "cache", "folder.txt"]
