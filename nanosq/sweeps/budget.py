"""The budget of a sweep: its time, the cost of its trials, and what fits into the time that is left."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nanosq.errors import InputError
from nanosq.sweeps.attributes import COST

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

RESERVE = 0.1  # fraction of the time left that no plan uses, because a machine may become slower
MIN_SEEDS = 2  # a verdict needs an interval
FINAL_EVALUATIONS = 4  # time of the final score and of what is recorded with it, in evaluations


def parse_seconds(timeout: Any) -> float | None:
    """Return a time in seconds: a number of seconds, or a text as "90s", "10m" or "1h30m". None stays None.

    Raises:
        InputError: It is neither, or not positive.
    """
    if timeout is None:
        return None
    import pandas as pd

    try:
        seconds = float(timeout)  # also a text without a unit, which pandas would read as nanoseconds
    except ValueError:
        seconds = pd.to_timedelta(timeout, errors="coerce").total_seconds()
    if isinstance(timeout, bool) or not 0 < seconds < math.inf:
        raise InputError(f"hydra.sweeper.timeout={timeout}: give a time such as 90s, 10m or 1h30m")
    return seconds


def duration(seconds: float) -> str:
    """Return a time as a person says it: "40 s", "12 min", "1 h 50 min"."""
    if seconds < 99:
        return f"{math.ceil(seconds)} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"


@dataclass(frozen=True)
class Cost:
    """Seconds that a trial has added to the sweep. With parallel trials, they are less than it has taken."""

    seconds: float
    training: float = 0.0  # of these, in training steps
    evaluation: float = 0.0  # of these, in one evaluation of the validation split

    def setup(self, n_evaluations: int) -> float:
        """Return the seconds that are neither in training steps nor in the evaluations."""
        return max(0.0, self.seconds - self.training - n_evaluations * self.evaluation)


def costs(trials: "Iterable[FrozenTrial]") -> list[Cost]:
    """Return the costs of the trials whose cost is known."""
    return [Cost(**trial.user_attrs[COST]) for trial in trials if COST in trial.user_attrs]


def usual(costs: Sequence[Cost]) -> Cost:
    """Return the medians of the costs; of two, the lower ones, because the first trial also prepares the text."""
    return Cost(
        statistics.median_low(cost.seconds for cost in costs),
        statistics.median(cost.training for cost in costs),
        statistics.median_low(cost.evaluation for cost in costs),
    )


@dataclass(frozen=True)
class Plan:
    """The trials and seeds of a comparison for each contender, and the time that they take from now on."""

    n_trials: int
    n_seeds: int
    seconds: float
    confirmation: float  # of these, for the seeds

    def __str__(self) -> str:
        trials, seeds = "trial" if self.n_trials == 1 else "trials", "seed" if self.n_seeds == 1 else "seeds"
        return f"{self.n_trials} {trials} and {self.n_seeds} {seeds}"

    def fits(self, seconds_left: float) -> bool:
        """Return whether there is enough time for the plan."""
        return self.seconds <= (1 - RESERVE) * seconds_left


@dataclass(frozen=True)
class Pace:
    """How far the tuning of a contender is, and its expected costs in seconds."""

    n_done: int
    trial: float
    run: float


def fit(n_trials: int, n_seeds: int, contenders: Sequence[Pace], *, seconds_left: float) -> Plan:
    """Return the largest plan that fits into the time that is left, or the smallest one if none does.

    The largest one has `n_trials` for each contender and `n_seeds`, which are reduced in proportion. The smallest one
    has the trials that are done and MIN_SEEDS seeds.
    """
    for percent in range(100, -1, -1):
        trials = max(1, *(pace.n_done for pace in contenders), round(n_trials * percent / 100))
        seeds = max(min(MIN_SEEDS, n_seeds), math.ceil(n_seeds * percent / 100))
        tuning = sum((trials - pace.n_done) * pace.trial for pace in contenders)
        confirmation = sum(seeds * pace.run for pace in contenders)
        plan = Plan(trials, seeds, tuning + confirmation, confirmation)
        if plan.fits(seconds_left):
            break
    return plan
