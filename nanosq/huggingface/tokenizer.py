"""Tokenizers in Hugging Face's format: export of ours, and import of those that equal ours or are others.

A tokenizer of the library `tokenizers` takes the text <|endoftext|> for the special token, unless one calls it with
split_special_tokens=True; ours encodes it as ordinary text.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanosq.data import bpe
from nanosq.data.bpe import END_OF_TEXT, N_BYTES
from nanosq.data.tokenizers import GPT2, ByteLevel, CutGPT2, Tokenizer
from nanosq.huggingface.extra import needs_extra
from nanosq.huggingface.json_file import read_object, read_text
from nanosq.huggingface.other_tokenizer import HuggingFaceTokenizer

if TYPE_CHECKING:
    import tokenizers

FILE, VOCAB, MERGES = "tokenizer.json", "vocab.json", "merges.txt"
# Files that may name the end of text, the first of them first.
END_FILES = ("generation_config.json", "config.json", "tokenizer_config.json", "special_tokens_map.json")


def to_huggingface(tokenizer: Tokenizer) -> "tokenizers.Tokenizer":
    """Return a tokenizer with the same ids. Rows of padding, which no text has, are not in it.

    Raises:
        ValueError: Hugging Face's format cannot express this tokenizer.
    """
    if isinstance(tokenizer, HuggingFaceTokenizer):
        return tokenizer.library_tokenizer
    spellings = tokenizer.spellings
    if isinstance(tokenizer, GPT2):
        return _byte_pairs(spellings, bpe.merges(), ignore_merges=False)
    if isinstance(tokenizer, CutGPT2):
        return _byte_pairs(spellings, _all_splits(spellings), ignore_merges=True)
    if isinstance(tokenizer, ByteLevel):
        return _byte_pairs(spellings, [], ignore_merges=False)
    raise ValueError(f"a tokenizer of the class {type(tokenizer).__name__} has no counterpart in Hugging Face's format")


def write(folder: Path, tokenizer: Tokenizer, *, block_size: int) -> None:
    """Write tokenizer.json and tokenizer_config.json into a folder.

    Raises:
        ValueError: Hugging Face's format cannot express this tokenizer.
    """
    theirs = to_huggingface(tokenizer)
    end_of_text = theirs.id_to_token(tokenizer.end_of_text)
    config = {
        # Of this class, transformers takes tokenizer.json as it is. GPT2Tokenizer would build one of its own from it.
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{use}_token": end_of_text for use in ("bos", "eos", "unk")},
        "model_max_length": block_size,
        "clean_up_tokenization_spaces": False,
    }
    theirs.save(str(folder / FILE))
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def read(folder: Path, n_rows: int) -> Tokenizer:
    """Return the tokenizer of a folder. Its vocab_size is the number of rows of the embedding, `n_rows`.

    Raises:
        ValueError: A file is missing or damaged, the tokenizer has more ids than the embedding has rows, or no file
            names the end of text.
    """
    with needs_extra():
        from tokenizers import Tokenizer as LibraryTokenizer
    if not (folder / FILE).is_file() and (folder / VOCAB).is_file() and (folder / MERGES).is_file():
        text = _from_gpt2_files(folder)
    else:
        text = read_text(folder / FILE)
    try:
        theirs = LibraryTokenizer.from_str(text)
    except Exception as error:  # the library raises no other class
        raise ValueError(f"{folder} has a tokenizer that cannot be read: {error}") from error
    n_ids = 1 + max(theirs.get_vocab(with_added_tokens=True).values(), default=-1)
    if n_ids > n_rows:
        raise ValueError(f"{folder}: the tokenizer has {n_ids} ids, and the embedding only {n_rows} rows")
    pad_to = n_rows if n_rows > n_ids else None
    essence = _essence(theirs)
    for tokenizer in _candidates(theirs.get_vocab(), pad_to):
        if _essence(to_huggingface(tokenizer)) == essence:
            return tokenizer
    return HuggingFaceTokenizer(text, _end_of_text(folder, theirs), n_rows)


def _byte_pairs(
    spellings: Sequence[bytes], merges: list[tuple[str, str]], *, ignore_merges: bool
) -> "tokenizers.Tokenizer":
    with needs_extra():
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    vocab = {bpe.as_characters(spelling): i for i, spelling in enumerate(spellings[:-1])}
    vocab[END_OF_TEXT] = len(vocab)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # splits by GPT-2's pattern
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
    return tokenizer


def _all_splits(spellings: Sequence[bytes]) -> list[tuple[str, str]]:
    """Return the merges that make byte pair encoding by tiktoken: of any two tokens whose concatenation is a token.

    tiktoken merges the first of the pairs whose concatenation has the lowest id, and `tokenizers` the first pair with
    the lowest merge. The order of the merges of one token matters only where two of its pairs overlap, as aa|a|aa: the
    longest first half is first, because merging from the left leaves the shorter piece at the right end.
    """
    tokens = set(spellings[:-1])
    return [
        (bpe.as_characters(spelling[:i]), bpe.as_characters(spelling[i:]))
        for spelling in spellings[N_BYTES:-1]
        for i in range(len(spelling) - 1, 0, -1)
        if spelling[:i] in tokens and spelling[i:] in tokens
    ]


def _from_gpt2_files(folder: Path) -> str:
    """Return the tokenizer.json of a folder that has OpenAI's two files instead, as GPT2Tokenizer reads them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocab = read_object(folder / VOCAB)
    lines = [line for line in read_text(folder / MERGES).splitlines() if line and not line.startswith("#version")]
    try:
        tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[tuple(line.split(" ")) for line in lines]))
    except Exception as error:  # the library raises no other class
        raise ValueError(f"{folder} has a {VOCAB} or {MERGES} that cannot be read: {error}") from error
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END_OF_TEXT])
    return tokenizer.to_str()


def _candidates(vocab: Mapping[str, int], pad_to: int | None) -> Iterator[Tokenizer]:
    """Yield our tokenizers with the ids of a vocabulary."""
    gpt2 = {bpe.as_characters(spelling): i for i, spelling in enumerate(bpe.spellings()[:-1])}
    yield GPT2(pad_to=pad_to)
    yield ByteLevel(pad_to)
    merged = sorted(gpt2[token] for token in vocab if gpt2.get(token, 0) >= N_BYTES)
    yield CutGPT2(tuple(merged), pad_to)


def _essence(tokenizer: "tokenizers.Tokenizer") -> dict[str, Any]:
    """Return all on which ids and decoded texts depend."""
    state = json.loads(tokenizer.to_str())
    model = state["model"]
    return {
        "vocab": tokenizer.get_vocab(with_added_tokens=True),
        "merges": [merge if isinstance(merge, list) else merge.split(" ") for merge in model.get("merges", [])],
    }
