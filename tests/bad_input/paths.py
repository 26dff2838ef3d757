"""Folders and files that a setting names and that cannot be used: all are refused before a text is prepared."""

from pathlib import Path

from tests.bad_input import Case


def loop(folder: Path) -> None:
    """Make a link to itself."""
    (folder / "loop").symlink_to("loop")


CASES = [
    Case("run.py checkpoint_dir=text.txt", "checkpoint_dir=text.txt is no folder that can be written to"),
    Case("run.py checkpoint_dir=text.txt/a/b", "checkpoint_dir=text.txt/a/b is no folder that can be written to"),
    Case("run.py checkpoint_dir=/proc/x", "checkpoint_dir=/proc/x is no folder that can be written to"),
    Case(f"run.py checkpoint_dir={'a' * 300}", "File name too long"),
    Case("run.py checkpoint_dir=loop/a", "checkpoint_dir=loop/a", loop),
    Case("run.py cache_dir=text.txt", "cache_dir=text.txt is no folder that can be written to"),
    Case("run.py cache_dir=/dev/null/a", "cache_dir=/dev/null/a is no folder that can be written to"),
    Case("run.py cache_dir=/sys/x", "cache_dir=/sys/x is no folder that can be written to"),
    Case("run.py", "cache_dir=text.txt is no folder", variables={"NANOSQ_CACHE": "text.txt"}),
    Case("run.py checkpoint_dir=''", "checkpoint_dir: "),
    Case("run.py data=text data.source.train=folder", "folder"),
    Case("run.py data=text data.source.train=/dev/null", "/dev/null"),
    Case("run.py init_from=nowhere/best.pt", "nowhere/best.pt"),
    Case("run.py init_from=folder", "folder"),
    Case("run.py resume=folder", "resume=folder is a folder"),
    Case("run.py resume=text.txt/last.pt", "text.txt/last.pt"),
]
