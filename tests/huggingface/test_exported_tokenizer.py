"""Exported tokenizers give the same ids as ours, decode them back, and become ours again."""

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from nanosq.data import stories
from nanosq.huggingface import tokenizer as huggingface
from tests.huggingface.tokenizers import OURS, STORIES, THEIRS

ALPHABETS = (
    " \n\t\r\u00a0\u3000\u0085\u180e\x1c",
    "'sdmtlvre ",
    "0123 ٣²½",
    "ab",
    "-=",
    "a ",
    "😀👍🏽\u200d é",
    "\u0301e ",
)
PARTS = ["Once", " upon", "a" * 9, " " * 7, "'ll", "\n\n", "ab" * 6, "-" * 11, "<|endoftext|>"]
TEXTS = st.one_of(
    st.text(),
    st.sampled_from(ALPHABETS).flatmap(lambda alphabet: st.text(alphabet, max_size=60)),
    st.lists(st.sampled_from(PARTS), max_size=8).map("".join),
)


def check(name: str, texts: list[str]) -> None:
    for text, ids in zip(texts, OURS[name].encode(texts), strict=True):
        theirs = THEIRS[name].encode(text, add_special_tokens=False).ids
        assert theirs == ids.tolist()
        assert THEIRS[name].decode(theirs, skip_special_tokens=False) == text


@pytest.mark.parametrize("name", OURS)
def test_stories_have_the_same_ids(name: str) -> None:
    check(name, STORIES)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "used", "400 tokens"])
def test_many_stories_have_the_same_ids(name: str) -> None:
    check(name, [document.text for document in stories.stories("train", n_train=10_000)])


@settings(max_examples=max(300, settings().max_examples), deadline=None)  # more in the profile "long"
@given(TEXTS)
def test_any_text_has_the_same_ids(text: str) -> None:
    for name in OURS:
        check(name, [text])


@pytest.mark.parametrize("name", ["gpt2", "random tokens"])
def test_every_character_has_the_same_ids(name: str) -> None:
    """The two libraries split by regular expressions of their own, with classes of characters of their own."""
    characters = [chr(i) for i in range(0x3400) if not 0xD800 <= i < 0xE000]  # beyond are Chinese and rare characters
    check(name, [f"a{c}b {c}{c} 1{c}'s\n{c}" for c in characters])


@pytest.mark.parametrize("name", OURS)
def test_a_token_alone_and_twice(name: str) -> None:
    spellings = random.Random(0).sample(OURS[name].spellings, min(1000, OURS[name].end_of_text))
    texts = [text for spelling in spellings if (text := spelling.decode(errors="ignore"))]
    check(name, [*texts, *(2 * text for text in texts), *(5 * text for text in texts)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    def write(name: str) -> Path:
        path = tmp_path_factory.mktemp("tokenizer")
        (path / "config.json").write_text('{"model_type": "gpt2"}')
        huggingface.write(path, OURS[name], block_size=64)
        return path

    return write


@pytest.mark.parametrize("name", ["used", "random tokens", "bytes"])
def test_transformers_loads_it_as_it_is(name: str, folder: Callable[[str], Path], recwarn, caplog) -> None:
    theirs = AutoTokenizer.from_pretrained(folder(name))
    end = OURS[name].end_of_text
    assert not recwarn.list
    assert not caplog.records
    assert theirs.bos_token_id == theirs.eos_token_id == theirs.unk_token_id == end
    assert theirs.model_max_length == 64
    for text in ("A dog , it 's !  \n\n  don't  ", "aaaaaaa-------"):
        ids = OURS[name].encode([text])[0].tolist()
        assert theirs(text)["input_ids"] == ids
        assert theirs.decode(ids) == text
    text = "one<|endoftext|>two"
    assert theirs(text, split_special_tokens=True)["input_ids"] == OURS[name].encode([text])[0].tolist()
    assert theirs(text)["input_ids"].count(end) == 1  # unlike ours
    assert theirs.decode([end], skip_special_tokens=True) == ""


@pytest.mark.parametrize("name", OURS)
def test_an_exported_tokenizer_is_ours_again(name: str, folder: Callable[[str], Path]) -> None:
    ours = OURS[name]
    path = folder(name)
    assert huggingface.read(path, ours.vocab_size) == ours
    if name != "gpt2":  # the slowest one; below
        assert huggingface.read(path, ours.vocab_size + 7) == dataclasses.replace(ours, pad_to=ours.vocab_size + 7)
