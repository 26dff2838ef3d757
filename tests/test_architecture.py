"""The rules of the code base: who may import whom, and how long the command line takes to answer."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("nanosq", "analysis")
FILES = [ROOT / "run.py", *(path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py")))]
MODULES = {str(path.relative_to(ROOT)): path for path in FILES}

ONLY_IN = {
    "hydra": ("run.py", "nanosq/config.py", "nanosq/errors.py", "nanosq/sweeps/"),
    "hydra_plugins": ("nanosq/sweeps/",),
    "omegaconf": ("run.py", "nanosq/config.py", "nanosq/errors.py", "nanosq/sweeps/"),
    "optuna": ("nanosq/sweeps/", "analysis/"),
    "mlflow": ("nanosq/tracking/", "analysis/"),
}
LEAVES = ("nanosq/model.py", "nanosq/losses.py", "nanosq/optim.py")


def imports(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text()))
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("name", MODULES)
def test_libraries_stay_where_they_belong(name: str) -> None:
    for module in imports(MODULES[name]):
        library = module.split(".")[0]
        assert name.startswith(ONLY_IN.get(library, (name,))), f"{name} imports {module}"


@pytest.mark.parametrize("name", LEAVES)
def test_leaves_import_nothing_of_nanosq(name: str) -> None:
    assert not [module for module in imports(MODULES[name]) if module.startswith("nanosq")]


def test_the_library_knows_neither_the_program_nor_the_analysis() -> None:
    for name, path in MODULES.items():
        assert "run" not in imports(path), name
        if not name.startswith("analysis/"):
            assert not [module for module in imports(path) if module.startswith("analysis")], name


def test_the_command_line_answers_without_the_heavy_libraries() -> None:
    script = """
import runpy, sys
sys.argv = ["run.py", "--help"]
try:
    runpy.run_path("run.py", run_name="__main__")
except SystemExit:
    pass
print(sorted({"torch", "mlflow", "optuna", "datasets", "tiktoken", "numpy", "pydantic"} & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "== Configuration groups ==" in result.stdout
    assert result.stdout.splitlines()[-1] == "[]"
