"""Rules of the code base: who may import what, sizes, names, and how much a command line loads."""

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PATHS = [
    ROOT / "run.py",
    *(path for folder in ("nanosq", "analysis") for path in sorted((ROOT / folder).rglob("*.py"))),
]
FILES = {str(path.relative_to(ROOT)): path for path in PATHS}
TREES = {name: ast.parse(path.read_text()) for name, path in FILES.items()}
MAX_LINES = 250

COMPOSES = (
    *("nanosq/main.py", "nanosq/command_line.py", "nanosq/schema.py", "nanosq/config.py"),
    *("nanosq/error_reports.py", "nanosq/hydra_errors.py"),
    "nanosq/sweeps/",
    "analysis/configuration.py",
    "analysis/benchmarks/",
)
COURSE = {f"nanosq.{name}" for name in ("train", "training_run", "experiment", "run_log", "tracking", "sweeps")}
# Files and folders that may import a library.
ONLY_IN = {
    "hydra": COMPOSES,
    "hydra_plugins": ("nanosq/sweeps/",),
    "omegaconf": (*COMPOSES, "analysis/audit/recompute.py"),
    "optuna": ("nanosq/sweeps/", "analysis/"),
    "mlflow": ("nanosq/tracking/", "analysis/"),
    "datasets": ("nanosq/data/", "analysis/benchmarks/"),
}
# Leaves, and the only modules of nanosq that each may import.
LEAVES = {
    "nanosq/ranges.py": set(),
    "nanosq/losses.py": {"nanosq.ranges"},
    "nanosq/optim.py": {"nanosq.ranges"},
    "nanosq/muon.py": {"nanosq.ranges"},
    "nanosq/attention.py": set(),
    "nanosq/model.py": {"nanosq.attention", "nanosq.ranges"},
    "nanosq/head.py": {"nanosq.losses"},
    "nanosq/token_scores.py": {"nanosq.head", "nanosq.losses"},
    "nanosq/suggestion.py": set(),
    "nanosq/settings.py": {"nanosq.ranges", "nanosq.signature"},
    "nanosq/filesystem.py": {"nanosq.errors"},
    "nanosq/installation.py": set(),
    "nanosq/option.py": {"nanosq.filesystem", "nanosq.suggestion"},
    "nanosq/terminal.py": {"nanosq.installation", "nanosq.option"},
    "nanosq/privacy.py": {"nanosq.terminal"},
}
# What the report may import.
SHARED = (
    *("nanosq.command", "nanosq.installation", "nanosq.option", "nanosq.privacy", "nanosq.suggestion"),
    "nanosq.terminal",
    *("nanosq.tracking.location", "nanosq.tracking.parameters"),
    *("nanosq.tracking.reach", "nanosq.tracking.store_errors"),
)
# Packages and the modules that they must not import.
FORBIDDEN = {
    "nanosq/": {"analysis", "run"},
    "analysis/": {"run"},
    "analysis/report/": {"nanosq"},
    "analysis/runs.py": {"nanosq"},
    "analysis/audit/": COURSE,
    "nanosq/data/": COURSE,
    "nanosq/train.py": {"nanosq.experiment", "nanosq.training_run", "nanosq.tracking", "nanosq.sweeps"},
}
# Names that other libraries do not document. Names of our own modules may begin with an underscore.
PRIVATE = re.compile(
    r"\b_impl\b|\._trial_id\b|_get_full_key|last_print_n|hydra\._internal|torch\._(?!_)\w+|_active_run_stack"
)
FRAGMENT = re.compile(r"(Of|That|Those|What|Which|Whether|Where|Up to|But for|By which) ")


def imports(tree: ast.Module) -> set[str]:
    """Return the dotted names that a module imports, those of its functions included."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


@pytest.mark.parametrize("name", FILES)
def test_libraries_are_imported_where_they_belong(name: str) -> None:
    for module in imports(TREES[name]):
        library = module.split(".")[0]
        assert name.startswith(ONLY_IN.get(library, (name,))), f"{name} imports {module}"


@pytest.mark.parametrize("name", LEAVES)
def test_leaves_import_next_to_nothing_of_nanosq(name: str) -> None:
    modules = {module for module in imports(TREES[name]) if module.startswith("nanosq.")}
    assert {".".join(module.split(".")[:2]) for module in modules} <= LEAVES[name]


@pytest.mark.parametrize("place", FORBIDDEN)
def test_imports_point_one_way(place: str) -> None:
    names = [name for name in FILES if name.startswith(place)]
    assert names
    for name in names:
        modules = [module for module in imports(TREES[name]) if not any(is_in(module, shared) for shared in SHARED)]
        modules = [module for module in modules if module != "nanosq"]  # the package itself is empty
        wrong = [module for module in modules if any(is_in(module, other) for other in FORBIDDEN[place])]
        assert not wrong, f"{name} imports {wrong}"


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_short(name: str) -> None:
    n_lines = len(FILES[name].read_text().splitlines())
    assert n_lines <= MAX_LINES, f"{name} has {n_lines} lines"


def test_the_training_loop_is_short() -> None:
    (loop,) = (n for n in ast.walk(TREES["nanosq/train.py"]) if isinstance(n, ast.FunctionDef) and n.name == "train")
    docstring = loop.body[0]
    assert loop.end_lineno is not None
    assert docstring.end_lineno is not None
    assert loop.end_lineno - docstring.end_lineno <= 60
    assert len(loop.args.args) + len(loop.args.kwonlyargs) <= 8


@pytest.mark.parametrize("name", FILES)
def test_no_private_name_of_another_library_is_used(name: str) -> None:
    assert not PRIVATE.findall(FILES[name].read_text())
    for module in imports(TREES[name]):
        library, *parts = module.split(".")
        if library not in {"nanosq", "analysis", "__future__"}:
            assert not any(part.startswith("_") for part in parts), f"{name} imports {module}"


def test_public_classes_have_unique_names() -> None:
    classes = [
        node.name
        for tree in TREES.values()
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    assert not [name for name, count in Counter(classes).items() if count > 1]


@pytest.mark.parametrize("name", FILES)
def test_docstrings_are_not_fragments(name: str) -> None:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = [ast.get_docstring(node) or "" for node in ast.walk(TREES[name]) if isinstance(node, kinds)]
    assert not [docstring for docstring in docstrings if FRAGMENT.match(docstring)]


def test_the_command_line_answers_without_the_heavy_libraries() -> None:
    script = """
import runpy, sys
sys.argv = ["run.py", "--help"]
try:
    runpy.run_path("run.py", run_name="__main__")
except SystemExit:
    pass
heavy = {"torch", "mlflow", "optuna", "datasets", "tiktoken", "numpy", "pandas", "pydantic"}
print(sorted(heavy & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "== Configuration groups ==" in result.stdout
    assert result.stdout.splitlines()[-1] == "[]"
