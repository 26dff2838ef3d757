"""The defaults of samplers and pruners are those of the installed Optuna."""

import inspect
import re
from pathlib import Path

import pytest
import yaml
from hydra.core.config_store import ConfigStore
from hydra_plugins.hydra_optuna_sweeper import config as plugin

from nanosq import config
from tests.commandline import ROOT, command

FOLDER = ROOT / "conf/hydra/sweeper"
FILES = sorted(FOLDER.glob("*/*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_default_is_that_of_optuna_or_has_a_comment_with_a_reason(path: Path) -> None:
    """Such a comment begins with Optuna's value: `n_startup_trials: 3  # Optuna: 5; the reason`."""
    node = yaml.safe_load(path.read_text())
    parameters = inspect.signature(config.get_target(node["_target_"])).parameters
    reasons = dict(re.findall(r"^(\w+): .*# Optuna: (\w+)[;,] \w+", path.read_text(), re.MULTILINE))
    ours = {key: value for key, value in node.items() if not key.startswith("_")}
    assert ours.keys() <= parameters.keys()
    different = {key for key, value in ours.items() if value != parameters[key].default}
    assert different == reasons.keys()
    assert {key: str(parameters[key].default) for key in different} == reasons


def test_every_sampler_of_the_plugin_has_a_file() -> None:
    """The defaults of hydra-optuna-sweeper are those of Optuna 4. Optuna 4 has removed motpe."""
    assert plugin.SamplerConfig  # its import fills the ConfigStore
    theirs = {name.removesuffix(".yaml") for name in ConfigStore.instance().list("hydra/sweeper/sampler")}
    assert theirs - {"motpe"} == {path.stem for path in FILES if path.parent.name == "sampler"}


@pytest.mark.parametrize("name", ["tpe", "nsgaii"])
def test_the_command_line_selects_the_file(name: str, tmp_path: Path) -> None:
    overrides = ["hydra/sweeper=optuna", *([] if name == "tpe" else [f"hydra/sweeper/sampler={name}"])]
    shown = command(*overrides, "--cfg", "hydra", "-p", "hydra.sweeper.sampler", cwd=tmp_path, check=True)
    assert yaml.safe_load(shown.stdout) == yaml.safe_load((FOLDER / "sampler" / f"{name}.yaml").read_text())
