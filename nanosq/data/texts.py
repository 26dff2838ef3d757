"""Files of text as a split for a tokenizer, without the cache of corpora."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from nanosq.data import prepare, sources
from nanosq.data.corpus import Split
from nanosq.data.sources import Document
from nanosq.data.tokenizers import Tokenizer

MAX_CHARACTERS = 60  # of the beginning of a document


class DocumentPlace(NamedTuple):
    """The place of a document in files."""

    file: Path
    number: int  # in its file, from 1
    beginning: str  # of its text, on one line


def encode_files(
    paths: Sequence[Path], tokenizer: Tokenizer, *, separator: str, column: str, settings: str
) -> tuple[Split, list[DocumentPlace]]:
    """Return the documents of files, in their order, and their places.

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

    def documents() -> Iterator[Document]:
        for path in paths:
            read = sources.read([path], separator, column, settings=settings)
            for number, document in enumerate(read, start=1):
                if document.text:
                    beginning = " ".join(document.text[: 2 * MAX_CHARACTERS].split())[:MAX_CHARACTERS]
                    places.append(DocumentPlace(path, number, beginning))
                    yield document

    def encoded() -> Iterator[np.ndarray]:
        with tqdm(desc="encoding", unit="B", unit_scale=True, leave=False, disable=None) as bar:
            for batch, ids in prepare.encode(documents(), tokenizer):
                yield ids
                rows.append(batch.rows)
                bar.update(int(batch.rows["n_bytes"].sum()))

    with TemporaryFile() as file:
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
    return split, places
