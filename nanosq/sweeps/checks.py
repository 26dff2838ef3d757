"""Checks of a sweep before its first trial, when nothing is written yet."""

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec

from omegaconf import DictConfig, OmegaConf

from nanosq import config, errors, schema
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


def check_trials(examples: Iterable[DictConfig]) -> None:
    """Refuse a sweep of which no trial can be trained: those with the first and the last values fail for one reason.

    A sweep with some infeasible trials is not refused. It says so when their turn comes. Trials that run on other
    machines, which have other devices and files, are not tried here.

    Args:
        examples: Composed configurations of such trials, with the `hydra` node.

    Raises:
        InputError: All examples fail for the same reason.
    """
    reasons: set[str] = set()
    for composed in examples:
        if composed.hydra.runtime.choices["hydra/launcher"] not in ON_THIS_MACHINE:
            return
        cfg = config.without_hydra(composed)
        try:
            with quick_imports():
                from nanosq import experiment
                from nanosq.description import describe  # which imports this package

                schema.check(cfg)
                experiment.check(cfg, description=describe(composed.hydra, cfg, None), trial=TrialRun("", 0))
            return
        except (ValueError, OSError) as error:
            reasons.add(errors.one_line(error))
    if len(reasons) == 1:
        raise InputError(reasons.pop())


def check_contenders(labels: Sequence[str], settings: Sequence[object]) -> None:
    """Raise an InputError if two contenders of a comparison, given by their labels, have the same settings."""
    for position, setting in enumerate(settings):
        if setting in settings[:position]:
            first = labels[settings.index(setting)]
            raise InputError(f"the contenders {first} and {labels[position]} are the same: name different ones")


def tracking_uri(cfg: DictConfig) -> str:
    """Return the URI of the MLflow store of a configuration; empty if runs are not recorded."""
    from nanosq.tracking.location import default_uri

    return str(OmegaConf.select(cfg, "tracking.uri") or default_uri()) if "uri" in cfg.tracking else ""
