"""Files of text as a split for a tokenizer, without the cache of corpora."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from nanosq.data import prepare, sources
from nanosq.data.corpus import Split
from nanosq.data.sources import Document
from nanosq.data.tokenizers import Tokenizer
from nanosq.filesystem import writing

MAX_CHARACTERS = 60  # of the beginning of a document


class DocumentPlace(NamedTuple):
    """The place of a document in files."""

    file: Path
    number: int  # in its file, from 1
    beginning: str  # of its text, on one line


def encode_files(
    paths: Sequence[Path], tokenizer: Tokenizer, *, separator: str, column: str, settings: str
) -> tuple[Split, list[DocumentPlace], bool]:
    """Return the documents of files, in their order, their places, and whether the tokenizer loses some of their text.

    The tokens are in a temporary file, so that they may be larger than the memory.

    Args:
        paths: The files, as `sources.find` returns them.
        tokenizer: The tokenizer.
        separator: The text between two documents of plain text.
        column: The column or key that holds the text of a row.
        settings: How the names of settings begin in messages.

    Raises:
        ValueError: A file cannot be read, or the tokenizer gives an id that is not in its vocabulary.
    """
    places: list[DocumentPlace] = []
    rows: list[np.ndarray] = []
    loses_text = False

    def documents() -> Iterator[Document]:
        for path in paths:
            read = sources.read([path], separator, column, settings=settings)
            for number, document in enumerate(read, start=1):
                if document.text:
                    beginning = " ".join(document.text[: 2 * MAX_CHARACTERS].split())[:MAX_CHARACTERS]
                    places.append(DocumentPlace(path, number, beginning))
                    yield document

    def encoded() -> Iterator[np.ndarray]:
        nonlocal loses_text
        with tqdm(desc="encoding", unit="B", unit_scale=True, leave=False, disable=None) as bar:
            for batch, ids in prepare.encode(documents(), tokenizer):
                yield ids
                rows.append(batch.rows)
                if tokenizer.may_lose_text and not loses_text:
                    loses_text = _loses_text(tokenizer, batch.texts, ids)
                bar.update(int(batch.rows["n_bytes"].sum()))

    with writing(Path(gettempdir()), "TMPDIR", reads=True), TemporaryFile() as file:
        starts = prepare.write_tokens(file, encoded(), tokenizer)
        file.flush()
        tokens = np.memmap(file, prepare.token_dtype(tokenizer), mode="r")  # the file exists as long as the array
    all_rows = np.concatenate(rows)
    split = Split(
        tokens=tokens,
        starts=starts,
        document_bytes=all_rows["n_bytes"].copy(),
        n_bytes=int(all_rows["n_bytes"].sum()),
        log_probability=math.nan,
        digest=prepare.digest(all_rows),
    )
    return split, places, loses_text


def _loses_text(tokenizer: Tokenizer, texts: Sequence[str], ids: np.ndarray) -> bool:
    """Return whether texts are not decoded from their ids, with an end of text after each, as they were.

    A space at the beginning does not count: some tokenizers add one.
    """
    documents = np.split(ids, np.flatnonzero(ids == tokenizer.end_of_text) + 1)
    decoded = (tokenizer.decode(document[:-1].tolist()) for document in documents)
    return any(one.removeprefix(" ") != other.removeprefix(" ") for one, other in zip(texts, decoded, strict=False))
