"""README.md and CONTRIBUTING.md: the example works, and the named commands and files exist."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commandline import ENVIRONMENT, ROOT, SMALL

TESTS_OF_LOSSES = ("test_losses", "test_loss_check", "test_loss_gradients", "test_head")


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_named_commands_and_files_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    modules = {name.replace(".", "/") for name in re.findall(r"python -m ((?:nanosq|analysis|tests)[\w.]*)", text)}
    assert not [name for name in modules if not ((ROOT / f"{name}.py").exists() or (ROOT / name).is_dir())]

    links = re.findall(r"\]\(([^:)#]+)[)#]", text)
    paths = re.findall(r"`((?:nanosq|analysis|tests|conf)/[\w./]*)`", text)
    created = {"conf/loss/confidence_penalty.yaml"}  # by the reader of the README
    templates = {path for path in paths if "NAME" in path}
    assert not [path for path in {*links, *paths} - created - templates if not (ROOT / path).exists()]


def test_map_of_contributing_names_files_that_exist() -> None:
    tree = (ROOT / "CONTRIBUTING.md").read_text().split("file by file")[1].split("```")[1]
    folder = Path()
    for line in tree.strip().splitlines():
        names = re.split(r"\s{2,}", line.strip())[0].split(", ")
        folder = folder if line.startswith(" ") else Path(names[0] if names[0].endswith("/") else "")
        inside = folder if line.startswith(" ") else Path()
        assert not [name for name in names if not (ROOT / inside / name).exists()], line


def test_loss_of_the_readme_can_be_trained_and_passes_the_tests(tmp_path: Path) -> None:
    """Add the function and the file of the README to a copy of the repository."""
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
        ["-m", "pytest", "-n0", *(f"tests/{file}.py" for file in TESTS_OF_LOSSES), "-k", name],
    ):
        result = subprocess.run([sys.executable, *line], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr
    assert "passed" in result.stdout
