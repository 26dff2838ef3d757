"""Tokenizers that are none of ours: what a model writes with them, text that they lose, and their errors."""

import csv
import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
import tokenizers as library
import torch
from tokenizers import decoders, models, normalizers, pre_tokenizers
from torch import Tensor, nn

from nanosq import checkpoint, evaluate, generate, pretrained
from nanosq.data import tokenizers
from nanosq.data.tokenizers import GPT2, Tokenizer
from nanosq.generation import new_ids, stream
from nanosq.huggingface import tokenizer as huggingface
from nanosq.huggingface.other_tokenizer import HuggingFaceTokenizer
from nanosq.model import GPT
from nanosq.settings import SampleSettings

WORDS = ["<eos>", "[UNK]", "the", "dog", "play", "##ing", "##s", "and", ".", ","]
N_ROWS = 16  # more than there are ids
SIZES = {"block_size": 32, "n_layer": 1, "n_head": 1, "n_embd": 8}


def ids(tokens: Iterable[str]) -> dict[str, int]:
    return {token: i for i, token in enumerate(tokens)}


def finished(tokenizer: library.Tokenizer, end: str, n_rows: int) -> HuggingFaceTokenizer:
    return HuggingFaceTokenizer(tokenizer.to_str(), tokenizer.token_to_id(end), n_rows)


