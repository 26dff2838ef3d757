"""Checks of a sweep before its first trial, when nothing is written yet."""

import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from importlib.util import find_spec

from omegaconf import DictConfig

from nanosq import config, error_reports, identity, schema
from nanosq.errors import InputError
from nanosq.imports import quick_imports
from nanosq.sweeps.trial import TrialRun

ON_THIS_MACHINE = ("basic", "joblib")  # launchers whose jobs see the files and the devices of the sweeper
# What a launcher needs, with the question whether it is there.
NEEDS: Mapping[str, tuple[str, Callable[[], object]]] = {
    "submitit_slurm": ("the command srun of Slurm", lambda: shutil.which("srun")),
    "ray": ("the package ray", lambda: find_spec("ray")),
    "ray_aws": ("the packages ray and boto3", lambda: find_spec("ray") and find_spec("boto3")),
}


def check_launcher(name: str) -> None:
    """Raise an InputError if a launcher, the choice of hydra/launcher, cannot start jobs on this machine."""
    needed, is_there = NEEDS.get(name, ("", lambda: True))
    if not is_there():
        raise InputError(f"hydra/launcher={name} needs {needed}, which is not here: choose hydra/launcher=joblib")


def check_values(examples: Iterable[DictConfig], axes: Collection[str]) -> None:
    """Refuse a sweep with a value of an axis that no trial could have: one of a wrong type or out of its range.

    Args:
        examples: Composed configurations of trials, in which the values to check occur.
        axes: Keys of the axes.

    Raises:
        ValueError: A value is wrong. The message names its key.
    """
    for composed in examples:
        schema.check_values(config.without_hydra(composed))
        config.check_axes(composed, axes)


def check_trials(examples: Iterable[DictConfig], others: Iterable[DictConfig]) -> None:
    """Refuse a sweep of which no trial can be trained.

    A sweep with some infeasible trials, whose values do not fit together, is not refused. It says so when their turn
    comes. Trials that run on other machines, which have other devices and files, are not tried here.

    Args:
        examples: Composed configurations of trials with the first and the last values, with the `hydra` node. If all
            of them fail for the same reason, it is that of all trials.
        others: More trials. They are tried if the examples fail for different reasons.

    Raises:
        InputError: All of them fail. The message is about the first one.
    """
    reasons: list[str] = []
    for composed in examples:
        if (reason := _refusal(composed)) is None:
            return
        reasons.append(reason)
    if len({*reasons}) == 1 or None not in map(_refusal, others):
        raise InputError(reasons[0])


def _refusal(composed: DictConfig) -> str | None:
    """Return why a trial cannot be trained; None if it can, or runs on another machine."""
    if composed.hydra.runtime.choices["hydra/launcher"] not in ON_THIS_MACHINE:
        return None
    cfg = config.without_hydra(composed)
    try:
        with quick_imports():
            from nanosq import experiment
            from nanosq.description import describe  # which imports this package

            schema.check(cfg)
            experiment.check(cfg, description=describe(composed.hydra, cfg, None), trial=TrialRun("", 0))
    except (ValueError, OSError) as error:
        return error_reports.one_line(error)
    return None


def check_seeds(examples: Iterable[DictConfig], listed: Collection[int]) -> None:
    """Refuse trials that would make seeds a setting: the luckiest one would be the best.

    Args:
        examples: Composed configurations of trials.
        listed: The seeds that all trials are trained with; none if each trial has its own.

    Raises:
        InputError: Trials differ in the number of their seeds, or in their seed only, as presets may.
    """
    trials = [config.without_hydra(cfg) for cfg in examples]
    if len({cfg.seeds for cfg in trials}) > 1:
        raise InputError("seeds cannot be an axis: it is the number of runs of every trial")
    seeds: dict[str, int] = {}
    for cfg in () if listed else trials:
        seed, cfg.seed = cfg.seed, 0
        setting = identity.planned_hash(cfg)
        cfg.seed = seed
        if (other := seeds.setdefault(setting, seed)) != seed:
            raise InputError(f"two trials differ in their seed only, {other} and {seed}: list seeds, seed=1,2,3")
