"""A contender of a comparison: its search, and the setting that the search has chosen."""

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from nanosq import config
from nanosq.error_reports import bad_input
from nanosq.errors import InputError
from nanosq.privacy import mask_setting
from nanosq.sweeps import budget
from nanosq.sweeps.attributes import COMPARISON, DIVERGED
from nanosq.sweeps.budget import FINAL_EVALUATIONS, Cost, Pace
from nanosq.sweeps.contenders import Entry
from nanosq.sweeps.launching import LENGTH, TrialLauncher
from nanosq.sweeps.metrics import Metric
from nanosq.sweeps.optuna_settings import CompareSweeperSettings
from nanosq.sweeps.search import LiveSearch

if TYPE_CHECKING:
    import optuna

MAX_EVALUATIONS = 8  # of a tuning trial; a pruner may end it at each of them, and each costs as much as some steps
SHORTER = 4  # by default, a tuning trial has a quarter of the steps of a run at full length


class TunedContender:
    """A contender with its search. Nothing is written before the search is opened."""

    def __init__(
        self,
        sweeper: TrialLauncher,
        settings: CompareSweeperSettings,
        metric: Metric,
        entry: Entry,
        label: str,
    ) -> None:
        self.label, self._setting = label, dict(entry.contenders[label])
        overrides = [*entry.fixed, *(f"{key}={value}" for key, value in self._setting.items())]
        full = sweeper.check(label, overrides)
        if full.seeds != 1:
            raise InputError(f"seeds={full.seeds}: in a comparison, hydra.sweeper.seeds is the number of seeds")
        if full.hydra.runtime.choices["tracking"] == "none":
            raise InputError("tracking=none: a comparison reads its verdict from the recorded runs; leave it out")
        if not full.score_test:
            raise InputError("score_test=false: the verdict of a comparison is on the test split; leave it out")
        self.seed, self.max_steps = int(full.seed), int(full.train.max_steps)
        self._data = {f"data.{key}": value for key, value in config.flatten(full.data).items() if key != "window"}
        self.length = {key: OmegaConf.select(full, key) for key in LENGTH}
        with bad_input(is_single=False):
            train = config.settings(full.train)
        self._n_evaluations = train.n_evaluations
        self.tune_steps = settings.tune_steps or max(1, self.max_steps // SHORTER)
        if not 1 <= self.tune_steps <= self.max_steps:
            raise InputError(
                f"hydra.sweeper.tune_steps={self.tune_steps} is not between 1 and train.max_steps={self.max_steps}"
            )
        eval_every = 1 / MAX_EVALUATIONS
        self._n_tuning_evaluations = replace(train, max_steps=self.tune_steps, eval_every=eval_every).n_evaluations
        tuning = {
            "train.max_steps": self.tune_steps,
            "train.eval_every": eval_every,
            "samples.count": 0,
            "score_test": "false",
        }
        self._tuning = [*tuning]
        self._full = [line for line in overrides if _key(line) in tuning]
        arguments = [*entry.axes, *overrides, *(f"{key}={value}" for key, value in tuning.items())]
        self.search = LiveSearch(sweeper, settings, [metric], arguments, label=label)
        self.most = self.search.total  # trials; a grid may have fewer points than trials are wanted
        if varied := [key for key in tuning if self.search.space.varies(key)]:
            raise InputError(f"hydra.sweeper: {varied[0]} cannot be an axis of a comparison, whose trials set it")

    def check_same_text(self, other: "TunedContender") -> None:
        """Refuse trials of this contender that have another text than those of another one.

        Raises:
            InputError: A setting of the data is an axis, or differs. No verdict is possible.
        """
        for key in sorted({*self._data, *other._data}):
            if self.search.space.varies(key) or self._data.get(key) != other._data.get(key):
                raise InputError(f"{key} has several values: a verdict needs contenders with the same text")

    @property
    def identity(self) -> list[Any]:
        """The facts that make the contender the same in another start: settings, search space, full length and code."""
        space = self.search.space
        parts = [{**part.axes, **part.fixed} for part in (space.always, *space.conditional.values())]
        texts = [{key: str(value) for key, value in part.items()} for part in parts]
        return [self.label, self.search.shared, texts, self.length, self.search.code]

    @property
    def setting(self) -> list[Any]:
        """The facts that distinguish the contender from others, however its overrides are spelled."""
        return [self.search.shared, self.search.space.always.axes, self.search.space.conditional]

    def note(self, comparison: dict[str, Any]) -> None:
        """Record facts about the comparison and its contender in the study, for the report.

        A choice that another start has made stays until there is a new one.
        """
        study = self.search.study.study
        own = {
            "chosen": study.user_attrs.get(COMPARISON, {}).get("chosen"),
            "label": self.label,
            "setting": {key: mask_setting(value) for key, value in self._setting.items()},
            "tune_steps": self.tune_steps,
            "max_steps": self.max_steps,
            "n_trials": max(self.search.total, self.search.n_done),
        }
        study.set_user_attr(COMPARISON, own | comparison)

    @property
    def chosen(self) -> "optuna.trial.FrozenTrial | None":
        """The best tuning trial; None if none has finished."""
        return next(iter(self.search.best()), None)

    def full_setting(self) -> Sequence[str]:
        """Return the overrides of the chosen setting at full length."""
        assert self.chosen is not None
        drawn = self.search.space.overrides(self.chosen.params)
        return [*self._full, *(line for line in drawn if _key(line) not in self._tuning)]

    def costs(self) -> list[Cost]:
        """Return the costs of the trials that were trained to the end."""
        trials = self.search.study.trials
        return budget.costs(t for t in trials if t.state.name == "COMPLETE" and DIVERGED not in t.user_attrs)

    def setups(self) -> list[float]:
        """Return the seconds outside of training and evaluation of the trials that were trained to the end."""
        return [cost.setup(self._n_tuning_evaluations) for cost in self.costs()]

    def pace(self, usual: Cost, setup: float) -> Pace:
        """Return how far the tuning is, and the expected costs of the rest.

        `usual` is the usual cost of a trial of any contender, and `setup` its seconds outside of training and
        evaluation.
        """
        costs = self.costs() or [usual]
        own = budget.usual(costs)
        others = budget.costs(t for t in self.search.study.trials if t.state.name != "COMPLETE")
        seconds = [setup + cost.training + self._n_tuning_evaluations * cost.evaluation for cost in costs]
        trial = statistics.fmean([*seconds, *(cost.seconds for cost in others)])
        evaluations = self._n_evaluations + FINAL_EVALUATIONS
        run = setup + own.training * self.max_steps / self.tune_steps + evaluations * own.evaluation
        return Pace(self.search.n_done, trial, run)


def _key(line: str) -> str:
    return line.split("=")[0].lstrip("+~")
