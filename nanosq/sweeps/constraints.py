"""Constraints of a search: bounds of the number of parameters and of metrics. The best trial is one that meets them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nanosq.errors import InputError
from nanosq.suggestion import closest
from nanosq.sweeps.metrics import METRICS

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, Trial

    from nanosq.sweeps.seed_results import SeedResults

KEY = "hydra.sweeper.constraints"  # also a setting of the study
PARAMETERS = "parameters"  # the number of parameters of the model


@dataclass(frozen=True)
class Constraint:
    """The largest value of a metric or of PARAMETERS, or the smallest one of a metric that is maximized."""

    key: str
    bound: float

    def excess(self, value: float) -> float:
        """Return by what fraction of the bound a value is beyond it. It is at most 0 if the value meets the constraint.

        The excesses of several constraints have the same unit, so that a sampler can add them. A value that is not
        finite, as that of a trial that has diverged, counts as twice the bound.
        """
        if not math.isfinite(value):
            return 1.0
        beyond = value / self.bound - 1
        return -beyond if METRICS.get(self.key) == "maximize" else beyond


def parse(bounds: Any) -> list[Constraint]:
    """Return the constraints from a mapping of keys to bounds, or None.

    Raises:
        InputError: A key is unknown, or a bound is not a positive number.
    """
    if bounds is None:
        return []
    if not isinstance(bounds, Mapping):
        raise InputError(f"{KEY}={bounds}: give a mapping, as in {{{PARAMETERS}: 1e6, train/seconds: 60}}")
    known = [PARAMETERS, *METRICS]
    for key, bound in bounds.items():
        if key not in known:
            advice = closest(key, known, otherwise=f"choose from {', '.join(known)}")
            raise InputError(f"{KEY}: {key} is not a metric{advice}")
        is_number = isinstance(bound, int | float) and not isinstance(bound, bool)
        if not (is_number and math.isfinite(bound) and bound > 0):
            raise InputError(f"{KEY}: the bound of {key} must be a positive number, not {bound}")
    return [Constraint(key, float(bound)) for key, bound in bounds.items()]


def stored(settings: Mapping[str, Any]) -> list[Constraint]:
    """Return the constraints of a study from the settings that it has stored."""
    return [Constraint(key, bound) for key, bound in settings.get(KEY, {}).items()]


def as_setting(constraints: Sequence[Constraint]) -> dict[str, dict[str, float]]:
    """Return the constraints as a setting of a study. A study without constraints has no such setting."""
    return {KEY: {each.key: each.bound for each in constraints}} if constraints else {}


def record(trial: "Trial", constraints: Sequence[Constraint], results: "SeedResults", sampler: "BaseSampler") -> bool:
    """Store by how much a trial exceeds the constraints, as far as it is known. Return whether the trial is complete.

    A trial that was ended because of a constraint is pruned. For a sampler that learns only from complete trials, it is
    complete, with the worst values and as if it met the other constraints exactly.
    """
    from nanosq.sweeps.samplers import learns_from_pruned

    values = {each: results.bounded(each.key) for each in constraints}
    known = {each.key: each.excess(value) for each, value in values.items() if value is not None}
    is_violation = any(excess > 0 for excess in known.values())
    is_complete = results.state != "pruned" or (is_violation and not learns_from_pruned(sampler))
    for each in constraints:
        if each.key not in trial.constraints and (is_complete or each.key in known):  # an interrupted start has set it
            trial.set_constraint(each.key, known.get(each.key, 0.0))
    return is_complete


def is_violated(trial: "FrozenTrial") -> bool:
    """Return whether a trial violates a constraint, as far as its values are known."""
    return any(excess > 0 for excess in trial.constraints.values())
