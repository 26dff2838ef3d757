"""Download of TinyStories from the Hugging Face hub."""

import re
from collections import Counter
from pathlib import Path

from nanosq.huggingface.hub import snapshot

REPOSITORY = "roneneldan/TinyStories"


def download(revision: str) -> Path:
    """Return the folder with the parquet files of a revision, from Hugging Face's cache or else from the hub.

    `datasets.load_dataset` stores the files in the same place.

    Raises:
        ValueError: Nothing is cached, and the hub does not answer or refuses.
    """
    try:
        return snapshot(REPOSITORY, "dataset", patterns=["data/*.parquet"], is_complete=_is_complete, revision=revision)
    except ConnectionError as error:
        raise ValueError(
            f"TinyStories is not in Hugging Face's cache, and the hub {error}; "
            "give a directory with its parquet or text files (data.source.path=DIR), or use data=stories"
        ) from error


def _is_complete(folder: Path) -> bool:
    """Return whether all files exist, as counted by names such as train-00002-of-00004-d243063613e5a057.parquet."""
    names = [path.name for path in folder.glob("data/*.parquet") if path.is_file()]  # and not a link to a deleted file
    parts = Counter(match.groups() for name in names if (match := re.match(r"(train|validation)-\d+-of-(\d+)", name)))
    splits = {split for split, _ in parts}
    return splits == {"train", "validation"} and all(n == int(total) for (_, total), n in parts.items())
