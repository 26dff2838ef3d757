import logging
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from nanosq.data import cache, corpus, tokenizers
from nanosq.data.sources import Document, text

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
    monkeypatch.setattr(corpus, "CHUNK", 7)
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


def failing(split, *, error: str = "ValueError", at: str = "train"):
    yield Document("x" * 3_000_000 + split)
    if split == at:
        raise {"ValueError": ValueError, "KeyboardInterrupt": KeyboardInterrupt, "OSError": OSError}[error]("oh")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
@pytest.mark.parametrize("at", ["test", "train"])
def test_an_error_leaves_nothing(tmp_path, error, at):
    with pytest.raises(error):
        corpus.prepare(partial(failing, error=error.__name__, at=at), BYTES, cache_dir=tmp_path / "some" / "cache")
    assert list((tmp_path / "some").iterdir()) == []
    (tmp_path / "there").mkdir()
    with pytest.raises(error):
        corpus.prepare(partial(failing, error=error.__name__, at=at), BYTES, cache_dir=tmp_path / "there")
    assert list((tmp_path / "there").iterdir()) == []


def test_success_leaves_one_directory(tmp_path):
    corpus.prepare(given_texts, BYTES, cache_dir=tmp_path)
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith("given_texts-")
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["corpus.json"] + [f"{split}.{kind}" for split in TEXTS for kind in ("tokens", "starts.npy", "bytes.npy")]
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


def test_damage_is_noticed(tmp_path):
    corpus.prepare(given_texts, BYTES, cache_dir=tmp_path)
    (path,) = tmp_path.glob("*/train.tokens")
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ValueError, match=r"train.tokens is damaged; delete "):
        corpus.prepare(given_texts, BYTES, cache_dir=tmp_path)


def test_cache_directory_that_is_a_file(tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(ValueError, match=r"cannot write to the cache directory .*; set cache_dir=DIR"):
        corpus.prepare(given_texts, BYTES, cache_dir=tmp_path / "cache")


SOURCE_MODULE = """
import os, time
from nanosq.data.sources import Document

def slow(split):
    with open(os.environ["CALLS"], "a") as file:
        print(split, os.getpid(), file=file)
    for i in range(10):
        yield Document(f"{split} {i} " + "x" * 2_000_000)
        time.sleep(0.02)
"""
PREPARE = """
import sys
from my_source import slow
from nanosq.data import corpus, tokenizers
prepared = corpus.prepare(slow, tokenizers.byte_level(), cache_dir=sys.argv[1])
print(len(prepared.train.tokens))
"""


def start(folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", PREPARE, str(folder / "cache")],
        env=os.environ | {"PYTHONPATH": str(folder), "CALLS": str(folder / "calls")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_processes_that_start_together_prepare_once(tmp_path):
    (tmp_path / "my_source.py").write_text(SOURCE_MODULE)
    processes = [start(tmp_path) for _ in range(3)]
    outputs = [process.communicate(timeout=60) for process in processes]
    # A line of result each; nothing on stderr, since it is no terminal.
    assert outputs == [("20000091\n", "")] * 3
    calls = (tmp_path / "calls").read_text().split()
    assert calls[::2] == ["test", "val", "train"]
    assert len(set(calls[1::2])) == 1
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_killed_process_leaves_nothing_that_is_taken_for_whole(tmp_path):
    (tmp_path / "my_source.py").write_text(SOURCE_MODULE)
    calls = tmp_path / "calls"
    process = start(tmp_path)
    deadline = time.monotonic() + 60
    while not (calls.exists() and "train" in calls.read_text()):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(list((tmp_path / "cache").iterdir())) == 2  # the lock's file and the temporary directory
    calls.unlink()
    assert start(tmp_path).communicate(timeout=60) == ("20000091\n", "")
    assert calls.read_text().split()[::2] == ["test", "val", "train"]
    (folder,) = (tmp_path / "cache").iterdir()
    assert folder.name.startswith("slow-")


class TestKey:
    """The key changes with whatever determines the corpus, and with nothing else."""

    @pytest.fixture
    def file(self, tmp_path):
        path = tmp_path / "a.txt"
        path.write_text("x<|endoftext|>y")
        return path

    @staticmethod
    def key(source, tokenizer=BYTES, version=1):
        return cache.key(source, tokenizer, version)

    def test_same_things_said_differently(self, file, monkeypatch):
        key = self.key(partial(text, train=str(file)))
        assert key == self.key(partial(partial(text, train="other"), train=str(file)))
        assert key == self.key(partial(text, train=str(file), val=None, separator="<|endoftext|>", val_fraction=0.05))
        assert key == self.key(partial(text, train=f"{file.parent}/../{file.parent.name}/a.txt"))
        assert key == self.key(partial(text, train=str(file.parent / "*.txt")))
        monkeypatch.chdir(file.parent)
        assert key == self.key(partial(text, train="a.txt"))
        (file.parent / "b.md").write_text("of no concern")
        assert key == self.key(partial(text, train="*.txt"))

    def test_arguments(self, file):
        sources = [partial(text, train=str(file), **more) for more in ({}, {"val_fraction": 0.1}, {"separator": "x"})]
        assert len({self.key(source) for source in sources}) == 3

    def test_files(self, file):
        once = file.stat()
        source = partial(text, train=str(file))
        keys = [self.key(source)]
        os.utime(file, ns=(once.st_atime_ns, once.st_mtime_ns + 1))
        keys.append(self.key(source))
        file.write_text("longer")
        os.utime(file, ns=(once.st_atime_ns, once.st_mtime_ns))
        keys.append(self.key(source))
        other = file.with_name("b.txt")
        file.rename(other)
        keys.append(self.key(partial(text, train=str(other))))
        assert len(set(keys)) == 4
        other.rename(file)
        assert self.key(source) == keys[2]

    def test_globs_lists_and_directories(self, file):
        named = {"glob": f"{file.parent}/*.txt", "list": [str(file), f"{file.parent}/*"], "directory": str(file.parent)}
        sources = [partial(text, train=train) for train in named.values()]
        before = [self.key(source) for source in sources]
        file.with_name("b.txt").write_text("more")
        assert all(self.key(source) != key for source, key in zip(sources, before, strict=True))

    def test_tokenizer_and_version(self):
        choices = [
            BYTES,
            tokenizers.byte_level(pad_to=300),
            *(tokenizers.gpt2(vocabulary=vocabulary) for vocabulary in ("full", "used", 300, 301)),
            tokenizers.gpt2(pad_to=50_304),
        ]
        assert len({self.key(given_texts, tokenizer) for tokenizer in choices}) == len(choices)
        assert self.key(given_texts, version=1) != self.key(given_texts, version=2)

    def test_function_and_code(self, tmp_path):
        def key(code: str, name: str = "source") -> str:
            (tmp_path / "its_module.py").write_text(textwrap.dedent(code))
            program = (
                "from nanosq.data import cache, tokenizers\nimport its_module\n"
                f"print(cache.key(its_module.{name}, tokenizers.byte_level(), 1))"
            )
            env = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
            return subprocess.run(
                [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True
            ).stdout

        code = "WORD = 'x'\ndef source(split): yield WORD\ndef other(split): yield WORD\n"
        assert key(code) == key(code)
        assert key(code) != key(code, "other")
        assert key(code) != key(code.replace("'x'", "'y'"))

    def test_bad_arguments(self):
        with pytest.raises(ValueError, match=r"data.source: text: missing a required argument: 'train'"):
            self.key(text)
        with pytest.raises(ValueError, match=r"data.source.train is a set; the cache needs plain values"):
            self.key(partial(text, train={"a.txt"}))
