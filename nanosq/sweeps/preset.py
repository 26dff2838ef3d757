"""The setting of a trial as an experiment: a file that trains it again."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.types import RunMode
from omegaconf import OmegaConf

from nanosq import config, identity
from nanosq.filesystem import file_name, write_text
from nanosq.installation import program

if TYPE_CHECKING:
    from nanosq.sweeps.launching import TrialLauncher

COMPONENTS = ("model", "loss", "optimizer", "schedule", "data")


def write(sweeper: "TrialLauncher", trial: Sequence[str], folder: Path, name: str, *, origin: str) -> str:
    """Write the setting of a trial, for any seed, as an experiment, and return the command that trains it.

    `trial` are its overrides at full length, `folder` is that of the sweep, and `origin` says in the file what it is.
    Characters of the name that a file or an override cannot have become underscores.
    """
    name = file_name(name)
    composed = sweeper.compose(trial)
    choices = {group: composed.hydra.runtime.choices[group] for group in COMPONENTS}
    default = sweeper.hydra_context.config_loader.load_configuration(
        config_name=sweeper.config.hydra.job.config_name,
        overrides=[f"{group}={choice}" for group, choice in choices.items()],
        run_mode=RunMode.RUN,
    )
    before, after = config.flatten(config.without_hydra(default)), config.flatten(config.without_hydra(composed))
    changed = {key: value for key, value in after.items() if key not in before or before[key] != value}
    settings = {key: value for key, value in changed.items() if identity.affects_result(key) and key != "seed"}
    if identity.named_state(composed):
        settings["resume"] = composed.resume
    text = preset(f"Setting of {origin}, at full length.", choices, settings)
    write_text(folder / "experiment" / f"{name}.yaml", text, "hydra.sweep.dir")
    # The folder of the user may hold a loss, for example.
    own = [f"hydra.searchpath=[file://{path}]" for path in config.config_dirs(sweeper.config.hydra)]
    return f"{program()} {shlex.join(['--config-dir', str(folder), f'experiment={name}', *own])}"


def preset(title: str, choices: Mapping[str, str], settings: Mapping[str, Any]) -> str:
    """Return the text of an experiment: its components by their group, and settings by their dotted key."""
    nested = OmegaConf.create()
    for key, value in settings.items():
        OmegaConf.update(nested, key, value, force_add=True)
    groups = "\n".join(f"  - override /{group}: {choice}" for group, choice in choices.items())
    text = OmegaConf.to_yaml(nested) if settings else ""
    return f"# @package _global_\n# {title}\ndefaults:\n{groups}\n\n{text}"