def word_pieces() -> HuggingFaceTokenizer:
    tokenizer = library.Tokenizer(models.WordPiece(ids(WORDS), unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return finished(tokenizer, "<eos>", N_ROWS)


def words(unknown: str = "[UNK]", vocabulary: Sequence[str] = WORDS) -> HuggingFaceTokenizer:
    tokenizer = library.Tokenizer(models.WordLevel(ids(vocabulary), unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return finished(tokenizer, "<eos>", N_ROWS)


def gpt2_with_padding() -> HuggingFaceTokenizer:
    tokenizer = huggingface.to_huggingface(GPT2())
    tokenizer.add_special_tokens(["[PAD]"])
    return finished(tokenizer, "<|endoftext|>", 50_304)


def like_llama() -> HuggingFaceTokenizer:
    vocabulary = ["<eos>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "▁a", "▁b"]
    tokenizer = library.Tokenizer(models.BPE(ids(vocabulary), [("▁", "a"), ("▁", "b")], byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    return finished(tokenizer, "<eos>", 300)


def with_suffixes() -> HuggingFaceTokenizer:
    tokenizer = library.Tokenizer(models.BPE(ids(["<eos>", "a", "b", "a</w>", "b</w>"]), [], end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.BPEDecoder()
    return finished(tokenizer, "<eos>", N_ROWS)


class Reciter(nn.Module):
    """A model that writes these ids, whatever it has read."""

    block_size = 10_000

    def __init__(self, tokenizer: Tokenizer, prompt: str, following: Sequence[int]) -> None:
        super().__init__()
        self.head_weight = 2.0 * ((torch.arange(tokenizer.n_ids)[:, None] >> torch.arange(16)) & 1) - 1
        self.following = [*tokenizer.encode([prompt])[0].tolist(), *following, tokenizer.end_of_text]

    def forward(self, tokens_BT: Tensor) -> Tensor:
        token = self.following[tokens_BT.shape[1] - 1]
        return self.head_weight[token][None, None]  # of all binary numbers, it is the most similar to itself


def recited(tokenizer: Tokenizer, prompt: str, following: Sequence[int]) -> list[str]:
    settings = SampleSettings(1, len(following) + 1, 0, prompt, None, None)
    first, *pieces = (piece for (piece,) in stream(Reciter(tokenizer, prompt, following), tokenizer, settings))
    assert first == prompt
    return pieces


@pytest.mark.parametrize("prompt", ["", "a b", "a"])
@pytest.mark.parametrize("make", [like_llama, with_suffixes])
def test_the_pieces_are_the_text_of_all_ids(make, prompt: str) -> None:
    tokenizer = make()
    characters = [i for i in range(1, tokenizer.n_ids) if not 128 < i <= 256]  # those are no characters alone
    for seed in range(20):
        following = random.Random(seed).choices(characters, k=30)
        pieces = recited(tokenizer, prompt, following)
        assert prompt + "".join(pieces) == tokenizer.decode([*tokenizer.encode([prompt])[0], *following])
        assert sum(map(bool, pieces)) > 20


def test_word_pieces_are_joined() -> None:
    tokenizer = word_pieces()
    following = [WORDS.index(word) for word in ("##ing", "and", "play", "##s", ",", "the", "dog", ".")]
    assert recited(tokenizer, "the play", following) == ["ing", " and", " play", "s", ",", " the", " dog", ".", "", ""]
    assert "".join(recited(tokenizer, "", following[1:])) == "and plays, the dog."


@pytest.mark.parametrize("make", [gpt2_with_padding, like_llama])
def test_characters_come_as_a_whole(make) -> None:
    tokenizer, text = make(), "a 猫 b 👍🏽 a"
    following = tokenizer.encode([text])[0].tolist()
    pieces = recited(tokenizer, "", following)
    assert "".join(pieces) == text
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
    cut = following[: following.index(tokenizer.encode(["a 猫"])[0][-1])]  # in the middle of a character
    assert "".join(recited(tokenizer, "", cut)) == tokenizer.decode(cut)
    assert tokenizer.decode(cut).endswith("\N{REPLACEMENT CHARACTER}")


def test_gpt2_with_padding_writes_what_gpt2_writes() -> None:
    following = random.Random(0).choices(range(50_256), k=500)
    assert recited(gpt2_with_padding(), "Once", following) == recited(GPT2(), "Once", following)


def test_an_end_of_text_that_is_the_first_id() -> None:
    """All ids are drawn but for padding."""
    tokenizer = words()
    torch.manual_seed(0)
    model = GPT(tokenizer.vocab_size, **SIZES).eval()
    drawn = {token for row in new_ids(model, tokenizer, SampleSettings(200, 20, 1, "the", None, None)) for token in row}
    assert (tokenizer.end_of_text, tokenizer.n_ids, tokenizer.vocab_size) == (0, len(WORDS), N_ROWS)
    assert drawn == {*range(len(WORDS))}


@pytest.fixture
def save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that saves a model with a tokenizer as best.pt in the working directory."""
    monkeypatch.chdir(tmp_path)

    def save(tokenizer: Tokenizer) -> None:
        facts = {"settings": {"model._target_": pretrained.TARGET}, "tokenizer": tokenizer.state()}
        weights = GPT(tokenizer.vocab_size, **SIZES).state_dict()
        checkpoint.save(Path("best.pt"), {**facts, "architecture": SIZES, "model": weights})

    return save


@pytest.mark.parametrize(("text", "is_lost"), [("the dog and the dog", False), ("the cat and the dog", True)])
def test_bits_per_byte_of_lost_text(text: str, is_lost: bool, save, capsys) -> None:
    save(words())
    Path("a.txt").write_text(f"the<|endoftext|>{text}")
    assert evaluate.main(["best.pt", "--data", "a.txt", "--json", "--csv", "scores.csv"]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result["nll"] > 0
    assert (result["bits_per_byte"] is None) == is_lost
    note = "note: the tokenizer loses text: bits per byte cannot be compared\n"
    assert printed.err == (note if is_lost else "")
    rows = csv.DictReader(Path("scores.csv").read_text().splitlines())
    assert {row["bits_per_byte"] == "nan" for row in rows} == {is_lost}
    assert evaluate.main(["best.pt", "--data", "a.txt"]) == 0
    header, row, *_ = capsys.readouterr().out.splitlines()
    assert (dict(zip(header.split(), row.split(), strict=True))["bits/byte"] == "-") == is_lost


def test_an_added_space_is_no_loss(save, capsys) -> None:
    tokenizer = huggingface.to_huggingface(tokenizers.byte_level())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    save(finished(tokenizer, "<|endoftext|>", 300))
    Path("a.txt").write_text("Any text é 猫")
    assert evaluate.main(["best.pt", "--data", "a.txt", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bits_per_byte"] > 0


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        (words(vocabulary=["<eos>", "the"]), "the tokenizer cannot encode this text: WordLevel error: Missing [UNK]"),
        (words(unknown="<eos>"), "the tokenizer gives its end of text, 0, for a part of a text"),
    ],
)
def test_text_that_cannot_be_encoded_is_one_line(tokenizer: HuggingFaceTokenizer, message: str, save, capsys) -> None:
    save(tokenizer)
    Path("a.txt").write_text("the cat")
    assert evaluate.main(["best.pt", "--data", "a.txt"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_prompt_that_cannot_be_encoded_is_one_line(save, capsys) -> None:
    save(words(vocabulary=["<eos>", "the"]))
    assert generate.main(["best.pt", "--prompt", "cat"]) == 2
    assert capsys.readouterr().err.startswith("error: the tokenizer cannot encode this text: ")
