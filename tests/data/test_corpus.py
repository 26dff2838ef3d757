import logging
import math
from functools import partial

import numpy as np
import pytest

from nanosq.data import cache, corpus, tokenizers
from nanosq.data import prepare as preparation
from nanosq.data.sources import Document

TEXTS = {"train": ["one two", "three", "four \u00e9 five", "six"], "val": ["seven", "eight"], "test": ["nine"]}
BYTES = tokenizers.byte_level()


def given_texts(split, *, texts=None, logs=None):
    for i, each in enumerate((texts or TEXTS)[split]):
        yield Document(each) if logs is None else Document(each, logs[split][i])


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
def test_what_is_prepared_is_what_was_given(tmp_path, tokenizer, dtype):
    for _ in range(2):  # made, then read from the cache
        prepared = corpus.prepare(given_texts, tokenizer, cache_dir=tmp_path)
        assert prepared.tokenizer.narrow(np.zeros(1)) is prepared.tokenizer
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
            assert split.document_bytes.tolist() == [len(each.encode()) for each in texts]
            assert split.n_bytes == sum(len(each.encode()) for each in texts)
            assert math.isnan(split.log_probability)
            ids = prepared.tokenizer.encode(texts)
            assert split.tokens.tolist() == [end] + [i for each in ids for i in [*each.tolist(), end]]


def test_vocabulary_is_decided_by_train_alone(tmp_path):
    texts = {"train": [" dog dog dog cat"], "val": [" elephant"], "test": [" giraffe giraffe giraffe giraffe"]}
    source = partial(given_texts, texts=texts)
    used = corpus.prepare(source, tokenizers.gpt2(vocabulary="used"), cache_dir=tmp_path).tokenizer
    assert [used.decode([i]) for i in range(256, used.vocab_size)] == [" dog", " cat", "<|endoftext|>"]
    one = corpus.prepare(source, tokenizers.gpt2(vocabulary=258, pad_to=300), cache_dir=tmp_path)
    assert [one.tokenizer.decode([i]) for i in (256, 257)] == [" dog", "<|endoftext|>"]
    assert one.tokenizer.vocab_size == 300
    assert documents(one.test, one.tokenizer) == texts["test"]


def test_ids_are_rewritten_across_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "CHUNK", 7)
    texts = {split: [f"{split} {word} zoo{i}" for i in range(9) for word in ("lion", "\u00e9")] for split in TEXTS}
    prepared = corpus.prepare(partial(given_texts, texts=texts), tokenizers.gpt2(vocabulary=262), cache_dir=tmp_path)
    for name in texts:
        split = getattr(prepared, name)
        assert documents(split, prepared.tokenizer) == texts[name]
        assert np.flatnonzero(split.tokens == prepared.tokenizer.end_of_text).tolist() == split.starts.tolist()


def test_log_probability_is_summed_where_it_is_known(tmp_path):
    logs = {"train": [-1.5, -2.25, -3.0, -4.0], "val": [-0.5, math.nan], "test": [-7.0]}
    for _ in range(2):
        prepared = corpus.prepare(partial(given_texts, logs=logs), BYTES, cache_dir=tmp_path)
        assert prepared.train.log_probability == -10.75
        assert prepared.test.log_probability == -7
        assert math.isnan(prepared.val.log_probability)


def test_splits_share_no_document(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    texts = {"train": ["a", "b", "b", "c", "d", ""], "val": ["c", "c", "d"], "test": ["d", "e"]}
    prepared = corpus.prepare(partial(given_texts, texts=texts), BYTES, cache_dir=tmp_path)
    assert documents(prepared.test, BYTES) == ["d", "e"]
    assert documents(prepared.val, BYTES) == ["c", "c"]
    assert documents(prepared.train, BYTES) == ["a", "b", "b"]
    assert "1 of 3 documents left out of val: also in test" in caplog.text
    assert "2 of 5 documents left out of train: also in val or test" in caplog.text
    assert "tokens train 7, val 5, test 5; vocabulary 257" in caplog.text
    caplog.clear()
    corpus.prepare(partial(given_texts, texts=texts), BYTES, cache_dir=tmp_path)
    assert caplog.text == ""


def failing(split, *, at):
    yield Document("x" * 3_000_000 + split)
    if split == at:
        raise ValueError("oh")


@pytest.mark.parametrize("at", ["test", "train"])
def test_an_error_leaves_nothing(tmp_path, at):
    for cache_dir, left in ((tmp_path / "some" / "cache", tmp_path / "some"), (tmp_path / "there", tmp_path / "there")):
        left.mkdir()
        with pytest.raises(ValueError, match="oh"):
            corpus.prepare(partial(failing, at=at), BYTES, cache_dir=cache_dir)
        assert list(left.iterdir()) == []


def test_success_leaves_one_directory(tmp_path):
    corpus.prepare(given_texts, BYTES, cache_dir=tmp_path)
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith("given_texts-")
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["manifest.json", "tokenizer.json"]
        + [f"{split}.{kind}" for split in TEXTS for kind in ("tokens", "starts", "bytes")]
    )


def test_no_document_for_a_split(tmp_path):
    for texts, message in [
        (TEXTS | {"val": []}, "given_texts: no document for the val split; the source yields none"),
        (
            TEXTS | {"train": ["nine", "eight"]},
            "no document for the train split; all 2 of its documents occur in val or test",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            corpus.prepare(partial(given_texts, texts=texts), BYTES, cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_text_that_is_no_unicode(tmp_path):
    with pytest.raises(ValueError, match="surrogate"):
        corpus.prepare(partial(given_texts, texts=TEXTS | {"train": ["\udfff"]}), BYTES, cache_dir=tmp_path)


@pytest.mark.parametrize("name", ["train.tokens", "val.starts", "test.bytes", "tokenizer.json"])
def test_damage_is_never_trained_on(tmp_path, name):
    source = partial(given_texts, texts={split: [f"{each} dog" for each in texts] for split, texts in TEXTS.items()})
    tokenizer = tokenizers.gpt2(vocabulary="used")
    corpus.prepare(source, tokenizer, cache_dir=tmp_path)
    (folder,) = tmp_path.iterdir()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    data = before[name]
    (folder / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    cache._sha256_of.cache_clear()  # a file that is written twice in a tick of the clock looks the same
    prepared = corpus.prepare(source, tokenizer, cache_dir=tmp_path)
    assert documents(prepared.train, prepared.tokenizer) == [f"{each} dog" for each in TEXTS["train"]]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
