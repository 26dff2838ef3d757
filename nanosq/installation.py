"""The place of this program, in a checkout or installed, and what its user types to start it.

A checkout has `python run.py` and `python -m MODULE`. A wheel installs console commands: `nanosq`, `nanosq-report`, ...
"""

import re
import sys
import sysconfig
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
IS_CHECKOUT = not (PACKAGE / "conf").is_dir()  # a wheel has conf/ inside of the package
LIBRARY_NAMES = {"site-packages", "dist-packages"}  # of folders with installed packages
LIBRARIES = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")}
CONF = PACKAGE.parent / "conf" if IS_CHECKOUT else PACKAGE / "conf"


def program(module: str = "run") -> str:
    """Return what the user of this process types to start a module; without one, to train.

    If a console command has started the process, it is `nanosq-NAME`, where NAME is the last part of the module.
    Without a checkout, training is always `nanosq`.
    """
    is_console = re.fullmatch(r"nanosq(-\w+)?", Path(sys.argv[0]).name) is not None
    if module == "run":
        return "nanosq" if is_console or not IS_CHECKOUT else "python run.py"
    return f"nanosq-{module.rpartition('.')[2]}" if is_console else f"python -m {module}"


def is_library(file: Path) -> bool:
    """Return whether a file belongs to Python or to an installed package.

    These are the files of the standard library, and all in folders with the name site-packages or dist-packages: a
    package may be installed outside of this environment, as with `python -m venv --system-site-packages`.
    """
    file = file.resolve()
    return not LIBRARY_NAMES.isdisjoint(file.parts) or any(file.is_relative_to(folder) for folder in LIBRARIES)


def add_current_folder() -> None:
    """Let components of the user be in modules of the current folder, which a console command does not search."""
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)
