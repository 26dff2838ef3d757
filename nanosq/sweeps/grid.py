"""The grid sweeper: every combination of the values that overrides list."""

import hashlib
import itertools
import json
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from nanosq import config, errors, identity
from nanosq.sweeps import summary
from nanosq.sweeps.launching import Jobs, Launching, Objective
from nanosq.sweeps.summary import STATES, Row


class GridSweeper(Launching):
    """Runs the combinations of `params` and of the overrides on the command line, which replace or add axes.

    The last axis turns fastest, as in nested loops. The axes of `zip` are paired: their first values go together, their
    second values, and so on.

    A trial that diverges or fails does not stop the others.
    """

    def __init__(self, *, params: dict[str, str], zip: Sequence[str] = ()) -> None:
        self.params = params
        self.zip = zip

    def sweep(self, arguments: list[str]) -> Any:
        trials = dict(enumerate(self._combinations([*(f"{k}={v}" for k, v in self.params.items()), *arguments])))
        composed = [self.compose(overrides) for overrides in trials.values()]  # what is wrong is told before the first
        if len({cfg.seeds for cfg in composed}) > 1:
            raise errors.InputError("seeds is no axis: it is how often each trial is trained")
        seeds = self.seeds(composed[0])
        hashes = [identity.config_hash(config.without_hydra(cfg)) for cfg in composed]
        name = f"grid-{hashlib.sha256(json.dumps([seeds, hashes]).encode()).hexdigest()[:8]}"

        axes = summary.axes([summary.settings(overrides) for overrides in trials.values()])
        jobs = dict(zip(trials, self.launch(name, trials, axes=axes, seeds=seeds), strict=True))
        objective = Objective()
        rows = sorted((_row(number, trials[number], each, objective) for number, each in jobs.items()), key=_rank)
        best = [row.number for row in rows[:1] if row.state == "finished"]
        failures = {number: each.failures for number, each in jobs.items() if each.failures}
        self.summarize(name, rows, [objective], {number: trials[number] for number in best}, failures)

    def _combinations(self, arguments: Sequence[str]) -> list[list[str]]:
        """The overrides of each trial."""
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        axes: dict[str, list[str]] = {}
        for override in parser.parse_overrides(list(arguments)):
            # A later one replaces an earlier one in its place, with a prefix or without.
            axes[override.get_key_element().lstrip("+~")] = _values(override)
        unknown = [key for key in self.zip if key not in axes]
        if unknown:
            raise errors.InputError(f"hydra.sweeper.zip: {unknown[0]} is no axis; there are {', '.join(axes)}")
        lengths = {key: len(axes[key]) for key in self.zip}
        if len({*lengths.values()}) > 1:
            counts = ", ".join(f"{key} {length}" for key, length in lengths.items())
            raise errors.InputError(f"hydra.sweeper.zip pairs axes of equally many values, not {counts}")
        loops: list[list[tuple[str, ...]]] = []
        for key, values in axes.items():
            if key not in self.zip:
                loops.append([(value,) for value in values])
            elif key == self.zip[0]:
                loops.append(list(zip(*(axes[each] for each in self.zip), strict=True)))
        return [list(itertools.chain(*combination)) for combination in itertools.product(*loops)]


def _values(override: Override) -> list[str]:
    """The overrides that one with several values stands for."""
    if override.is_delete() or not override.is_sweep_override():
        assert override.input_line is not None
        return [override.input_line]
    if not override.is_discrete_sweep():
        raise errors.InputError(f"{override.input_line}: a grid takes lists of values; hydra/sweeper=optuna searches")
    return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]


def _row(number: int, overrides: Sequence[str], jobs: Jobs, objective: Objective) -> Row:
    return Row(
        number,
        jobs.state,
        values=[jobs.mean(objective)],
        errors=[jobs.standard_error(objective)],
        settings=summary.settings(overrides),
        runs=[result.run_id for result in jobs.results if result.run_id],
        link=next((result.link for result in jobs.results if result.link), ""),
    )


def _rank(row: Row) -> tuple[int, float]:
    return STATES.index(row.state), row.values[0]
