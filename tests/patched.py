"""`run.py` in a process of its own, with a part of nanosq replaced or interrupted."""

import subprocess
import sys
from pathlib import Path

from tests.commandline import ROOT, environment


def patched(
    patch: str, *arguments: str, cwd: Path, program: Path = ROOT, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run run.py of a checkout after Python code that replaces a part of nanosq."""
    script = f"""
import os, runpy, signal, sys
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
{patch}
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    return subprocess.run(
        [sys.executable, "-c", script, str(program / "run.py"), *arguments],
        cwd=cwd,
        env=environment() | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def cut_short(how: str, *arguments: str, cwd: Path, **variables: str) -> tuple[subprocess.CompletedProcess[str], Path]:
    """Run a command, execute `how` right after it has written its first last.pt, and return that checkpoint too."""
    patch = f"""
from nanosq import checkpoint
save = checkpoint.save
def cut(path, content):
    save(path, content)
    if path.name == "last.pt":
        checkpoint.save = save
        {how}
checkpoint.save = cut
"""
    result = patched(patch, *arguments, cwd=cwd, **variables)
    (last,) = (cwd / "checkpoints").glob("*/last.pt")
    return result, last.relative_to(cwd)
