"""Download of TinyStories from the Hugging Face hub."""

import re
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

REPOSITORY = "roneneldan/TinyStories"
TIMEOUT = 3.0  # seconds in which the hub must answer


def download(revision: str) -> Path:
    """Return the folder with the parquet files of a revision, from Hugging Face's cache or else from the hub.

    `datasets.load_dataset` stores the files in the same place, but it retries for more than 20 s if the hub does not
    answer. Here that is an error after `TIMEOUT` seconds. An interrupted download resumes.

    Raises:
        ValueError: Nothing is cached, and the hub does not answer or refuses.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    snapshot = partial(
        snapshot_download, REPOSITORY, repo_type="dataset", revision=revision, allow_patterns="data/*.parquet"
    )
    with suppress(LocalEntryNotFoundError):
        folder = Path(snapshot(local_files_only=True))
        if _is_complete(folder):
            return folder
    try:
        _within(TIMEOUT, partial(HfApi().dataset_info, REPOSITORY, revision=revision, timeout=TIMEOUT))
        folder = Path(snapshot())
        if not _is_complete(folder):
            raise OSError(f"{folder} is incomplete")
        return folder
    except Exception as error:  # of many libraries: names, connections, TLS, HTTP, the disk
        reason = next(iter(str(error).strip().splitlines()), "no answer in time")
        raise ValueError(
            f"TinyStories is not in Hugging Face's cache, and the hub failed ({type(error).__name__}: {reason}); "
            "give a directory with its parquet or text files (data.source.path=DIR), or use data=stories"
        ) from error


def _within(seconds: float, function: Callable[[], Any]) -> None:
    """Call a function in a thread and wait for at most `seconds`, because resolving a host name has no timeout."""
    done: Future[None] = Future()

    def call() -> None:
        try:
            function()
            done.set_result(None)
        except Exception as error:
            done.set_exception(error)

    Thread(target=call, daemon=True).start()
    done.result(seconds)


def _is_complete(folder: Path) -> bool:
    """Return whether all files exist, as counted by names such as train-00002-of-00004-d243063613e5a057.parquet."""
    names = [path.name for path in folder.glob("data/*.parquet") if path.is_file()]  # and not a link to a deleted file
    parts = Counter(match.groups() for name in names if (match := re.match(r"(train|validation)-\d+-of-(\d+)", name)))
    splits = {split for split, _ in parts}
    return splits == {"train", "validation"} and all(n == int(total) for (_, total), n in parts.items())
