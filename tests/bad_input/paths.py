"""Folders and files that a setting names and that cannot be used: all are refused before a text is prepared."""

from pathlib import Path

from tests.bad_input import Case


def loop(folder: Path) -> None:
    """Make a link to itself."""
    (folder / "loop").symlink_to("loop")


CASES = [
    Case("run.py checkpoint_dir=text.txt", "checkpoint_dir: cannot write text.txt"),
    Case("run.py checkpoint_dir=text.txt/a/b", "checkpoint_dir: cannot write text.txt/a/b"),
    Case("run.py checkpoint_dir=/proc/x", "checkpoint_dir: cannot write /proc/x"),
    Case(f"run.py checkpoint_dir={'a' * 300}", "File name too long"),
    Case("run.py checkpoint_dir=loop/a", "checkpoint_dir: cannot write loop/a", loop),
    Case("run.py cache_dir=text.txt", "cache_dir: cannot write text.txt"),
    Case("run.py cache_dir=/dev/null/a", "cache_dir: cannot write /dev/null/a"),
    Case("run.py cache_dir=/sys/x", "cache_dir: cannot write /sys/x"),
    Case("run.py", "cache_dir: cannot write text.txt", variables={"NANOSQ_CACHE": "text.txt"}),
    Case("run.py checkpoint_dir=''", "checkpoint_dir=: must be a name that is not empty"),
    Case("run.py data=text data.source.train=folder", "folder"),
    Case("run.py data=text data.source.train=/dev/null", "/dev/null"),
    Case("run.py init_from=nowhere/best.pt", "nowhere/best.pt"),
    Case("run.py init_from=folder", "folder"),
    Case("run.py resume=folder", "resume=folder is a folder"),
    Case("run.py resume=text.txt/last.pt", "text.txt/last.pt"),
]
