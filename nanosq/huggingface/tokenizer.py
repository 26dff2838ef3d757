"""Tokenizers in Hugging Face's format: export of ours, and import of those that equal ours or are others.

A tokenizer of the library `tokenizers` takes the text <|endoftext|> for the special token, unless it is called with
split_special_tokens=True. Ours encode it as ordinary text.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanosq.data import bpe
from nanosq.data.bpe import END_OF_TEXT, GPT2_SIZE, N_BYTES
from nanosq.data.tokenizers import GPT2, ByteLevel, CutGPT2, Tokenizer
from nanosq.huggingface.extra import needs_extra
from nanosq.huggingface.json_file import read_object, read_text
from nanosq.huggingface.other_tokenizer import HuggingFaceTokenizer, number_of_ids, parse

if TYPE_CHECKING:
    import tokenizers

FILE, CONFIG = "tokenizer.json", "tokenizer_config.json"
VOCAB, MERGES = "vocab.json", "merges.txt"  # OpenAI's files, which older folders have instead
SPECIAL = "special_tokens_map.json"  # of older folders
FILES = (FILE, CONFIG, VOCAB, MERGES, SPECIAL)
# Settings that do not hold for a copy: Python files, a number that is often wrong, the class (`write`), local paths.
LEFT_OUT = (
    *("auto_map", "model_max_length", "tokenizer_class"),
    *("name_or_path", "tokenizer_file", "special_tokens_map_file"),
)
Pairs = Sequence[tuple[bytes, bytes]]


def to_huggingface(tokenizer: Tokenizer) -> "tokenizers.Tokenizer":
    """Return a tokenizer of the library `tokenizers` with the same ids. It has no ids of padding.

    Raises:
        ValueError: There is none.
    """
    if isinstance(tokenizer, HuggingFaceTokenizer):
        return parse(tokenizer.json)
    spellings = tokenizer.spellings
    if isinstance(tokenizer, GPT2):
        return _byte_pairs(spellings, bpe.merges())
    if isinstance(tokenizer, CutGPT2):
        return _byte_pairs(spellings, _splits(spellings), ignore_merges=True)
    if isinstance(tokenizer, ByteLevel):
        return _byte_pairs(spellings, [])
    raise ValueError(f"a tokenizer of the class {type(tokenizer).__name__} has no counterpart in Hugging Face's format")


def write(folder: Path, tokenizer: Tokenizer, *, block_size: int, origin: Path | None = None) -> None:
    """Write tokenizer.json and tokenizer_config.json into a folder.

    Args:
        folder: The folder, which exists.
        tokenizer: The tokenizer.
        block_size: The largest number of tokens that the model can read.
        origin: The file or folder that the tokenizer was read from. The names of special tokens behind the end of text,
            which are padding to ours, and all other settings of a tokenizer.json in a folder are kept.

    Raises:
        ValueError: Hugging Face's format has no such tokenizer.
    """
    if origin is not None and (origin / FILE).is_file():
        theirs, kept = parse(read_text(origin / FILE)), _settings(origin)
    else:
        theirs, kept = to_huggingface(tokenizer), {}
    special = theirs.id_to_token(tokenizer.end_of_text)
    config = {
        # transformers then takes tokenizer.json as it is; its GPT2Tokenizer leaves out ignore_merges
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{use}_token": special for use in ("bos", "eos", "unk")},
        "model_max_length": block_size,
        "clean_up_tokenization_spaces": False,
        **kept,
    }
    theirs.save(str(folder / FILE))
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def read(folder: Path, n_rows: int) -> Tokenizer:
    """Return the tokenizer of a folder, as one of ours if it has the same ids.

    Args:
        folder: The folder.
        n_rows: Number of rows of the model's embedding. It is the vocab_size of the tokenizer.

    Raises:
        ValueError: A file is missing or damaged, there are fewer rows than ids, or no file names the end of text.
    """
    text = _json_of(folder)
    try:
        theirs = parse(text)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    n_ids = number_of_ids(theirs)
    if n_ids > n_rows:
        raise ValueError(f"{folder}: the tokenizer has {n_ids} ids, more than the {n_rows} rows of the embedding")
    behaviour = _behaviour(theirs)
    for tokenizer in _candidates(behaviour["vocab"], n_rows):
        is_end_known = n_ids == tokenizer.n_ids or _end_of_text(folder, theirs) == tokenizer.end_of_text
        if is_end_known and _behaviour(to_huggingface(tokenizer)) == behaviour:
            return tokenizer
    return HuggingFaceTokenizer(theirs.to_str(), _end_of_text(folder, theirs), n_rows)


def is_in(folder: Path) -> bool:
    """Return whether a folder has the files of a tokenizer."""
    return (folder / FILE).is_file() or _has_openai_files(folder)


def _settings(folder: Path) -> dict[str, Any]:
    """Return the settings of a tokenizer in a folder, but for those that do not hold for a copy of it."""
    settings: dict[str, Any] = {}
    if (folder / SPECIAL).is_file():
        for key, value in read_object(folder / SPECIAL).items():  # CONFIG may not have objects in their place
            settings[key] = [*map(_text, value)] if isinstance(value, list) else _text(value)
    if (folder / CONFIG).is_file():
        settings |= {key: value for key, value in read_object(folder / CONFIG).items() if value is not None}
    return {key: value for key, value in settings.items() if value is not None and key not in LEFT_OUT}


def _byte_pairs(spellings: Sequence[bytes], merges: Pairs, *, ignore_merges: bool = False) -> "tokenizers.Tokenizer":
    vocab = {_characters(spelling): i for i, spelling in enumerate(spellings[:-1])} | {END_OF_TEXT: len(spellings) - 1}
    return _gpt2_like(vocab, [(_characters(left), _characters(right)) for left, right in merges], ignore_merges)


def _gpt2_like(
    vocab: dict[str, int], merges: list[tuple[str, str]], ignore_merges: bool = False
) -> "tokenizers.Tokenizer":
    """Return a byte pair encoding with GPT-2's pattern.

    With `ignore_merges`, a piece of the text that is a token becomes that token, whatever its merges are.
    """
    with needs_extra():
        from tokenizers import AddedToken, decoders, models, pre_tokenizers
        from tokenizers import Tokenizer as LibraryTokenizer
    tokenizer = LibraryTokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
    return tokenizer


def _splits(spellings: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    """Return all pairs of tokens that form a token together, in the order in which tiktoken merges them.

    tiktoken merges the pair that forms the token with the lowest id, the leftmost one of several. Here two pairs of the
    same token have an order instead. It could matter where they overlap, as in aa|a|aa, and merges from the left leave
    the shorter token at the right: so the pair with the longest left token is the first one.
    """
    tokens = set(spellings[:-1])
    splits = ((token[:i], token[i:]) for token in spellings[N_BYTES:-1] for i in range(len(token) - 1, 0, -1))
    return [split for split in splits if tokens.issuperset(split)]


def _characters(spelling: bytes) -> str:
    """Return bytes in the characters that stand for them in vocabularies."""
    return spelling.decode("latin-1").translate(_CHARACTERS)


_CHARACTERS = {byte[0]: character for character, byte in bpe.byte_characters().items()}


def _json_of(folder: Path) -> str:
    """Return the text of tokenizer.json, or what it would be if the folder has OpenAI's two files instead."""
    if not is_in(folder):
        raise ValueError(f"{folder} has no {FILE}: save the model's tokenizer there, too (save_pretrained)")
    if (folder / FILE).is_file():
        return read_text(folder / FILE)
    lines = [line for line in read_text(folder / MERGES).split("\n") if line and not line.startswith("#version")]
    pairs = [(left, right) for left, _, right in (line.partition(" ") for line in lines)]
    vocab = read_object(folder / VOCAB)
    try:
        return _gpt2_like(vocab, pairs).to_str()
    except Exception as error:  # the library has no class of its own
        raise ValueError(f"{folder / VOCAB} and {MERGES} cannot be read: {error}") from error


