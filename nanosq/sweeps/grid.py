"""The grid sweeper: all combinations of the values that overrides list."""

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from nanosq import config, error_reports, errors, identity
from nanosq.sweeps import checks, overrides, summary
from nanosq.sweeps.launching import TrialLauncher
from nanosq.sweeps.metrics import Metric
from nanosq.sweeps.seed_results import SeedResults
from nanosq.sweeps.summary import TrialSummary
from nanosq.sweeps.trial import PlannedTrial, TrialRun


class GridSweeper(TrialLauncher):
    """Runs all combinations of `params` and of the overrides on the command line, which replace or add axes.

    The last axis changes fastest, as in nested loops. A trial that diverges or fails does not stop the others.
    """

    def __init__(self, *, params: dict[str, str] | None, zip: Sequence[str] = ()) -> None:
        """Create the sweeper from its configuration.

        Args:
            params: The values of each axis, as on the command line.
            zip: Axes to be paired: their first values go together, their second values, and so on.
        """
        super().__init__()
        self.params = params or {}
        self.zip = zip

    def sweep(self, arguments: list[str]) -> Any:
        """Run the sweep. Hydra calls this method with the overrides of the command line."""
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        parsed = parser.parse_overrides([*(f"{key}={value}" for key, value in self.params.items()), *arguments])
        axes_and_settings, seeds = overrides.take_seeds(parsed)
        trials = dict(enumerate(combinations(axes_and_settings, paired=self.zip)))
        axes = summary.axes([summary.settings(trial) for trial in trials.values()])

        def compose(number: int) -> DictConfig:
            setting = summary.one_line(summary.settings(trials[number]), {axis: axis for axis in axes})
            return self.check(", ".join(filter(None, (f"trial {number}", setting))), trials[number])

        with error_reports.bad_input(is_single=False):
            checks.check_values(map(compose, _with_new_values(trials)), axes)
        ends = [compose(0), compose(len(trials) - 1)]
        checks.check_seeds(ends, seeds)
        n_seeds = len(overrides.seeds_of(ends[0], seeds))
        checks.check_trials(ends, map(compose, trials))
        composed = [*map(compose, trials)]  # mistakes show before the first trial runs
        checks.check_seeds(composed, seeds)
        hashes = [identity.planned_hash(config.without_hydra(cfg)) for cfg in composed]
        name = f"grid-{hashlib.sha256(json.dumps([seeds or n_seeds, hashes]).encode()).hexdigest()[:8]}"

        self.check_store(composed[0])
        self.share_machine(composed, len(trials) * n_seeds)
        planned = [PlannedTrial(TrialRun(name, number), trial) for number, trial in trials.items()]
        results = dict(zip(trials, self.launch(planned, axes=axes, seeds=seeds), strict=True))
        metric = Metric()
        ranked = summary.rank(_summary(number, trials[number], results[number], metric) for number in trials)
        best = {trial.number: trials[trial.number] for trial in ranked[:1] if trial.state == "finished"}
        failures = {f"trial {number}": result.failures for number, result in results.items() if result.failures}
        self.summarize(name, ranked, [metric], best, failures)


def _with_new_values(trials: Mapping[int, Sequence[str]]) -> Iterator[int]:
    """Yield the numbers of trials in which each value of each axis occurs."""
    known: set[str] = set()
    for number, trial in trials.items():
        if not known.issuperset(trial):
            known.update(trial)
            yield number


def combinations(parsed: Iterable[Override], *, paired: Sequence[str] = ()) -> list[list[str]]:
    """Return the overrides of each trial of a grid.

    Args:
        parsed: One axis each. A later override of the same key takes the place of an earlier one.
        paired: Keys of axes that are combined value by value.

    Raises:
        InputError: A paired axis does not exist or has another length, or an axis is an interval.
    """
    by_key = {overrides.key_of(override): override for override in parsed}
    overrides.check_grid(_count(override) for key, override in by_key.items() if key not in paired[1:])
    axes = {key: _values(override) for key, override in by_key.items()}
    unknown = [key for key in paired if key not in axes]
    if unknown:
        raise errors.InputError(f"hydra.sweeper.zip: {unknown[0]} is not an axis; the axes are {', '.join(axes)}")
    lengths = {key: len(axes[key]) for key in paired}
    if len({*lengths.values()}) > 1:
        counts = ", ".join(f"{key} {length}" for key, length in lengths.items())
        raise errors.InputError(f"hydra.sweeper.zip pairs axes with the same number of values, not {counts}")
    loops: list[list[tuple[str, ...]]] = []
    for key, values in axes.items():
        if key not in paired:
            loops.append([(value,) for value in values])
        elif key == paired[0]:
            loops.append(list(zip(*(axes[axis] for axis in paired), strict=True)))
    return [list(itertools.chain(*combination)) for combination in itertools.product(*loops)]


def _count(override: Override) -> int:
    """Return the number of values that an override lists."""
    if override.is_delete() or not overrides.is_axis(override):
        return 1
    if not override.is_discrete_sweep():
        raise errors.InputError(f"{override.input_line}: a grid takes lists of values; hydra/sweeper=optuna searches")
    return overrides.count(override)


def _values(override: Override) -> list[str]:
    """Return one override for each value that an override lists."""
    if override.is_delete() or not overrides.is_axis(override):
        return [overrides.text(override)]
    return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]


def _summary(number: int, trial: Sequence[str], results: SeedResults, metric: Metric) -> TrialSummary:
    return TrialSummary(
        number,
        results.state,
        values=[results.mean(metric)],
        errors=[results.standard_error(metric)],
        settings=summary.settings(trial),
        runs=results.runs,
        link=results.link,
    )
