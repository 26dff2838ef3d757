"""Tokenizers of others become ours or are read as they are; those that cannot be read are one line."""

import dataclasses
import json
from pathlib import Path

import pytest
import tokenizers as library
from tokenizers import decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, GPT2Tokenizer, PreTrainedTokenizerBase

from nanosq.data import bpe, tokenizers
from nanosq.data.tokenizers import GPT2
from nanosq.huggingface import tokenizer as huggingface
from nanosq.huggingface.other_tokenizer import HuggingFaceTokenizer
from tests.huggingface.tokenizers import OURS, THEIRS


def as_saved(tokenizer: PreTrainedTokenizerBase, path: Path) -> Path:
    tokenizer.save_pretrained(path)
    return path


def openai_files(path: Path) -> Path:
    vocab = huggingface.to_huggingface(GPT2()).get_vocab()
    path.mkdir()
    (path / "vocab.json").write_text(json.dumps(vocab))
    characters = {byte[0]: character for character, byte in bpe.byte_characters().items()}
    lines = [" ".join("".join(characters[b] for b in part) for part in merge) for merge in bpe.merges()]
    (path / "merges.txt").write_text("\n".join(["#version: 0.2", *lines, ""]))
    return path


def test_gpt2_in_other_files_is_gpt2(tmp_path: Path) -> None:
    path = openai_files(tmp_path / "openai")
    assert huggingface.read(path, 50_304) == GPT2(pad_to=50_304)
    theirs = GPT2Tokenizer.from_pretrained(path)
    assert huggingface.read(as_saved(theirs, tmp_path / "saved"), 50_257) == GPT2()


PAD = ["[PAD]", "<|user|>"]


@pytest.mark.parametrize("name", ["used", "bytes"])
def test_special_tokens_behind_the_end_of_text_are_padding(name: str, tmp_path: Path) -> None:
    ours, theirs = OURS[name], library.Tokenizer.from_str(THEIRS[name].to_str())
    theirs.add_special_tokens(PAD)
    theirs.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": ours.end_of_text}))
    for n_rows in (ours.n_ids + 2, ours.n_ids + 9):
        assert huggingface.read(tmp_path, n_rows) == dataclasses.replace(ours, pad_to=n_rows)
    with pytest.raises(ValueError, match=f"has {ours.n_ids + 2} ids, more than the {ours.n_ids + 1} rows"):
        huggingface.read(tmp_path, ours.n_ids + 1)
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": ours.end_of_text + 1}))  # another end of text
    assert isinstance(huggingface.read(tmp_path, ours.n_ids + 2), HuggingFaceTokenizer)


@pytest.mark.parametrize("named", ["<|endoftext|>", {"content": "<|endoftext|>", "lstrip": False}])
def test_an_export_keeps_the_special_tokens(named: str | dict, tmp_path: Path) -> None:
    """They have rows of the embedding, which others may have trained."""
    theirs = library.Tokenizer.from_str(THEIRS["used"].to_str())
    theirs.add_special_tokens(PAD)
    before, after = tmp_path / "before", tmp_path / "after"
    for folder in (before, after):
        folder.mkdir()
        (folder / "config.json").write_text('{"model_type": "gpt2"}')
    theirs.save(str(before / "tokenizer.json"))
    (before / "special_tokens_map.json").write_text(json.dumps({"eos_token": named, "additional_special_tokens": PAD}))
    settings = {"pad_token": PAD[0], "auto_map": {"AutoTokenizer": ["its.Tokenizer", None]}, "model_max_length": 9**99}
    settings |= {"eos_token": None, "tokenizer_class": "GPT2Tokenizer", "name_or_path": "/home/me/model"}
    (before / "tokenizer_config.json").write_text(json.dumps(settings))
    ours = huggingface.read(before, theirs.get_vocab_size())
    huggingface.write(after, ours, block_size=64, origin=before)
    loaded = AutoTokenizer.from_pretrained(after)
    assert "/home/me" not in (after / "tokenizer_config.json").read_text()
    text = "A dog <|user|> dog<|endoftext|>[PAD]"
    assert loaded(text)["input_ids"] == theirs.encode(text).ids
    assert loaded(text)["input_ids"][-2:] == [ours.end_of_text, ours.end_of_text + 1]
    assert (loaded.eos_token, loaded.pad_token, loaded.model_max_length) == ("<|endoftext|>", "[PAD]", 64)
    assert huggingface.read(after, ours.vocab_size) == ours


