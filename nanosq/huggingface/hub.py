"""Downloads from the Hugging Face hub: from its cache, or soon an error if the hub does not answer."""

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, Literal

from nanosq.huggingface.extra import needs_extra
from nanosq.privacy import set_defaults

TIMEOUT = 3.0  # seconds in which the hub must answer
FILES = ["*.json", "*.txt", "*.safetensors"]  # of a model; no pickles


def download(name: str) -> Path:
    """Return the folder of a model such as openai-community/gpt2.

    Raises:
        ValueError: It is not in the cache, and the hub does not answer or does not have it; or the libraries that read
            it are not installed.
    """
    with needs_extra():  # before hundreds of megabytes are downloaded that could not be read
        import safetensors.torch  # noqa: F401
        import tokenizers  # noqa: F401
    try:
        return snapshot(name, "model", patterns=FILES, is_complete=_is_model)
    except ConnectionError as error:
        raise ValueError(f"{name} is no file or folder, is not in Hugging Face's cache, and the hub {error}") from error


def snapshot(
    repository: str,
    kind: Literal["model", "dataset"],
    *,
    patterns: list[str],
    is_complete: Callable[[Path], bool],
    revision: str | None = None,
) -> Path:
    """Return the folder with some files of a repository, from the cache or else from the hub.

    The libraries retry for more than 20 s if the hub does not answer. Here that is an error after `TIMEOUT` seconds. An
    interrupted download resumes.

    Args:
        repository: Its name, for example roneneldan/TinyStories.
        kind: Its kind.
        patterns: Patterns of the names of the files.
        is_complete: Returns whether a folder has all files.
        revision: A revision, by default the last one.

    Raises:
        ConnectionError: Nothing is cached, and the hub does not answer or refuses. The message begins with "failed".
    """
    set_defaults()
    from huggingface_hub import HfApi, snapshot_download

    load = partial(snapshot_download, repository, repo_type=kind, revision=revision, allow_patterns=patterns)
    with suppress(Exception):  # nothing is cached, or this is no name of a repository
        folder = Path(load(local_files_only=True))
        if is_complete(folder):
            return folder
    try:
        ask = partial(HfApi().repo_info, repository, repo_type=kind, revision=revision, timeout=TIMEOUT)
        _within(TIMEOUT, ask)
        folder = Path(load())
        if not is_complete(folder):
            raise OSError(f"{repository} lacks some of {', '.join(patterns)}")
        return folder
    except Exception as error:  # of many libraries: names, connections, TLS, HTTP, the disk
        reason = next(iter(str(error).strip().splitlines()), "no answer in time")
        raise ConnectionError(f"failed ({type(error).__name__}: {reason})") from error


def _is_model(folder: Path) -> bool:
    """Return whether a folder has everything: programs that need less may have put only that into the cache."""
    from nanosq.huggingface import tokenizer
    from nanosq.huggingface.folder import CONFIG, weight_files

    with suppress(ValueError):
        return (folder / CONFIG).is_file() and bool(weight_files(folder)) and tokenizer.is_in(folder)
    return False


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
