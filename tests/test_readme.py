"""README.md and CONTRIBUTING.md: the examples work, and the named commands, files, settings and terms exist."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

from analysis.configuration import compose
from analysis.report import glossary
from nanosq import config
from tests.commandline import ENVIRONMENT, ROOT, SMALL, command, printed_perplexity, runs

README = (ROOT / "README.md").read_text()
TESTS_OF_LOSSES = ("test_losses", "test_loss_check", "test_loss_gradients", "test_head")
EXAMPLES = dict(re.findall(r"```(?:python|yaml)\n# (?:at the end of )?(\S+)\n(.*?)```", README, re.DOTALL))
OF_EXAMPLES = {"loss=confidence_penalty", "data=sums", "model=gru"}
GROUPS = {path.relative_to(ROOT / "conf").as_posix(): path for path in (ROOT / "conf").glob("**/") if path.is_dir()}


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_named_commands_and_files_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    modules = {name.replace(".", "/") for name in re.findall(r"python -m ((?:nanosq|analysis|tests)[\w.]*)", text)}
    assert not [name for name in modules if not ((ROOT / f"{name}.py").exists() or (ROOT / name).is_dir())]

    links = re.findall(r"\]\(([^:)#]+)[)#]", text)
    paths = re.findall(r"`((?:nanosq|analysis|tests|conf)/[\w./]*)`", text)
    templates = {path for path in paths if "NAME" in path}
    assert not [path for path in {*links, *paths} - templates if not (ROOT / path).exists()]


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_links_to_sections_exist(document: str) -> None:
    for file, anchor in re.findall(r"\]\(([\w.]*)#([\w-]+)\)", (ROOT / document).read_text()):
        headings = re.findall(r"^#+ (.*)$", (ROOT / (file or document)).read_text(), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_named_settings_exist(document: str) -> None:
    keys = _keys()
    for key, values in _settings((ROOT / document).read_text()):
        if key in GROUPS:
            files = [GROUPS[key] / f"{value}.yaml" for value in values.split(",")]
            assert all(file.exists() or f"{key}={file.stem}" in OF_EXAMPLES for file in files), f"{key}={values}"
        elif not key.startswith(("hydra.launcher.", "hydra/")):  # those of plugins
            assert key in keys, key


def _settings(text: str) -> Iterator[tuple[str, str]]:
    """Yield the settings in commands and in code, as pairs of key and values."""
    commands = re.findall(r"(?:python|torchrun \S+) run\.py ([^`]*?)(?:`|  +#|\n)", text)
    code = re.findall(r"`([^`\n]+)`", text)
    for line in (*commands, *(span for span in code if not span.startswith(("python", "error")))):
        for word in shlex.split(line) if "=" in line else ():
            if match := re.fullmatch(r"\+?([a-z_]+(?:[./][a-z_]+)*)=(\S.*)", word):
                yield match[1], match[2]
    sections = "|".join(("data", "model", "loss", "optimizer", "schedule", "samples", "train", "hydra"))
    yield from ((key, "") for key in code if re.fullmatch(rf"(?:{sections})\.[a-z_.]+(?<!\.py)", key))


@cache
def _keys() -> set[str]:
    """Return the keys of all settings, whatever the components."""
    choices = [f"{name}={file.stem}" for name, folder in GROUPS.items() for file in folder.glob("*.yaml")]
    choices = [choice for choice in choices if not choice.startswith((".", "hydra", "experiment"))]
    keys = {key for choice in choices for key in config.flatten(compose([choice]))}
    keys |= {key for key in compose([]) if isinstance(key, str)}
    sweepers = (ROOT / "conf/hydra/sweeper").glob("*.yaml")
    return keys | {f"hydra.sweeper.{key}" for file in sweepers for key in yaml.safe_load(file.read_text())}


def test_map_of_contributing_names_files_that_exist() -> None:
    tree = (ROOT / "CONTRIBUTING.md").read_text().split("file by file")[1].split("```")[1]
    folder = Path()
    for line in tree.strip().splitlines():
        names = re.split(r"\s{2,}", line.strip())[0].split(", ")
        folder = folder if line.startswith(" ") else Path(names[0] if names[0].endswith("/") else "")
        inside = folder if line.startswith(" ") else Path()
        assert not [name for name in names if not (ROOT / inside / name).exists()], line


def test_glossary_is_that_of_the_report() -> None:
    assert dict(re.findall(r"^- \*\*(.+?)\*\*: (.+)$", README, re.MULTILINE)) == glossary.TERMS


def test_readme_is_short() -> None:
    assert len(README.splitlines()) < 300


def test_loss_of_the_readme_can_be_trained_and_passes_the_tests(tmp_path: Path) -> None:
    """Add the function and the file of the README to a copy of the repository."""
    (line,) = re.findall(r"`python (run\.py loss=confidence_penalty .*?)`", README)
    ignore = shutil.ignore_patterns("__pycache__")
    for folder in ("nanosq", "analysis", "conf", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignore)
    for file in ("run.py", "pyproject.toml"):
        shutil.copy(ROOT / file, tmp_path)
    with (tmp_path / "nanosq" / "losses.py").open("a") as file:
        file.write(f"\n\n{EXAMPLES['nanosq/losses.py']}")
    (tmp_path / "conf/loss/confidence_penalty.yaml").write_text(EXAMPLES["conf/loss/confidence_penalty.yaml"])

    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(tmp_path)}
    for arguments in (
        [*line.split(), *SMALL, "tracking=none"],
        ["-m", "pytest", "-n0", *(f"tests/{file}.py" for file in TESTS_OF_LOSSES), "-k", "confidence_penalty"],
    ):
        called = [sys.executable, *arguments]
        result = subprocess.run(called, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr
    assert "passed" in result.stdout


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Return a folder with the data set and the model of the README."""
    for name, content in EXAMPLES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


def test_data_of_the_readme_can_be_trained_on(own: Path) -> None:
    small = [override for override in SMALL if not override.startswith("data.source")]
    line = ["--config-dir", "conf", "data=sums", "data.source.n=200", *small, "model.block_size=16"]
    result = command(*line, "tracking=none", cwd=own, check=True)
    assert "cross_entropy tiny sums: " in result.stderr
    assert printed_perplexity(result) > 1


def test_model_of_the_readme_can_be_trained_and_every_metric_is_in_the_glossary(own: Path) -> None:
    small = [override for override in SMALL if not override.startswith("model.n_head")]
    command("--config-dir", "conf", "model=gru", *small, "train.log_every=1", cwd=own, check=True)
    (run,) = runs(own)
    assert run.data.metrics.keys() == glossary.METRICS.keys()
