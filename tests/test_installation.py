"""A wheel installs every file of the packages, conf/, and console commands that do what their names say."""

import ast
import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from setuptools import Distribution

from nanosq import identity, installation
from tests.commandline import ROOT, SMALL, command, runs
from tests.stress.installed import SHORT
from tests.stress.installed import commands as commands_of_readme
from tests.test_architecture import FILES, TREES
from tests.test_commands import COMMANDS

SCRIPTS: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
MODULES = {name: target.partition(":")[0].removesuffix(".__main__") for name, target in SCRIPTS.items()}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the files of a wheel, as setuptools installs them."""
    folder = tmp_path_factory.mktemp("installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        distribution = Distribution({"script_name": "setup.py"})
        distribution.parse_config_files()
        build = distribution.get_command_obj("build_py")
        build.build_lib = str(folder)
        build.ensure_finalized()
        build.run()
    return folder


def run_installed(installed: Path, script: str, *arguments: str, cwd: Path) -> str:
    """Run Python code with the installed package, as the console command `nanosq`, and return its output."""
    code = f"import sys; sys.argv[0] = 'bin/nanosq'\n{script}"
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}
    called = [sys.executable, "-c", code, *arguments]
    return subprocess.run(called, cwd=cwd, env=environment, capture_output=True, text=True, check=True).stdout


def test_a_wheel_has_every_file(installed: Path) -> None:
    folders = {"nanosq": "nanosq", "analysis": "analysis", "conf": "nanosq/conf"}
    files = {f"{there}/{path.relative_to(ROOT / here)}" for here, there in folders.items() for path in files_in(here)}
    assert files == {str(path.relative_to(installed)) for path in installed.rglob("*") if path.is_file()}


def files_in(folder: str) -> list[Path]:
    left_out = {"examples", "study", "__pycache__"}  # the pictures of the README, and the study, which has its data
    return [path for path in (ROOT / folder).rglob("*") if path.is_file() and left_out.isdisjoint(path.parts)]


def test_an_installed_package_composes_conf_and_has_the_code_hash_of_the_checkout(
    installed: Path, tmp_path: Path
) -> None:
    script = """
from nanosq import identity, installation, main
from omegaconf import OmegaConf
print(installation.CONF, installation.IS_CHECKOUT, identity.code_hash(OmegaConf.create()))
sys.exit(main.main())
"""
    first, *help_text = run_installed(installed, script, "--help", cwd=tmp_path).splitlines()
    code = identity.code_hash(identity.config.OmegaConf.create())
    assert first == f"{installed / 'nanosq/conf'} False {code}"
    assert "  a search           nanosq -m hydra/sweeper=optuna" in help_text
    assert "  verdict, figures   nanosq-report" in help_text
    assert any("squentropy_listing" in line for line in help_text)


@pytest.mark.parametrize("name", SCRIPTS)
def test_console_commands_exist_and_have_the_name_of_their_module(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, _, function = SCRIPTS[name].partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    monkeypatch.setattr("sys.argv", [f"/usr/bin/{name}"])
    assert installation.program("run" if name == "nanosq" else MODULES[name]) == name
    monkeypatch.setattr("sys.argv", [str(ROOT / "run.py")])
    assert installation.program() == "python run.py"


def test_every_command_but_benchmarks_and_the_study_has_a_console_command() -> None:
    others = ("analysis.benchmarks", "analysis.study")
    assert {*MODULES.values()} - {"nanosq.main"} == {name for name in COMMANDS if not name.startswith(others)}


def test_commands_in_texts_come_from_one_function() -> None:
    """A text that names `python run.py` would be wrong where `nanosq` is installed. Docstrings are adapted."""
    not_installed = ("analysis/benchmarks/", "analysis/study/", "nanosq/installation.py")
    for name in [name for name in FILES if not name.startswith(not_installed)]:
        docstrings = {node.value for node in ast.walk(TREES[name]) if isinstance(node, ast.Expr)}
        texts = [node for node in ast.walk(TREES[name]) if isinstance(node, ast.Constant) and node not in docstrings]
        assert not re.findall(
            r"python run\.py|python -m (?:nanosq|analysis)", " ".join(str(text.value) for text in texts)
        ), name


def test_a_console_command_finds_components_in_the_current_folder_and_names_itself(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from nanosq.losses import cross_entropy\n")
    (tmp_path / "own/loss").mkdir(parents=True)
    (tmp_path / "own/loss/mine.yaml").write_text("_target_: mine.cross_entropy\n_partial_: true\n")
    result = command("--config-dir", "own", "loss=mine", *SMALL, program="nanosq", cwd=tmp_path, check=True)
    assert result.stdout.endswith("next: nanosq-report\n")
    (run,) = runs(tmp_path)
    assert run.data.tags["command"] == " ".join(["nanosq --config-dir own loss=mine", *SMALL])


def test_the_program_that_installs_a_wheel_knows_all_commands_of_the_readme() -> None:
    assert {*commands_of_readme()} == {*SHORT}


def test_a_library_is_one_behind_a_link_too(tmp_path: Path) -> None:
    (tmp_path / "python").symlink_to(Path(ast.__file__).parent)
    assert installation.is_library(tmp_path / "python/ast.py")
    assert not installation.is_library(tmp_path / "mine.py")
