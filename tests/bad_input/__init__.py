"""Bad inputs, by their kind: what a user types, and what the one line must say.

Each module of this package has a list CASES. `tests/test_bad_input.py` tests them all, and `python -m tests.bad_input`
counts the results by kind, with new processes instead of forked ones.
"""

import importlib
import pkgutil
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

PASSWORD = "pa55-w0rd"  # for cases with credentials: it must not be printed or written


def nothing(folder: Path) -> None:
    """Leave the folder as it is."""


@dataclass(frozen=True)
class Case:
    """One bad input.

    Args:
        command: The command as typed in a shell, without `python` and `-m`: "run.py loss=none", "analysis.report".
        says: A part of the message.
        prepare: Prepares the working folder, which holds the files of `fill` already.
        variables: Environment variables.
    """

    command: str
    says: str
    prepare: Callable[[Path], None] = nothing
    variables: Mapping[str, str] | None = None

    @property
    def program(self) -> str:
        """The first word of the command."""
        return shlex.split(self.command)[0]

    @property
    def arguments(self) -> list[str]:
        """The other words of the command."""
        return shlex.split(self.command)[1:]


def fill(folder: Path) -> None:
    """Write files that many cases name."""
    (folder / "empty.txt").touch()
    (folder / "one.txt").write_text("a")
    (folder / "text.txt").write_text("Once upon a time")
    (folder / "folder").mkdir()


def by_kind() -> dict[str, list[Case]]:
    """Return all cases by the module that lists them."""
    names = [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]
    return {name: importlib.import_module(f"{__name__}.{name}").CASES for name in names}


def content(folder: Path) -> dict[str, bytes | None]:
    """Return the content of all files below a folder by their path, and None for folders."""
    paths = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}


def faults(case: Case, status: int, stdout: str, stderr: str, written: Mapping[str, bytes | None]) -> list[str]:
    """Return what is wrong with the end of a command that was given a bad input.

    Args:
        case: The bad input.
        status: Exit status.
        stdout: What it has printed.
        stderr: Its error messages.
        written: Content of new or changed files by their path.
    """
    found = {
        "traceback": "Traceback" in stderr,
        "status": status != 2,
        "lines": stderr.count("\n") != 1 or not stderr.startswith("error: ") or bool(stdout),
        "message": case.says not in stderr,
        "written": bool(written),
        "password": any(PASSWORD in text for text in (stdout, stderr))
        or any(PASSWORD.encode() in (data or b"") for data in written.values()),
    }
    return [name for name, is_wrong in found.items() if is_wrong]
