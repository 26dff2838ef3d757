"""TinyStories from the Hugging Face hub: downloaded once, then read from Hugging Face's cache without network."""

import os
import re
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path

REPOSITORY = "roneneldan/TinyStories"
SECONDS = 3.0  # within which the hub has to answer


def tinystories(revision: str) -> Path:
    """The folder with the parquet files of a revision (a commit), downloaded where they are not cached.

    A download that was cut short goes on where it was. Also finds what the library `datasets` has made of a revision.
    ValueError in one line where nothing is cached and the hub does not answer within `SECONDS`, or refuses.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    def snapshot(local_files_only: bool) -> Path:
        return Path(
            snapshot_download(
                REPOSITORY,
                repo_type="dataset",
                revision=revision,
                allow_patterns="data/*.parquet",
                local_files_only=local_files_only,
            )
        )

    with suppress(LocalEntryNotFoundError):
        folder = snapshot(local_files_only=True)
        if _whole(folder):
            return folder
    datasets = Path(os.environ.get("HF_DATASETS_CACHE", Path(constants.HF_HOME) / "datasets")).expanduser()
    if found := list(datasets.glob(f"roneneldan___tiny_stories/default/*/{revision}")):
        return found[0]
    try:
        _ask(revision)
        folder = snapshot(local_files_only=False)
        if not _whole(folder):
            raise OSError(f"only a part of it is in {folder}")
        return folder
    except Exception as error:  # of many libraries: names, connections, TLS, HTTP, the disk
        raise ValueError(
            f"TinyStories is not in Hugging Face's cache, and the hub {_line(error)}; give a directory with its "
            "parquet or text files (data.source.path=DIR), or train without a download (data=stories)"
        ) from error


def _whole(folder: Path) -> bool:
    """Whether all files are there that their names speak of, as train-00002-of-00004-d243063613e5a057.parquet does."""
    paths = [path for path in folder.glob("data/*.parquet") if path.is_file()]  # and not a link to what is gone
    names = (re.match(r"(train|validation)-\d+-of-(\d+)", path.name) for path in paths)
    found = Counter((name[1], int(name[2])) for name in names if name)
    return {split for split, _ in found} == {"train", "validation"} and all(n == of for (_, of), n in found.items())


def _ask(revision: str) -> None:
    """Raise what is wrong with the hub, soon: its own library tries for much longer."""
    from huggingface_hub import HfApi

    result: list[Exception | None] = []

    def ask() -> None:
        try:
            HfApi().dataset_info(REPOSITORY, revision=revision, timeout=SECONDS)
            result.append(None)
        except Exception as error:
            result.append(error)

    # In a thread, since the look-up of a name has no timeout of its own.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(SECONDS)
    error = result[0] if result else TimeoutError(f"nothing heard within {SECONDS:g} s")
    if error is not None:
        raise error


def _line(error: Exception) -> str:
    first = next(iter(str(error).strip().splitlines()), "")
    return f"failed ({type(error).__name__}: {first})" if first else f"failed ({type(error).__name__})"
