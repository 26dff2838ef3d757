"""Corpora: what is prepared, what is loaded, and errors of sources."""

import logging
import math
import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest

from nanosq.data import corpus, tokenizers
from nanosq.data import prepare as preparation
from nanosq.data.sources import Document

TEXTS = {"train": ["one two", "three", "four \u00e9 five", "six"], "val": ["seven", "eight"], "test": ["nine"]}
BYTES = tokenizers.byte_level()


def source_of_texts(split, *, texts=None, logs=None):
    for i, text in enumerate((texts or TEXTS)[split]):
        yield Document(text) if logs is None else Document(text, logs[split][i])


def documents(split: corpus.Split, tokenizer: tokenizers.Tokenizer) -> list[str]:
    ends = split.starts
    return [tokenizer.decode(split.tokens[ends[i] + 1 : ends[i + 1]]) for i in range(len(ends) - 1)]


@pytest.mark.parametrize(
    ("tokenizer", "dtype"),
    [
        (BYTES, np.uint16),
        (tokenizers.byte_level(pad_to=65_536), np.uint16),
        (tokenizers.byte_level(pad_to=65_537), np.uint32),
        (tokenizers.gpt2(), np.uint16),
        (tokenizers.gpt2(pad_to=70_000), np.uint32),
        (tokenizers.gpt2(vocabulary="used"), np.uint16),
        (tokenizers.gpt2(vocabulary=258), np.uint16),
    ],
    ids=str,
)
def test_a_corpus_holds_the_documents_of_its_source(tmp_path, tokenizer, dtype):
    for _ in range(2):  # prepared, then read from the cache
        prepared = corpus.prepare(source_of_texts, tokenizer, cache_dir=tmp_path)
        assert prepared.tokenizer.fit_vocabulary([]) is prepared.tokenizer
        end = prepared.tokenizer.end_of_text
        for name, texts in TEXTS.items():
            split = getattr(prepared, name)
            assert split.tokens.dtype == dtype
            assert isinstance(split.tokens, np.memmap)
            assert split.starts.dtype == np.int64
            assert documents(split, prepared.tokenizer) == texts
            assert split.tokens[0] == split.tokens[-1] == end
            assert split.starts[-1] == len(split.tokens) - 1
            assert np.flatnonzero(split.tokens == end).tolist() == split.starts.tolist()
            assert split.document_bytes.tolist() == [len(text.encode()) for text in texts]
            assert split.n_bytes == sum(len(text.encode()) for text in texts)
            assert math.isnan(split.log_probability)
            ids = prepared.tokenizer.encode(texts)
            assert split.tokens.tolist() == [end] + [i for document in ids for i in [*document.tolist(), end]]


def test_the_vocabulary_is_fitted_to_train_alone(tmp_path):
    texts = {"train": [" dog dog dog cat"], "val": [" elephant"], "test": [" giraffe giraffe giraffe giraffe"]}
    source = partial(source_of_texts, texts=texts)
    used = corpus.prepare(source, tokenizers.gpt2(vocabulary="used"), cache_dir=tmp_path).tokenizer
    assert [used.decode([i]) for i in range(256, used.vocab_size)] == [" dog", " cat", "<|endoftext|>"]
    one = corpus.prepare(source, tokenizers.gpt2(vocabulary=258, pad_to=300), cache_dir=tmp_path)
    assert [one.tokenizer.decode([i]) for i in (256, 257)] == [" dog", "<|endoftext|>"]
    assert one.tokenizer.vocab_size == 300
    assert documents(one.test, one.tokenizer) == texts["test"]


def test_ids_are_remapped_across_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "CHUNK", 7)
    texts = {split: [f"{split} {word} zoo{i}" for i in range(9) for word in ("lion", "\u00e9")] for split in TEXTS}
    prepared = corpus.prepare(
        partial(source_of_texts, texts=texts), tokenizers.gpt2(vocabulary=262), cache_dir=tmp_path
    )
    for name in texts:
        split = getattr(prepared, name)
        assert documents(split, prepared.tokenizer) == texts[name]
        assert np.flatnonzero(split.tokens == prepared.tokenizer.end_of_text).tolist() == split.starts.tolist()


