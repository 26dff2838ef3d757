"""What the README tells a user to do, done."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.commandline import ENVIRONMENT, ROOT, SMALL


def test_add_your_own_loss(tmp_path: Path) -> None:
    """Its function and its file, in a copy of the repository: training and the tests take it."""
    section = (ROOT / "README.md").read_text().split("## Add your own loss")[1].split("\n## ")[0]
    (function,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (yaml,) = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
    (path,) = re.findall(r"`(conf/loss/.*?\.yaml)`", section)
    (command,) = re.findall(r"`python (run\.py .*?)`", section)

    ignore = shutil.ignore_patterns("__pycache__")
    for folder in ("nanosq", "conf", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignore)
    for file in ("run.py", "pyproject.toml"):
        shutil.copy(ROOT / file, tmp_path)
    with (tmp_path / "nanosq" / "losses.py").open("a") as file:
        file.write(f"\n\n{function}")
    (tmp_path / path).write_text(yaml)

    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(tmp_path)}
    name = Path(path).stem
    for line in (
        [*command.split(), *SMALL, "tracking=none"],
        ["-m", "pytest", "-n0", "tests/test_losses.py", "tests/test_head.py", "-k", name],
    ):
        result = subprocess.run([sys.executable, *line], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr
    assert "passed" in result.stdout
