"""The metrics that a sweep minimizes or maximizes."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from hydra_plugins.hydra_optuna_sweeper.config import Direction

from nanosq.errors import InputError
from nanosq.suggestion import closest

# What a sweep may choose by, and in which direction. The test split is kept for the comparison of what was chosen.
METRICS = {
    "val/perplexity": "minimize",
    "val/nll": "minimize",
    "val/bits_per_byte": "minimize",
    "val/accuracy": "maximize",
    "val/ece": "minimize",
    "val/loss": "minimize",
    "train/seconds": "minimize",
}


@dataclass(frozen=True)
class Metric:
    """A metric that a sweep minimizes or maximizes, by its MLflow key in METRICS."""

    key: str = "val/perplexity"

    @property
    def direction(self) -> str:
        """The direction of better values: "minimize" or "maximize"."""
        return METRICS[self.key]

    @property
    def maximize(self) -> bool:
        """True if a higher value is better."""
        return self.direction == "maximize"

    @property
    def worst(self) -> float:
        """The value of a trial that has none."""
        return -math.inf if self.maximize else math.inf


PER_BYTE = "val/bits_per_byte"
PADDING = "data.tokenizer.pad_to"  # ids that never occur: they do not change the tokens
TRAIN_SECONDS = Metric("train/seconds")
VAL_SECONDS = "last/val_seconds"  # key of the time of the last evaluation


def check_units(name: str, keys: Collection[str], axes: Collection[str]) -> None:
    """Check that metrics have the same unit in trials that differ in these axes.

    Raises:
        InputError: The unit differs, because every loss has its own, and so have other tokens. The message begins with
            `name`.
    """
    if "val/loss" in keys and any(axis.split(".")[0] == "loss" for axis in axes):
        raise InputError(f"{name}: val/loss has another unit for every loss: use val/nll")
    tokens = [axis for axis in axes if f"{axis}.".startswith("data.tokenizer.") and axis != PADDING]
    for key in keys:
        if tokens and key.startswith("val/") and key != PER_BYTE:
            raise InputError(f"{name}: {key} counts tokens, which {min(tokens)} changes: use {PER_BYTE}")


def parse_metrics(keys: Sequence[str], direction: Any) -> list[Metric]:
    """Return the metrics of a search from their MLflow keys.

    Args:
        keys: The keys, which also decide the directions.
        direction: None, or what the user believes: one direction for all metrics, or one for each of them.

    Raises:
        InputError: A key is unknown or given twice, or a metric has another direction.
    """
    if not keys:
        raise InputError("hydra.sweeper.objectives is empty: name at least one metric")
    for key in keys:
        if key not in METRICS:
            advice = closest(key, METRICS, otherwise=f"choose from {', '.join(METRICS)}")
            raise InputError(f"hydra.sweeper.objectives: {key} is not a metric{advice}")
        if keys.count(key) > 1:
            raise InputError(f"hydra.sweeper.objectives names {key} twice: name each metric once")
    metrics = [Metric(key) for key in keys]
    if direction is not None:
        given = [direction] * len(keys) if isinstance(direction, str | Direction) else direction
        names, right = [str(getattr(item, "name", item)) for item in given], [metric.direction for metric in metrics]
        if names != right:
            theirs = f"the direction of {', '.join(keys)} is {','.join(right)}"
            raise InputError(f"hydra.sweeper.direction={','.join(names)}: {theirs}; leave it out")
    return metrics
