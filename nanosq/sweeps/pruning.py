"""Check and describe what the pruner of a search compares, before the first trial."""

from collections.abc import Sequence

from omegaconf import DictConfig
from optuna import create_study
from optuna.pruners import BasePruner, HyperbandPruner, NopPruner, SuccessiveHalvingPruner

from nanosq.component_errors import calling
from nanosq.errors import InputError
from nanosq.settings import TrainSettings
from nanosq.sweeps.metrics import Metric
from nanosq.sweeps.search_space import SearchSpace
from nanosq.sweeps.trial import FULL_TRAINING

# Arguments of Optuna's pruners that count steps. A step of a study is a thousandth of training.
STEPS = ("n_warmup_steps", "interval_steps", "min_resource", "max_resource")
# These compare a trial at its first evaluation after a fraction, whatever the fraction of that evaluation is.
WITH_RUNGS = (HyperbandPruner, SuccessiveHalvingPruner)


def describe(
    pruner: BasePruner,
    metrics: Sequence[Metric],
    space: SearchSpace,
    train: TrainSettings,
    *,
    arguments: DictConfig,
) -> str:
    """Return one line that says what the pruner compares; it is empty for NopPruner.

    Args:
        pruner: The pruner.
        metrics: The metrics of the search.
        space: What trials differ in.
        train: The settings of training of a trial.
        arguments: The arguments of the pruner.

    Raises:
        InputError: The pruner cannot compare the trials of this search.
    """
    if isinstance(pruner, NopPruner):
        return ""
    _try(pruner)
    if len(metrics) > 1:
        return f"trials are not pruned: Optuna prunes by one metric, and hydra.sweeper.objectives has {len(metrics)}"
    for key in STEPS:
        value = arguments.get(key)
        largest = FULL_TRAINING if key == "max_resource" else FULL_TRAINING - 1  # the last evaluation prunes nothing
        if isinstance(value, int) and value > largest:
            raise InputError(
                f"hydra.sweeper.pruner.{key}={value} counts thousandths of training: it is at most {largest}"
            )
    moving = _axes(space, "train.max_steps", "train.eval_every", "experiment")
    if not moving and train.n_evaluations == 1:
        return "trials are not pruned: each is evaluated only once, at its end"
    if isinstance(pruner, WITH_RUNGS) and moving:
        raise InputError(
            f"hydra.sweeper.pruner: {type(pruner).__name__} needs evaluations at the same fractions of training, but "
            f"{moving} changes these fractions: choose hydra/sweeper/pruner=median or none"
        )
    line = f"pruning compares {metrics[0].key} at the same fraction of training"
    # A warmup in steps is another fraction of a longer training.
    length = ["train.max_steps"] if train.warmup and not isinstance(train.warmup, float) else []
    phases = _axes(space, "schedule", "train.warmup", "train.min_lr_factor", "experiment", *length)
    return f"{line}; the learning rate there depends on {phases}" if phases else line


def _try(pruner: BasePruner) -> None:
    """Ask a pruner about a trial in memory: some check their arguments only then."""
    trial = create_study(pruner=pruner).ask()
    trial.report(0.0, FULL_TRAINING)
    with calling("hydra.sweeper.pruner"):
        trial.should_prune()


def _axes(space: SearchSpace, *keys: str) -> str:
    """Return the axes of a space that are one of these settings or a part of it, as a text."""
    return ", ".join(axis for axis in sorted(space.varied) if any(f"{axis}.".startswith(f"{key}.") for key in keys))
