"""List, verify, write or remove the prepared corpora of a cache directory.

python -m nanosq.data                        list the corpora
python -m nanosq.data verify [NAME ...]      check every file of all corpora, or of the named ones, against its checksum
python -m nanosq.data write NAME SPLIT FILE  write train, val or test as plain text, or into FILE.jsonl as JSON lines
python -m nanosq.data remove NAME ...        delete the named corpora
"""

import argparse
import os
import sys
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from nanosq import command, terminal
from nanosq.data import cache, write
from nanosq.suggestion import closest

COMMANDS = ("list", "verify", "write", "remove")


def main(arguments: list[str] | None = None) -> int:
    """Run the command. Return 0, 1 if a corpus is damaged or cannot be removed, or 2 for bad input."""
    parser = terminal.parser("nanosq.data", __doc__, "[COMMAND] [NAME ...]")
    parser.add_argument("command", nargs="?", metavar="COMMAND", choices=COMMANDS, default="list")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="name of a corpus, or its beginning; without names, verify checks all"
    )
    parser.add_argument("--cache-dir", type=Path, default=Path(os.environ.get("NANOSQ_CACHE", "cache")))
    return command.run(lambda: _work(parser.parse_args(arguments)))


def _work(options: argparse.Namespace) -> int:
    names, target = options.names, []
    if options.command == "write":
        names, target = names[:1], names[1:]  # the split and the file
        if len(target) != 2:
            raise ValueError("write needs the name of a corpus, a split and a file")
        write.check(target[0], Path(target[1]))
    elif options.command == "remove" and not names:
        raise ValueError("remove needs the names of corpora, as they are listed")
    if options.cache_dir.exists() and not options.cache_dir.is_dir():
        raise ValueError(f"--cache-dir: {options.cache_dir} is not a folder")
    corpora = {folder.name: folder for folder in cache.folders(options.cache_dir)}
    folders = [_matching(name, corpora, options.cache_dir) for name in names] or [*corpora.values()]
    if not folders:
        print(f"no corpus in {options.cache_dir}")
        return 0
    if target:
        return _write(folders[0], *target)
    return {"list": _list, "verify": _verify, "remove": _remove}[options.command](folders)


def _matching(name: str, corpora: dict[str, Path], place: Path) -> Path:
    """Return the folder of a corpus, given by its name or by its beginning if no other name begins so."""
    matching = [folder for full, folder in corpora.items() if name and full.startswith(name)]
    if name in corpora:
        return corpora[name]
    if len(matching) == 1:
        return matching[0]
    known = ", ".join(folder.name for folder in matching) or ", ".join(corpora) or "no corpus"
    what = f"{len(matching)} corpora begin with {name!r}" if matching else f"no {name!r}"
    raise ValueError(f"{what} in {place}: {'there are' if matching else 'it holds'} {known}{closest(name, corpora)}")


def _list(folders: list[Path]) -> int:
    print(terminal.table(("corpus", "prepared", "documents", "tokens", "vocabulary", "MB"), [*map(_row, folders)]))
    return 0


def _row(folder: Path) -> tuple[str, ...]:
    size = f"{_size(folder) / 1e6:,.1f}"
    if not folder.exists():
        return folder.name, "unfinished", "", "", "", size
    try:
        record = cache.manifest(folder)
        when = datetime.fromtimestamp(folder.stat().st_mtime).isoformat(" ", "minutes")
        documents, tokens = (sum(split[key] for split in record["splits"].values()) for key in ("documents", "tokens"))
        return folder.name, when, f"{documents:,}", f"{tokens:,}", f"{record['vocab_size']:,}", size
    except (OSError, ValueError):
        return folder.name, "damaged", "", "", "", size


def _verify(folders: list[Path]) -> int:
    is_damaged = False
    for folder in folders:
        if folder.exists():
            problem = cache.damage(folder)
            is_damaged = is_damaged or problem is not None
            print(f"{folder.name}: {f'damaged: {problem}' if problem else 'ok'}", flush=True)
        else:
            print(f"{folder.name}: unfinished")
    return int(is_damaged)


def _write(folder: Path, split: str, file: str) -> int:
    n, n_changed = write.write_split(folder, split, Path(file))
    print(f"{file}: {n:,} documents")
    if n_changed:
        print(f"nanosq will read {n_changed:,} of them without the white space at their ends", file=sys.stderr)
    return 0


def _remove(folders: list[Path]) -> int:
    has_failed = False
    for folder in folders:
        size = _size(folder)
        try:
            with cache.lock(folder, wait=False):
                cache.remove(folder)
            print(f"{folder.name}: removed, {size / 1e6:,.1f} MB")
        except (ValueError, OSError) as error:
            has_failed = True
            reason = "another process prepares it" if isinstance(error, TimeoutError) else error
            print(f"{folder.name}: {reason}", file=sys.stderr)
    return int(has_failed)


def _size(folder: Path) -> int:
    """Return the bytes on disk of a corpus, finished or not. Its files may disappear meanwhile."""
    size = 0
    for place in (folder, cache.unfinished(folder)):
        for directory, _, names in os.walk(place):
            for name in names:
                with suppress(FileNotFoundError):
                    size += Path(directory, name).stat().st_size
    return size


if __name__ == "__main__":
    sys.exit(main())