def test_log_probabilities_are_summed_if_all_are_known(tmp_path):
    logs = {"train": [-1.5, -2.25, -3.0, -4.0], "val": [-0.5, math.nan], "test": [-7.0]}
    for _ in range(2):
        prepared = corpus.prepare(partial(source_of_texts, logs=logs), BYTES, cache_dir=tmp_path)
        assert prepared.train.log_probability == -10.75
        assert prepared.test.log_probability == -7
        assert math.isnan(prepared.val.log_probability)


def test_splits_share_no_document(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    texts = {"train": ["a", "b", "b", "c", "d", ""], "val": ["c", "c", "d"], "test": ["d", "e"]}
    prepared = corpus.prepare(partial(source_of_texts, texts=texts), BYTES, cache_dir=tmp_path)
    assert documents(prepared.test, BYTES) == ["d", "e"]
    assert documents(prepared.val, BYTES) == ["c", "c"]
    assert documents(prepared.train, BYTES) == ["a", "b", "b"]
    assert "left 1 of 3 documents out of val: they are in test too" in caplog.text
    assert "left 2 of 5 documents out of train: they are in val or test too" in caplog.text
    assert "tokens train 7, val 5, test 5; vocabulary 257" in caplog.text
    caplog.clear()
    corpus.prepare(partial(source_of_texts, texts=texts), BYTES, cache_dir=tmp_path)
    assert caplog.text == ""


def failing(split, *, at):
    yield Document("x" * 3_000_000 + split)
    if split == at:
        raise ValueError("oh")


@pytest.mark.parametrize("at", ["test", "train"])
def test_an_error_of_the_source_leaves_nothing(tmp_path, at):
    for cache_dir, parent in ((tmp_path / "some" / "cache", tmp_path / "some"), (tmp_path / "old", tmp_path / "old")):
        parent.mkdir()
        with pytest.raises(ValueError, match="oh"):
            corpus.prepare(partial(failing, at=at), BYTES, cache_dir=cache_dir)
        assert list(parent.iterdir()) == []


def test_the_embedded_corpus_imports_neither_datasets_nor_torch(tmp_path):
    """Importing them takes seconds and 300 MB."""
    program = (
        "import sys; from functools import partial; from nanosq.data import corpus, stories, tokenizers\n"
        "source = partial(stories.stories, n_train=9, n_val=9, n_test=9)\n"
        f"corpus.prepare(source, tokenizers.gpt2(), cache_dir={str(tmp_path)!r})\n"
        "print(sorted({'datasets', 'huggingface_hub', 'pyarrow', 'pandas', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "[]\n"


def test_a_prepared_corpus_is_one_directory(tmp_path):
    corpus.prepare(source_of_texts, BYTES, cache_dir=tmp_path)
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith("source_of_texts-")
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["manifest.json", "tokenizer.json"]
        + [f"{split}.{kind}" for split in TEXTS for kind in ("tokens", "starts", "bytes")]
    )


def test_a_split_without_documents_is_an_error(tmp_path):
    for texts, message in [
        (TEXTS | {"val": []}, "source_of_texts: no document is left for val: data.source gives none"),
        (
            TEXTS | {"train": ["nine", "eight"]},
            "no document is left for train: all 2 that data.source gives are in val or test too",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            corpus.prepare(partial(source_of_texts, texts=texts), BYTES, cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_half_of_a_surrogate_pair_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="surrogate"):
        corpus.prepare(partial(source_of_texts, texts=TEXTS | {"train": ["\udfff"]}), BYTES, cache_dir=tmp_path)


@pytest.mark.parametrize("name", ["train.tokens", "val.starts", "test.bytes", "tokenizer.json"])
def test_a_damaged_corpus_is_prepared_again(tmp_path, name):
    source = partial(
        source_of_texts, texts={split: [f"{text} dog" for text in texts] for split, texts in TEXTS.items()}
    )
    tokenizer = tokenizers.gpt2(vocabulary="used")
    corpus.prepare(source, tokenizer, cache_dir=tmp_path)
    (folder,) = tmp_path.iterdir()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    data = before[name]
    (folder / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(folder / name, (0, 0))  # a file that is written twice in a tick of the clock looks the same
    prepared = corpus.prepare(source, tokenizer, cache_dir=tmp_path)
    assert documents(prepared.train, prepared.tokenizer) == [f"{text} dog" for text in TEXTS["train"]]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
