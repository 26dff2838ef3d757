"""The confirmation of a comparison: the chosen setting of each contender, at full length, with several seeds."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from nanosq.sweeps.budget import Cost, costs
from nanosq.sweeps.metrics import Metric
from nanosq.sweeps.progress import Standing
from nanosq.sweeps.seed_results import SeedResults
from nanosq.sweeps.study import SharedStudy
from nanosq.sweeps.trial import PlannedTrial, TrialRun

MAX = 2**31 - 1
PLANNED = "planned"  # attribute of a trial: its parameters, also before it has started


class Confirmation:
    """A study with one trial for each run. Its parameters are the contender, the chosen tuning trial, and the seed.

    `lengths` are the settings of the length of a run, by the contender. A confirmation that was started keeps them.
    """

    def __init__(self, name: str, url: str, lengths: Mapping[str, Mapping[str, Any]], metric: Metric) -> None:
        self._metric = metric
        self._chosen: Mapping[str, int] = {}
        self._wanted: list[dict[str, Any]] = []
        by_key = {key: [length[key] for length in lengths.values()] for length in lengths.values() for key in length}
        self.study = SharedStudy(
            name,
            url,
            directions=[metric.direction],
            sampler=optuna.samplers.RandomSampler(),  # draws nothing: all parameters are given
            pruner=optuna.pruners.NopPruner(),
            space={
                "contender": CategoricalDistribution([*lengths]),
                "trial": IntDistribution(0, MAX),
                "seed": IntDistribution(0, MAX),
            },
            settings={
                "hydra.sweeper.objectives": [metric.key],
                **{key: values[0] if len({*values}) == 1 else values for key, values in by_key.items()},
            },
        )

    def plan(self, chosen: Mapping[str, int], seeds: Sequence[int]) -> None:
        """Plan a run for each contender and seed: all contenders with the first seed, then with the second one.

        Runs that have a result, or are planned, are not planned again. Failed ones are. `chosen` are the numbers of the
        best tuning trials by contender.
        """
        self._chosen = chosen
        self._wanted = [
            {"contender": label, "trial": trial, "seed": seed} for seed in seeds for label, trial in chosen.items()
        ]
        with self.study.lock():
            known = [trial.user_attrs.get(PLANNED) for trial in self.study.trials if trial.state is not TrialState.FAIL]
            for params in self._wanted:
                if params not in known:
                    self.study.study.enqueue_trial(params, user_attrs={PLANNED: params})

    def take(self, n_runs: int, settings: Mapping[str, Sequence[str]]) -> list[PlannedTrial]:
        """Take up to `n_runs` planned runs. `settings` are the overrides of the chosen settings by contender."""
        taken: list[PlannedTrial] = []
        while len(taken) < n_runs and (trials := self.study.take(1, total=0)):
            (trial,) = trials
            label, seed = trial.params["contender"], trial.params["seed"]
            if trial.params["trial"] != self._chosen.get(label):  # planned before more tuning changed the choice
                self.study.tell(trial, TrialState.FAIL)
                continue
            run = TrialRun(self.study.name, trial.number, label=f"{label} seed {seed}", contender=label)
            taken.append(PlannedTrial(run, [*settings[label], f"seed={seed}"]))
        return taken

    def tell(self, planned: PlannedTrial, results: SeedResults, cost: Cost | None) -> None:
        """Record the result of a run."""
        if trial := self.study.record(planned.run.trial, results, cost):
            self.study.tell(trial, TrialState.COMPLETE, [results.mean(self._metric)])

    def standing(self) -> Standing:
        """Return how far the confirmation is."""
        done = self.done()
        values: dict[str, list[float]] = {}
        for trial in done:
            values.setdefault(trial.params["contender"], []).append(trial.values[0])
        return Standing(self.n_wanted, len(done), values, self._metric.key, phase="confirmation")

    @property
    def n_wanted(self) -> int:
        """The number of runs that are planned, with those that have ended."""
        return len(self._wanted)

    @property
    def seconds_of_run(self) -> float:
        """The mean cost of a run; 0 if all runs were trained before."""
        return statistics.fmean([cost.seconds for cost in costs(self.done())] or [0.0])

    def done(self) -> list[FrozenTrial]:
        """Return the planned runs that have a result."""
        return [t for t in self.study.trials if t.state is TrialState.COMPLETE and t.params in self._wanted]
