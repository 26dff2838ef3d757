"""Texts that have changed since a corpus was prepared from files of the same name."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from nanosq.data import cache


def changed_texts(cache_dir: Path, record: Mapping[str, Any]) -> Iterator[str]:
    """Yield a message for each argument of a source whose files have changed since the cache last prepared them.

    Files that were only renamed, moved or touched hold the same documents as before and have not changed.

    Args:
        cache_dir: The cache directory.
        record: What the manifest of the new corpus says.
    """
    earlier = sorted(_manifests(cache_dir, record["source"]), key=lambda dated: dated[0])
    for argument, names in record["names"].items():
        same_name = [dated for dated in earlier if dated[1].get("names", {}).get(argument) == names]
        if not same_name:
            continue
        date, last = same_name[-1]
        if last["arguments"][argument] == record["arguments"][argument] or _digests(last) == _digests(record):
            continue
        yield (
            f"data.source.{argument}={', '.join(map(_short, names))} has changed since it was prepared on "
            f"{date.isoformat(' ', 'minutes')}: scores before and after cannot be compared"
        )


def _manifests(cache_dir: Path, source: str) -> Iterator[tuple[datetime, dict[str, Any]]]:
    for folder in cache.folders(cache_dir):
        with suppress(ValueError, OSError):  # it is damaged, or another process removes it
            manifest = cache.manifest(folder)
            if manifest.get("source") == source:
                yield datetime.fromtimestamp(folder.stat().st_mtime), manifest


def _digests(manifest: Mapping[str, Any]) -> list[str]:
    return [split["digest"] for split in manifest["splits"].values()]


def _short(name: str) -> str:
    path = Path(name)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
