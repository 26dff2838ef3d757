"""The key of a corpus changes with everything that determines the corpus, and with nothing else."""

import importlib
import os
import subprocess
import sys
import textwrap
from functools import partial
from typing import Literal

import pytest

from nanosq.data import corpus_key, tokenizers
from nanosq.data.sources import Document, text

BYTES = tokenizers.byte_level()


def source_of_texts(split, *, texts=("a",), kind: Literal["long", "short"] = "long"):
    yield from map(Document, texts)


def positional(word, split):
    yield Document(word)


def key(source, tokenizer=BYTES, version=1):
    return corpus_key.key(corpus_key.facts(source, tokenizer, version))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("x<|endoftext|>y")
    return path


def test_equal_sources_have_one_key(file, monkeypatch):
    same = key(partial(text, train=str(file)))
    assert same == key(partial(partial(text, train="other"), train=str(file)))
    assert same == key(partial(text, train=str(file), val=None, separator="<|endoftext|>", val_fraction=0.05))
    assert same == key(partial(text, train=f"{file.parent}/../{file.parent.name}/a.txt"))
    assert same == key(partial(text, train=str(file.parent / "*.txt")))
    monkeypatch.chdir(file.parent)
    assert same == key(partial(text, train="a.txt"))
    (file.parent / "b.md").write_text("not part of the corpus")
    assert same == key(partial(text, train="*.txt"))


def test_the_key_changes_with_the_arguments(file):
    by_position = [partial(positional, word) for word in ("a", "b")]
    assert len({key(source) for source in by_position}) == 2
    sources = [partial(text, train=str(file), **more) for more in ({}, {"val_fraction": 0.1}, {"separator": "x"})]
    assert len({key(source) for source in sources}) == 3


def test_the_key_changes_with_the_files(file):
    once = file.stat()
    source = partial(text, train=str(file))
    keys = [key(source)]
    os.utime(file, ns=(once.st_atime_ns, once.st_mtime_ns + 1))
    keys.append(key(source))
    file.write_text("longer")
    os.utime(file, ns=(once.st_atime_ns, once.st_mtime_ns))
    keys.append(key(source))
    other = file.with_name("b.txt")
    file.rename(other)
    keys.append(key(partial(text, train=str(other))))
    other.rename(file)
    status = file.stat()
    file.write_text("edited")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    keys.append(key(source))
    assert len(set(keys)) == 5


def test_the_key_changes_with_the_files_of_a_glob(file):
    named = {"glob": f"{file.parent}/*.txt", "list": [str(file), f"{file.parent}/*"], "directory": str(file.parent)}
    sources = [partial(text, train=train) for train in named.values()]
    before = [key(source) for source in sources]
    file.with_name("b.txt").write_text("more")
    assert all(key(source) != old for source, old in zip(sources, before, strict=True))


def test_the_key_changes_with_tokenizer_and_version():
    choices = [
        BYTES,
        tokenizers.byte_level(pad_to=300),
        *(tokenizers.gpt2(vocabulary=vocabulary) for vocabulary in ("full", "used", 300, 301)),
        tokenizers.gpt2(pad_to=50_304),
    ]
    assert len({key(source_of_texts, tokenizer) for tokenizer in choices}) == len(choices)
    assert key(source_of_texts, version=1) != key(source_of_texts, version=2)


def test_the_key_changes_with_the_code(tmp_path):
    def key_of(code: str, name: str = "source") -> str:
        (tmp_path / "user_module.py").write_text(textwrap.dedent(code))
        program = (
            "from nanosq.data import corpus_key, tokenizers\nimport user_module\n"
            f"print(corpus_key.key(corpus_key.facts(user_module.{name}, tokenizers.byte_level(), 1)))"
        )
        env = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(
            [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True
        ).stdout

    code = "WORD = 'x'\ndef source(split): yield WORD\ndef other(split): yield WORD\n"
    assert len({key_of(code), key_of(code, "other"), key_of(code.replace("'x'", "'y'"))}) == 3


def test_the_key_changes_with_what_the_code_imports(tmp_path, monkeypatch):
    (tmp_path / "user_source.py").write_text("import user_words\ndef source(split): yield user_words.WORD\n")
    (tmp_path / "user_words.py").write_text("WORD = 'x'\n")
    monkeypatch.syspath_prepend(tmp_path)
    source = importlib.import_module("user_source").source
    before = key(source)
    assert key(source) == before
    (tmp_path / "user_words.py").write_text("WORD = 'y'\n")
    assert key(source) != before


def test_bad_arguments_are_errors():
    with pytest.raises(ValueError, match=r"data.source: text: missing a required (keyword-only )?argument: 'train'"):
        key(text)
    with pytest.raises(ValueError, match=r"data.source.train is a set; give a text, a number"):
        key(partial(text, train={"a.txt"}))


def test_an_argument_of_type_literal_names_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keys = {kind: key(partial(source_of_texts, kind=kind)) for kind in ("long", "short")}
    assert len(set(keys.values())) == 2
    (tmp_path / "short").mkdir()
    (tmp_path / "short" / "file").write_text("not part of the corpus")
    assert key(partial(source_of_texts, kind="short")) == keys["short"]