@pytest.mark.parametrize("added", [["dog"], [library.AddedToken("[PAD]", special=False)]])
def test_other_added_tokens_are_text(added: list, tmp_path: Path) -> None:
    theirs = library.Tokenizer.from_str(THEIRS["used"].to_str())
    theirs.add_tokens(added)
    theirs.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": OURS["used"].end_of_text}))
    assert isinstance(huggingface.read(tmp_path, OURS["used"].n_ids + 1), HuggingFaceTokenizer)


def other(**changes: object) -> library.Tokenizer:
    """Return a tokenizer like GPT-2's with the bytes and one merge, and these attributes."""
    vocab = dict(THEIRS["bytes"].get_vocab()) | {"ab": 257}
    tokenizer = library.Tokenizer(models.BPE(vocab, [("a", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    return tokenizer


CHANGES: dict[str, dict[str, object]] = {
    "another merge": {},
    "lower case": {"normalizer": normalizers.Lowercase()},
    "a space before": {"pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=True)},
}


@pytest.mark.parametrize("change", CHANGES)
def test_any_other_tokenizer_is_read_as_it_is(change: str, tmp_path: Path) -> None:
    theirs = other(**CHANGES[change])
    theirs.enable_truncation(3)
    theirs.enable_padding(length=9)
    theirs.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": {"content": "<|endoftext|>"}}')
    ours = huggingface.read(tmp_path, 300)
    assert isinstance(ours, HuggingFaceTokenizer)
    assert (ours.vocab_size, ours.end_of_text) == (300, 256)
    assert tokenizers.load(json.loads(json.dumps(ours.state()))) == ours
    theirs.no_truncation()
    theirs.no_padding()
    text = "ABab dog é"
    (ids,) = ours.encode([text])
    assert ids.tolist() == theirs.encode(text, add_special_tokens=False).ids
    assert ours.decode(ids) == theirs.decode(ids)
    assert ours.decode([256, 299]) == "<|endoftext|>"  # padding has no text
    assert 256 not in ours.encode(["a<|endoftext|>b"])[0]
    assert ours.spellings[257] == b"ab"
    with pytest.raises(ValueError, match=r"ids must lie in 0\.\.299"):
        ours.decode([300])
    with pytest.raises(ValueError, match="surrogate"):
        ours.encode(["\ud800"])
    huggingface.write(tmp_path, ours, block_size=8)
    assert huggingface.read(tmp_path, 300).encode([text])[0].tolist() == ids.tolist()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("special_tokens_map.json", {"eos_token": "b"}),
        ("tokenizer_config.json", {"eos_token": {"content": "b"}}),
        ("config.json", {"eos_token_id": THEIRS["bytes"].token_to_id("b")}),
        ("generation_config.json", {"eos_token_id": [THEIRS["bytes"].token_to_id("b"), 3]}),
    ],
)
def test_where_the_end_of_text_is_named(file: str, content: dict, tmp_path: Path) -> None:
    other().save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match=f"{tmp_path}: no file names the end of text"):
        huggingface.read(tmp_path, 300)
    (tmp_path / "config.json").write_text('{"eos_token_id": 50256}')  # a default of transformers
    (tmp_path / file).write_text(json.dumps(content))
    assert huggingface.read(tmp_path, 300).end_of_text == ord("b")


def test_a_missing_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no tokenizer.json: save the model's tokenizer") as caught:
        huggingface.read(tmp_path, 300)
    assert str(caught.value).count(str(tmp_path)) == 1


def test_too_few_rows(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    huggingface.write(tmp_path, OURS["bytes"], block_size=64)
    with pytest.raises(ValueError, match="the tokenizer has 257 ids, more than the 256 rows of the embedding"):
        huggingface.read(tmp_path, 256)


BAD_FILES = {
    "empty": "",
    "deep": "[" * 100_000,
    "deep object": '{"model":' * 100_000,
    "no model": "{}",
    "a bad pattern": '{"pre_tokenizer":{"type":"Split","pattern":{"Regex":"("},"behavior":"Removed","invert":false},'
    '"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}',
    "an unknown token": '{"model":{"type":"BPE","vocab":{"a":0},"merges":[["a","b"]]}}',
}


@pytest.mark.parametrize("problem", BAD_FILES)
def test_a_damaged_tokenizer(problem: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(BAD_FILES[problem])
    with pytest.raises(ValueError, match="cannot be read") as caught:
        huggingface.read(tmp_path, 300)
    assert "\n" not in str(caught.value)


def test_damaged_openai_files(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    (tmp_path / "merges.txt").write_text("a b\n")
    with pytest.raises(ValueError, match=r"vocab.json and merges.txt cannot be read") as caught:
        huggingface.read(tmp_path, 300)
    assert "\n" not in str(caught.value)