def _has_openai_files(folder: Path) -> bool:
    return (folder / VOCAB).is_file() and (folder / MERGES).is_file()


def _candidates(vocab: Mapping[str, int], n_rows: int) -> Iterator[Tokenizer]:
    """Yield our tokenizers that have as many tokens as a vocabulary."""
    pad_to = n_rows if n_rows > len(vocab) else None
    ids = {_characters(spelling): i for i, spelling in enumerate(bpe.spellings())}
    merged = sorted(ids[token] for token in vocab.keys() & ids.keys() if N_BYTES <= ids[token] < GPT2_SIZE - 1)
    if len(vocab) == GPT2_SIZE:
        yield GPT2(pad_to=pad_to)
    if len(vocab) == N_BYTES + 1:
        yield ByteLevel(pad_to)
    if len(vocab) == N_BYTES + len(merged) + 1:
        yield CutGPT2(merged, pad_to)


def _behaviour(tokenizer: "tokenizers.Tokenizer") -> dict[str, Any]:
    """Return everything that ids of texts and texts of ids depend on, if all bytes are tokens.

    Special tokens behind the end of text, such as one for padding, are no ids of a text.
    """
    state = json.loads(tokenizer.to_str())
    model, pre_tokenizer, decoder = state["model"], state["pre_tokenizer"] or {}, state["decoder"] or {}
    vocab = tokenizer.get_vocab(with_added_tokens=True)
    added = [(token["id"], token["content"], token["special"]) for token in state["added_tokens"]]
    behind = [(i, text, special) for i, text, special in added if special and i > vocab.get(END_OF_TEXT, i)]
    return {
        "vocab": {text: vocab[text] for text in vocab.keys() - {text for _, text, _ in behind}},
        "added": [token for token in added if token not in behind],
        "normalizer": state["normalizer"],
        "pieces": [pre_tokenizer.get(key) for key in ("type", "add_prefix_space", "use_regex")],
        "model": [model["type"], model.get("merges"), bool(model.get("ignore_merges")), model.get("dropout")],
        "affixes": [model.get(key) or "" for key in ("continuing_subword_prefix", "end_of_word_suffix")],
        "decoder": decoder.get("type"),
    }


def _end_of_text(folder: Path, tokenizer: "tokenizers.Tokenizer") -> int:
    """Return the id of the end of text: of the token that the tokenizer's files name, else of the model's files."""
    for name in (CONFIG, SPECIAL):
        token = read_object(folder / name).get("eos_token") if (folder / name).is_file() else None
        text = _text(token)
        if isinstance(text, str) and (found := tokenizer.token_to_id(text)) is not None:
            return found
    for name in ("config.json", "generation_config.json"):
        ids = read_object(folder / name).get("eos_token_id") if (folder / name).is_file() else None
        first = ids[0] if isinstance(ids, list) and ids else ids
        if isinstance(first, int) and first >= 0 and tokenizer.id_to_token(first) is not None:
            return first
    raise ValueError(f"{folder}: no file names the end of text: set eos_token in {CONFIG}")


def _text(token: Any) -> Any:
    """Return the text of a special token, which is an object in some files."""
    return token.get("content") if isinstance(token, dict) else token
