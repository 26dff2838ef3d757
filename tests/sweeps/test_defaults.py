"""The defaults of samplers and pruners are those of the installed Optuna."""

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from hydra.core.config_store import ConfigStore

from nanosq import config, sweeps
from tests.commandline import ROOT, command

PRUNERS = sorted((ROOT / "conf/hydra/sweeper/pruner").glob("*.yaml"))
SAMPLERS: dict[str, Any] = {
    "cmaes": optuna.samplers.CmaEsSampler,
    "gp": optuna.samplers.GPSampler,
    "grid": optuna.samplers.GridSampler,
    "motpe": optuna.samplers.TPESampler,  # the name of TPE for several metrics in Optuna 3
    "nsgaii": optuna.samplers.NSGAIISampler,
    "nsgaiii": optuna.samplers.NSGAIIISampler,
    "qmc": optuna.samplers.QMCSampler,
    "random": optuna.samplers.RandomSampler,
    "tpe": optuna.samplers.TPESampler,
}


def differences(ours: Mapping[str, Any], target: Any) -> dict[str, Any]:
    """Return the defaults of Optuna that a configuration changes."""
    parameters = inspect.signature(target).parameters
    defaults = {key: parameters[key].default for key in ours if not key.startswith("_")}
    return {key: default for key, default in defaults.items() if ours[key] != default}


@pytest.mark.parametrize("name", SAMPLERS)
def test_defaults_of_a_sampler(name: str) -> None:
    sweeps.register()
    node = ConfigStore.instance().load(f"hydra/sweeper/sampler/{name}.yaml").node
    assert differences({str(key): value for key, value in node.items()}, SAMPLERS[name]) == {}


def test_every_sampler_is_compared() -> None:
    sweeps.register()
    names = ConfigStore.instance().list("hydra/sweeper/sampler")
    assert {name.removesuffix(".yaml") for name in names} == {*SAMPLERS}


@pytest.mark.parametrize("path", PRUNERS, ids=lambda path: path.stem)
def test_defaults_of_a_pruner_have_a_reason_if_they_differ(path: Path) -> None:
    """The reason follows Optuna's value: `n_startup_trials: 3  # Optuna: 5; the reason`."""
    node = yaml.safe_load(path.read_text())
    changed = differences(node, config.get_target(node["_target_"]))
    reasons = re.findall(r"^(\w+): .*# Optuna: (\w+)[;,] \w+", path.read_text(), re.MULTILINE)
    assert dict(reasons) == {key: str(default) for key, default in changed.items()}


def test_the_command_line_shows_the_defaults(tmp_path: Path) -> None:
    shown = command("hydra/sweeper=optuna", "--cfg", "hydra", "-p", "hydra.sweeper.sampler", cwd=tmp_path, check=True)
    sampler = yaml.safe_load(shown.stdout)
    assert sampler["_target_"] == "optuna.samplers.TPESampler"
    assert differences(sampler, optuna.samplers.TPESampler) == {}


def test_tab_completion_offers_the_sweepers(tmp_path: Path) -> None:
    line = "python run.py hydra/sweeper="
    result = command("-sc", "query=bash", cwd=tmp_path, check=True, COMP_LINE=line, COMP_POINT=str(len(line)))
    assert result.stdout.split() == [f"hydra/sweeper={name}" for name in ("basic", "compare", "grid", "optuna")]
